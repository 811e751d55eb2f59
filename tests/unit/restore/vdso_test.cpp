#include "restore/vdso.h"

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <time.h>

#include <cerrno>
#include <cstring>
#include <random>

#include "kernel/vdso.h"

namespace stasis::restore {
namespace {

// What programs have: the address of a function in what was the vDSO when they asked.
class Old {
 public:
  explicit Old(const std::string& content) : size_(content.size()) {
    memory_ = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    std::memcpy(memory_, content.data(), size_);
    EXPECT_EQ(::mprotect(memory_, size_, PROT_READ | PROT_EXEC), 0);
  }
  Old(const Old&) = delete;
  Old& operator=(const Old&) = delete;
  ~Old() { ::munmap(memory_, size_); }

  template <typename Function>
  Function* function(const char* name) const {
    void* library = ::dlopen("linux-vdso.so.1", RTLD_LAZY | RTLD_NOLOAD);
    auto* ours = library != nullptr ? static_cast<char*>(::dlsym(library, name)) : nullptr;
    if (ours == nullptr) return nullptr;
    return reinterpret_cast<Function*>(static_cast<char*>(memory_) + (ours - kernel::own_vdso().data()));
  }

 private:
  void* memory_;
  size_t size_;
};

uint64_t own_address() { return reinterpret_cast<uint64_t>(kernel::own_vdso().data()); }

void expect_time(const Old& old) {
  auto* ask = old.function<int(clockid_t, timespec*)>("__vdso_clock_gettime");
  ASSERT_NE(ask, nullptr);
  for (const clockid_t clock : {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME}) {
    timespec before, told = {}, after;
    ::clock_gettime(clock, &before);
    EXPECT_EQ(ask(clock, &told), 0);
    ::clock_gettime(clock, &after);
    const auto ns = [](const timespec& time) { return time.tv_sec * 1'000'000'000 + time.tv_nsec; };
    EXPECT_LE(ns(before), ns(told));
    EXPECT_LE(ns(told), ns(after));
  }
}

TEST(Vdso, FunctionsOfTheOldOneAreThoseOfTheNewOne) {
  const std::string ours(kernel::own_vdso());
  ASSERT_FALSE(ours.empty());
  const std::string redirected = redirect_vdso(ours, ours, own_address());
  EXPECT_NE(redirected, ours);
  EXPECT_EQ(redirected.size(), ours.size());
  expect_time(Old(redirected));
}

// The new one has no functions at all.
TEST(Vdso, FunctionsThatAreGoneAreSystemCalls) {
  const Old old(redirect_vdso(std::string(kernel::own_vdso()), {}, 0));
  expect_time(old);
  auto* get = old.function<long(unsigned*, unsigned*, void*)>("__vdso_getcpu");
  ASSERT_NE(get, nullptr);
  unsigned processor = ~0u;
  EXPECT_EQ(get(&processor, nullptr, nullptr), 0);
  EXPECT_NE(processor, ~0u);
}

TEST(Vdso, WhatIsNoVdsoStaysAsItIs) {
  const std::string zeros(8192, '\0');
  EXPECT_EQ(redirect_vdso(zeros, kernel::own_vdso(), own_address()), zeros);
  EXPECT_EQ(redirect_vdso("", kernel::own_vdso(), own_address()), "");
}

TEST(Vdso, ADamagedOneHarmsNobody) {
  std::mt19937 random(1);
  const std::string ours(kernel::own_vdso());
  for (int round = 0; round < 2000; ++round) {
    std::string damaged = ours.substr(0, round % 3 == 0 ? random() % ours.size() : ours.size());
    for (int i = 0; i < 20 && !damaged.empty(); ++i)
      damaged[random() % damaged.size()] = static_cast<char>(random());
    // Headers are what is read.
    for (int i = 0; i < 4 && damaged.size() > 64; ++i) damaged[random() % 64] = static_cast<char>(random());
    EXPECT_EQ(redirect_vdso(damaged, ours, own_address()).size(), damaged.size());
    (void)redirect_vdso(ours, damaged, own_address());
  }
}

}  // namespace
}  // namespace stasis::restore
