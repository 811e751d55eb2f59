#include "vcpu_state.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cstring>

#include "kvm_api.h"
#include "requests.h"
#include "stasis/fd.h"

namespace stasis::kvm {
namespace {

constexpr uint32_t kMostCpuid = 256;  // entries; KVM_MAX_CPUID_ENTRIES
constexpr uint32_t kTsc = 0x10, kDeadline = 0x6e0;

struct Kind {
  uint32_t get, set;
  uint32_t size;  // bytes; 0: as the request says
  // The kernel may not have it, or not for this machine: no local APIC, no XSAVE.
  bool optional = false;
  // Instead of one that the kernel does not have.
  bool replaces_last = false;
};

// In the order of a restart.
constexpr Kind kKinds[] = {
    // First: it says which of the rest there is.
    {KVM_GET_CPUID2, KVM_SET_CPUID2, sizeof(kvm_cpuid2) + kMostCpuid * sizeof(kvm_cpuid_entry2)},
    // Has the mode of the local APIC, without which its registers have no meaning, and the control registers
    // and EFER, which the registers below are checked against.
    {KVM_GET_SREGS2, KVM_SET_SREGS2, 0, true},
    {KVM_GET_SREGS, KVM_SET_SREGS, 0, false, true},
    // What is enabled, before what is in it.
    {KVM_GET_XCRS, KVM_SET_XCRS, 0, true},
    {KVM_GET_XSAVE2, KVM_SET_XSAVE, 0, true},
    {KVM_GET_XSAVE, KVM_SET_XSAVE, 0, true, true},
    {KVM_GET_FPU, KVM_SET_FPU, 0, true, true},
    {KVM_GET_REGS, KVM_SET_REGS, 0},
    // Before the MSRs: a deadline of the TSC counts only in a timer that is in that mode.
    {KVM_GET_LAPIC, KVM_SET_LAPIC, 0, true},
};
// MSRs come here: the deadline after the time to which it refers.
constexpr Kind kLastKinds[] = {
    // After the local APIC, which it is checked against.
    {KVM_GET_MP_STATE, KVM_SET_MP_STATE, 0},
    {KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, 0},
    // Last: setting registers throws away what is pending.
    {KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, 0},
};

size_t size_of(const Kind& kind) { return kind.size != 0 ? kind.size : _IOC_SIZE(kind.get); }

// All that this host's KVM names, and those that it has without naming them.
Result<std::vector<uint32_t>> list_msrs(uint32_t banks) {
  STASIS_TRY(Fd kvm, open_file("/dev/kvm", O_RDWR));
  constexpr uint32_t kMost = 4096;
  std::vector<uint32_t> list(1 + kMost);  // struct kvm_msr_list
  list[0] = kMost;
  if (ioctl(kvm.get(), KVM_GET_MSR_INDEX_LIST, list.data()) < 0) return errno_error("list MSRs", "/dev/kvm");
  std::vector<uint32_t> all(list.begin() + 1, list.begin() + 1 + list[0]);
  auto add = [&](uint32_t first, uint32_t last) {
    for (uint32_t index = first; index <= last; ++index) all.push_back(index);
  };
  add(0x200, 0x20f);  // MTRRs, variable
  add(0x250, 0x250);  // and fixed
  add(0x258, 0x259);
  add(0x268, 0x26f);
  add(0x2ff, 0x2ff);
  add(0x17a, 0x17b);  // machine checks
  if (banks > 0) add(0x400, 0x400 + 4 * banks - 1);
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  std::erase(all, kTsc);
  std::erase(all, kDeadline);
  all.push_back(kTsc);
  all.push_back(kDeadline);
  return all;
}

std::string one_msr(uint32_t index, uint64_t value = 0) {
  std::string msrs(sizeof(kvm_msrs), '\0');
  msrs[0] = 1;
  const kvm_msr_entry entry = {.index = index, .reserved = 0, .data = value};
  return msrs.append(reinterpret_cast<const char*>(&entry), sizeof entry);
}

kvm_msr_entry entry_of(const std::string& msr) {
  kvm_msr_entry entry;
  std::memcpy(&entry, msr.data() + sizeof(kvm_msrs), sizeof entry);
  return entry;
}

// Each by itself: the kernel stops at the first that it does not have.
Result<void> save_msrs(Process& monitor, uint32_t banks, schema::Vcpu& vcpu) {
  STASIS_TRY(auto indices, list_msrs(banks));
  Requests requests(monitor);
  for (uint32_t index : indices) {
    STASIS_TRY([[maybe_unused]] size_t added, requests.add(vcpu.number(), KVM_GET_MSRS, one_msr(index)));
  }
  STASIS_CHECK(requests.run());
  for (size_t i = 0; i < requests.size(); ++i) {
    if (requests.result(i) != 1) continue;
    STASIS_TRY(std::string got, requests.output(i));
    vcpu.mutable_msrs()->append(got, sizeof(kvm_msrs), sizeof(kvm_msr_entry));
  }
  return {};
}

// One that cannot be written is right when it has its value already.
Result<void> restore_msrs(Process& monitor, const schema::Vcpu& vcpu) {
  std::vector<kvm_msr_entry> entries(vcpu.msrs().size() / sizeof(kvm_msr_entry));
  if (!entries.empty()) std::memcpy(entries.data(), vcpu.msrs().data(), entries.size() * sizeof entries[0]);
  Requests setting(monitor);
  for (const auto& entry : entries) {
    STASIS_TRY([[maybe_unused]] size_t added,
               setting.add(vcpu.number(), KVM_SET_MSRS, one_msr(entry.index, entry.data)));
  }
  STASIS_CHECK(setting.run());
  std::vector<size_t> failed;
  for (size_t i = 0; i < entries.size(); ++i) {
    if (setting.result(i) != 1) failed.push_back(i);
  }
  Requests looking(monitor);
  for (size_t i : failed) {
    STASIS_TRY([[maybe_unused]] size_t added,
               looking.add(vcpu.number(), KVM_GET_MSRS, one_msr(entries[i].index)));
  }
  if (!failed.empty()) STASIS_CHECK(looking.run());
  for (size_t i = 0; i < failed.size(); ++i) {
    STASIS_TRY(std::string got, looking.output(i));
    const auto& wanted = entries[failed[i]];
    if (looking.result(i) == 1 && entry_of(got).data == wanted.data) continue;
    if (looking.result(i) != 1 && wanted.data == 0) continue;
    return Error{"make a virtual machine", fmt::format("vCPU {} of task {}", vcpu.id(), monitor.pid()),
                 fmt::format("this host's KVM does not take MSR {:#x} with the value {:#x}", wanted.index,
                             wanted.data),
                 "restart it on a host with the same processor and kernel", ErrorCode::kUnsupported};
  }
  return {};
}

Result<void> save_nested(Process& monitor, schema::Vcpu& vcpu) {
  STASIS_TRY(Fd kvm, open_file("/dev/kvm", O_RDWR));
  const int size = ioctl(kvm.get(), KVM_CHECK_EXTENSION, KVM_CAP_NESTED_STATE);
  if (size <= 0) return {};
  std::string data(static_cast<size_t>(size), '\0');
  reinterpret_cast<kvm_nested_state*>(data.data())->size = static_cast<uint32_t>(size);
  Requests requests(monitor);
  STASIS_TRY(size_t index, requests.add(vcpu.number(), KVM_GET_NESTED_STATE, data));
  STASIS_CHECK(requests.run());
  if (requests.result(index) < 0) return {};  // this guest has none
  STASIS_TRY(data, requests.output(index));
  data.resize(std::min<size_t>(data.size(), reinterpret_cast<const kvm_nested_state*>(data.data())->size));
  auto* state = vcpu.add_states();
  state->set_request(KVM_SET_NESTED_STATE);
  state->set_data(std::move(data));
  return {};
}

// Not inlined: the compiler would take the string for one that nobody has filled.
[[gnu::noinline]] uint32_t first_number(const std::string& data) {
  uint32_t number = 0;
  if (data.size() >= sizeof number) std::memcpy(&number, data.data(), sizeof number);
  return number;
}

template <size_t n>
Result<void> save_kinds(Process& monitor, const Kind (&kinds)[n], const std::vector<size_t>& sizes,
                        schema::Vcpu& vcpu) {
  Requests requests(monitor);
  for (size_t i = 0; i < n; ++i) {
    std::string room(sizes.empty() ? size_of(kinds[i]) : std::max(sizes[i], size_of(kinds[i])), '\0');
    if (kinds[i].get == KVM_GET_CPUID2) std::memcpy(room.data(), &kMostCpuid, sizeof kMostCpuid);
    STASIS_TRY([[maybe_unused]] size_t added, requests.add(vcpu.number(), kinds[i].get, room));
  }
  STASIS_CHECK(requests.run());
  bool have_last = false;
  for (size_t i = 0; i < n; ++i) {
    if (kinds[i].replaces_last && have_last) continue;
    have_last = requests.result(i) >= 0;
    if (!have_last) {
      if (kinds[i].optional) continue;
      return request_failed("save", monitor, vcpu.number(), kinds[i].get, requests.result(i));
    }
    STASIS_TRY(std::string data, requests.output(i));
    if (kinds[i].get == KVM_GET_CPUID2) {
      data.resize(sizeof(kvm_cpuid2) + std::min(first_number(data), kMostCpuid) * sizeof(kvm_cpuid_entry2));
    }
    auto* state = vcpu.add_states();
    state->set_request(kinds[i].set);
    state->set_data(std::move(data));
  }
  return {};
}

// As the kernel says; KVM_GET_XSAVE2 writes as much as there is.
Result<size_t> size_of_xsave() {
  STASIS_TRY(Fd kvm, open_file("/dev/kvm", O_RDWR));
  const int size = ioctl(kvm.get(), KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
  return static_cast<size_t>(std::max(size, 0));
}

}  // namespace

Result<void> save_vcpu(Process& monitor, uint32_t banks, schema::Vcpu& vcpu) {
  // Asking for it may change what the others tell: an INIT that is pending is taken.
  Requests first(monitor);
  STASIS_TRY([[maybe_unused]] size_t asked,
             first.add(vcpu.number(), KVM_GET_MP_STATE, std::string(sizeof(kvm_mp_state), '\0')));
  const size_t khz = first.add(vcpu.number(), KVM_GET_TSC_KHZ, uint64_t{0});
  STASIS_CHECK(first.run());
  if (first.result(khz) > 0) vcpu.set_tsc_khz(static_cast<uint32_t>(first.result(khz)));

  STASIS_TRY(size_t xsave, size_of_xsave());
  std::vector<size_t> sizes(std::size(kKinds));
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (kKinds[i].get == KVM_GET_XSAVE2) sizes[i] = xsave;
  }
  STASIS_CHECK(save_kinds(monitor, kKinds, sizes, vcpu));
  STASIS_CHECK(save_msrs(monitor, banks, vcpu));
  STASIS_CHECK(save_nested(monitor, vcpu));
  return save_kinds(monitor, kLastKinds, {}, vcpu);
}

Result<void> restore_vcpu(Process& monitor, const schema::Vcpu& vcpu) {
  auto is_last = [](uint32_t request) {
    return request == KVM_SET_NESTED_STATE ||
           std::any_of(std::begin(kLastKinds), std::end(kLastKinds),
                       [&](const Kind& kind) { return kind.set == request; });
  };
  for (bool last : {false, true}) {
    if (last) STASIS_CHECK(restore_msrs(monitor, vcpu));
    Requests requests(monitor);
    std::vector<uint32_t> made;
    for (const auto& state : vcpu.states()) {
      if (is_last(state.request()) != last) continue;
      STASIS_TRY([[maybe_unused]] size_t added, requests.add(vcpu.number(), state.request(), state.data()));
      made.push_back(state.request());
    }
    STASIS_CHECK(requests.run());
    for (size_t i = 0; i < made.size(); ++i) {
      if (requests.result(i) < 0)
        return request_failed("make a virtual machine", monitor, vcpu.number(), made[i], requests.result(i),
                              "this host's KVM or processor differs from the one of the checkpoint");
    }
  }
  return {};
}

}  // namespace stasis::kvm
