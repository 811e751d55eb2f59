// An image of another processor is refused, with the names of what is missing.
#include "plugins/kvm/processor.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstring>

#include "plugins/kvm/kvm_api.h"
#include "stasis/fd.h"

namespace stasis::kvm {
namespace {

class Processor : public testing::Test {
 protected:
  void SetUp() override {
    Fd kvm(open("/dev/kvm", O_RDWR | O_CLOEXEC));
    if (!kvm) GTEST_SKIP() << "/dev/kvm cannot be opened";
    constexpr uint32_t kMost = 256;
    std::string data(sizeof(kvm_cpuid2) + kMost * sizeof(kvm_cpuid_entry2), '\0');
    std::memcpy(data.data(), &kMost, sizeof kMost);
    ASSERT_EQ(ioctl(kvm.get(), KVM_GET_SUPPORTED_CPUID, data.data()), 0);
    state_ = machine_.add_vcpus()->add_states();
    state_->set_request(KVM_SET_CPUID2);
    state_->set_data(data);
  }

  void add(uint32_t function, uint32_t bits_of_ebx) {
    kvm_cpuid_entry2 entry;
    std::string& data = *state_->mutable_data();
    for (size_t at = sizeof(kvm_cpuid2); at + sizeof entry <= data.size(); at += sizeof entry) {
      std::memcpy(&entry, data.data() + at, sizeof entry);
      if (entry.function != function || entry.index != 0) continue;
      entry.ebx |= bits_of_ebx;
      std::memcpy(data.data() + at, &entry, sizeof entry);
    }
  }

  schema::Machine machine_;
  schema::State* state_ = nullptr;
};

TEST_F(Processor, WhatIsSupportedHere) {
  auto checked = check_features(machine_);
  EXPECT_TRUE(checked.ok()) << checked.error().message();
}

TEST_F(Processor, WhatNoProcessorHas) {
  add(7, 1U << 22);  // PCOMMIT, which was withdrawn before any processor had it
  auto checked = check_features(machine_);
  ASSERT_FALSE(checked.ok());
  EXPECT_EQ(checked.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(checked.error().cause.find("CPUID 0x7.0 ebx bit 22"), std::string::npos)
      << checked.error().message();
}

TEST_F(Processor, NamesOfProcInfo) {
  add(7, ~0U);  // MPX and the like: nobody has all
  auto checked = check_features(machine_);
  ASSERT_FALSE(checked.ok());
  EXPECT_NE(checked.error().message().find("-cpu"), std::string::npos);
}

}  // namespace
}  // namespace stasis::kvm
