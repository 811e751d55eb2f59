#include "processor.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <array>
#include <cstring>
#include <map>
#include <optional>
#include <string_view>
#include <tuple>

#include "kvm_api.h"
#include "stasis/fd.h"
#include "stasis/parts.h"

namespace stasis::kvm {
namespace {

enum Register { kEax, kEbx, kEcx, kEdx };
constexpr std::array<std::string_view, 4> kRegisters = {"eax", "ebx", "ecx", "edx"};

uint32_t value_of(const kvm_cpuid_entry2& entry, Register which) {
  return std::array{entry.eax, entry.ebx, entry.ecx, entry.edx}[which];
}

// Words of CPUID of which each bit is a feature. `exempt`: what the monitor or the kernel decides, whatever
// the processor has: MONITOR, x2APIC, the deadline timer, OSXSAVE and the mark of a hypervisor; the numbers
// of threads.
struct Word {
  uint32_t function, index;
  Register which;
  uint32_t exempt = 0;
};
constexpr Word kWords[] = {
    {1, 0, kEcx, 1U << 3 | 1U << 21 | 1U << 24 | 1U << 27 | 1U << 31},
    {1, 0, kEdx, 1U << 28},
    {7, 0, kEbx},
    {7, 0, kEcx, 1U << 4},
    {7, 0, kEdx},
    {7, 1, kEax},
    {0xd, 0, kEax},
    {0xd, 0, kEdx},
    {0xd, 1, kEax},
    {0x80000001, 0, kEcx, 1U << 1},
    {0x80000001, 0, kEdx},
    {0x80000008, 0, kEbx},
};

// Those that differ between processors that are in use; the names of /proc/cpuinfo.
struct Name {
  uint32_t function;
  Register which;
  uint32_t bit;
  std::string_view name;
};
constexpr Name kNames[] = {
    {1, kEcx, 9, "ssse3"},
    {1, kEcx, 12, "fma"},
    {1, kEcx, 19, "sse4_1"},
    {1, kEcx, 20, "sse4_2"},
    {1, kEcx, 22, "movbe"},
    {1, kEcx, 23, "popcnt"},
    {1, kEcx, 25, "aes"},
    {1, kEcx, 26, "xsave"},
    {1, kEcx, 28, "avx"},
    {1, kEcx, 29, "f16c"},
    {1, kEcx, 30, "rdrand"},
    {1, kEcx, 5, "vmx"},
    {7, kEbx, 0, "fsgsbase"},
    {7, kEbx, 3, "bmi1"},
    {7, kEbx, 4, "hle"},
    {7, kEbx, 5, "avx2"},
    {7, kEbx, 7, "smep"},
    {7, kEbx, 8, "bmi2"},
    {7, kEbx, 9, "erms"},
    {7, kEbx, 10, "invpcid"},
    {7, kEbx, 11, "rtm"},
    {7, kEbx, 16, "avx512f"},
    {7, kEbx, 17, "avx512dq"},
    {7, kEbx, 18, "rdseed"},
    {7, kEbx, 19, "adx"},
    {7, kEbx, 20, "smap"},
    {7, kEbx, 23, "clflushopt"},
    {7, kEbx, 24, "clwb"},
    {7, kEbx, 28, "avx512cd"},
    {7, kEbx, 29, "sha_ni"},
    {7, kEbx, 30, "avx512bw"},
    {7, kEbx, 31, "avx512vl"},
    {7, kEcx, 1, "avx512vbmi"},
    {7, kEcx, 2, "umip"},
    {7, kEcx, 3, "pku"},
    {7, kEcx, 8, "gfni"},
    {7, kEcx, 9, "vaes"},
    {7, kEcx, 10, "vpclmulqdq"},
    {7, kEcx, 11, "avx512_vnni"},
    {7, kEcx, 16, "la57"},
    {7, kEcx, 22, "rdpid"},
    {7, kEdx, 26, "spec_ctrl"},
    {0x80000001, kEcx, 2, "svm"},
    {0x80000001, kEcx, 6, "sse4a"},
    {0x80000001, kEcx, 16, "fma4"},
    {0x80000001, kEdx, 26, "pdpe1gb"},
    {0x80000001, kEdx, 27, "rdtscp"},
};

std::string name_of(const Word& word, uint32_t bit) {
  for (const Name& name : kNames) {
    if (word.index == 0 && name.function == word.function && name.which == word.which && name.bit == bit)
      return std::string(name.name);
  }
  return fmt::format("CPUID {:#x}.{} {} bit {}", word.function, word.index, kRegisters[word.which], bit);
}

using Cpuid = std::map<std::pair<uint32_t, uint32_t>, kvm_cpuid_entry2>;

// Of a struct kvm_cpuid2.
Cpuid by_leaf(const std::string& data) {
  Cpuid all;
  kvm_cpuid_entry2 entry;
  for (size_t at = sizeof(kvm_cpuid2); at + sizeof entry <= data.size(); at += sizeof entry) {
    std::memcpy(&entry, data.data() + at, sizeof entry);
    all[{entry.function, entry.index}] = entry;
  }
  return all;
}

std::string list_missing(const Cpuid& guest, const Cpuid& here) {
  std::string missing;
  for (const Word& word : kWords) {
    auto told = guest.find({word.function, word.index});
    if (told == guest.end()) continue;
    auto found = here.find({word.function, word.index});
    const uint32_t have = found == here.end() ? 0 : value_of(found->second, word.which);
    const uint32_t lacks = value_of(told->second, word.which) & ~have & ~word.exempt;
    for (uint32_t bit = 0; bit < 32; ++bit) {
      if ((lacks >> bit & 1) != 0) missing += (missing.empty() ? "" : ", ") + name_of(word, bit);
    }
  }
  return missing;
}

// A struct kvm_cpuid2.
Result<std::string> read_cpuid(int fd, uint32_t request, const char* name) {
  constexpr uint32_t kMostEntries = 256;
  std::string data(sizeof(kvm_cpuid2) + kMostEntries * sizeof(kvm_cpuid_entry2), '\0');
  std::memcpy(data.data(), &kMostEntries, sizeof kMostEntries);
  if (ioctl(fd, request, data.data()) < 0) return errno_error("make a virtual machine", name);
  return data;
}

// What a vCPU sees that is given all that is supported: where guests execute CPUID without asking, that is
// more.
Result<std::string> give_to_trial(int kvm, std::string supported) {
  Fd machine(ioctl(kvm, KVM_CREATE_VM, 0));
  if (!machine) return errno_error("make a virtual machine", "KVM_CREATE_VM");
  Fd vcpu(ioctl(machine.get(), KVM_CREATE_VCPU, 0));
  if (!vcpu || ioctl(vcpu.get(), KVM_SET_CPUID2, supported.data()) < 0)
    return errno_error("make a virtual machine", "a vCPU on trial");
  return read_cpuid(vcpu.get(), KVM_GET_CPUID2, "KVM_GET_CPUID2");
}

}  // namespace

Result<Fd> open_kvm() {
  auto kvm = open_file("/dev/kvm", O_RDWR);
  if (kvm.ok()) return kvm;
  Error error = std::move(kvm).error().within("make a virtual machine");
  error.hint = error.code == ErrorCode::kDenied
                   ? "only the group of /dev/kvm may use it: `stasis check` tells more"
                   : "this host has no KVM";
  error.code = ErrorCode::kUnsupported;
  return error;
}

Result<void> check_features(const schema::Machine& machine) {
  STASIS_TRY(Fd kvm, open_kvm());
  STASIS_TRY(std::string supported,
             read_cpuid(kvm.get(), KVM_GET_SUPPORTED_CPUID, "KVM_GET_SUPPORTED_CPUID"));
  std::optional<Cpuid> given;
  for (const auto& vcpu : machine.vcpus()) {
    for (const auto& state : vcpu.states()) {
      if (state.request() != KVM_SET_CPUID2) continue;
      const Cpuid guest = by_leaf(state.data());
      std::string missing = list_missing(guest, by_leaf(supported));
      if (missing.empty()) continue;
      if (!given) {
        STASIS_TRY(std::string got, give_to_trial(kvm.get(), supported));
        given = by_leaf(got);
      }
      missing = list_missing(guest, *given);
      if (missing.empty()) continue;
      return Error{
          "make a virtual machine", fmt::format("vCPU {}", vcpu.id()),
          "its guest was told of features that this host does not have: " + missing,
          "restart it on a host with the same processor; a guest that is to move is given a processor "
          "model that all hosts have (QEMU: -cpu)",
          ErrorCode::kUnsupported};
    }
  }
  return {};
}

std::vector<plugin::Finding> check_host() {
  std::vector<plugin::Finding> all;
  if (plugin::find_part("kvm", "libstasis-kvm.so").empty()) {
    all.push_back({"KVM", false, "libstasis-kvm.so is missing, which programs that use KVM need to be saved",
                   "install it beside the command. Machines without KVM are saved all the same"});
    return all;
  }
  auto kvm = open_file("/dev/kvm", O_RDWR);
  if (!kvm.ok()) {
    const bool denied = kvm.error().code == ErrorCode::kDenied;
    all.push_back({"KVM", false, kvm.error().message(),
                   denied
                       ? "ask to be added to the group of /dev/kvm (usermod -aG kvm USER)"
                       : "load the module of the processor (kvm_intel, kvm_amd); in a virtual machine, allow "
                         "nested ones. Machines without KVM (QEMU: -accel tcg) are saved all the same"});
    return all;
  }
  const auto extension = [&](int number) { return ioctl(kvm->get(), KVM_CHECK_EXTENSION, number); };
  const int version = ioctl(kvm->get(), KVM_GET_API_VERSION, 0);
  const bool can_stop = extension(KVM_CAP_IMMEDIATE_EXIT) > 0;
  all.push_back({"KVM", version == 12 && can_stop, fmt::format("interface {}", version),
                 can_stop ? "" : "a kernel since 4.13 is needed, to let a vCPU complete what it is doing"});
  const std::tuple<int, const char*, const char*> wanted[] = {
      {KVM_CAP_TSC_CONTROL, "KVM: TSC scaling",
       "a restart of a machine needs a host whose TSC has the same frequency"},
      {KVM_CAP_NESTED_STATE, "KVM: nested guests", "machines in whose guests machines run cannot be saved"},
      {KVM_CAP_XSAVE2, "KVM: large register sets", "guests that use AMX cannot be saved"},
  };
  for (const auto& [number, name, without] : wanted) {
    const bool works = extension(number) > 0;
    all.push_back(
        {name, works, works ? "offered" : "this host's KVM does not offer it", works ? "" : without});
  }
  return all;
}

}  // namespace stasis::kvm
