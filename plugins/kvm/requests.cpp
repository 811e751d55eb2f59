#include "requests.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include <array>

#include "kvm_api.h"

namespace stasis::kvm {
namespace {

// Those that a refusal or a failed restart may name.
constexpr std::pair<uint32_t, const char*> kNames[] = {
    {KVM_CREATE_VM, "KVM_CREATE_VM"},
    {KVM_CREATE_VCPU, "KVM_CREATE_VCPU"},
    {KVM_CREATE_IRQCHIP, "KVM_CREATE_IRQCHIP"},
    {KVM_CREATE_PIT2, "KVM_CREATE_PIT2"},
    {KVM_ENABLE_CAP, "KVM_ENABLE_CAP"},
    {KVM_SET_TSS_ADDR, "KVM_SET_TSS_ADDR"},
    {KVM_SET_IDENTITY_MAP_ADDR, "KVM_SET_IDENTITY_MAP_ADDR"},
    {KVM_SET_USER_MEMORY_REGION, "KVM_SET_USER_MEMORY_REGION"},
    {KVM_SET_GSI_ROUTING, "KVM_SET_GSI_ROUTING"},
    {KVM_IRQFD, "KVM_IRQFD"},
    {KVM_IOEVENTFD, "KVM_IOEVENTFD"},
    {KVM_X86_SET_MSR_FILTER, "KVM_X86_SET_MSR_FILTER"},
    {KVM_X86_SETUP_MCE, "KVM_X86_SETUP_MCE"},
    {KVM_SET_CPUID2, "KVM_SET_CPUID2"},
    {KVM_SET_TSC_KHZ, "KVM_SET_TSC_KHZ"},
    {KVM_GET_REGS, "KVM_GET_REGS"},
    {KVM_SET_REGS, "KVM_SET_REGS"},
    {KVM_GET_SREGS, "KVM_GET_SREGS"},
    {KVM_SET_SREGS, "KVM_SET_SREGS"},
    {KVM_SET_SREGS2, "KVM_SET_SREGS2"},
    {KVM_SET_XCRS, "KVM_SET_XCRS"},
    {KVM_SET_XSAVE, "KVM_SET_XSAVE"},
    {KVM_SET_LAPIC, "KVM_SET_LAPIC"},
    {KVM_SET_MSRS, "KVM_SET_MSRS"},
    {KVM_SET_MP_STATE, "KVM_SET_MP_STATE"},
    {KVM_GET_VCPU_EVENTS, "KVM_GET_VCPU_EVENTS"},
    {KVM_SET_VCPU_EVENTS, "KVM_SET_VCPU_EVENTS"},
    {KVM_GET_DEBUGREGS, "KVM_GET_DEBUGREGS"},
    {KVM_SET_DEBUGREGS, "KVM_SET_DEBUGREGS"},
    {KVM_SET_NESTED_STATE, "KVM_SET_NESTED_STATE"},
    {KVM_SET_IRQCHIP, "KVM_SET_IRQCHIP"},
    {KVM_SET_PIT2, "KVM_SET_PIT2"},
    {KVM_SET_CLOCK, "KVM_SET_CLOCK"},
    {KVM_HYPERV_EVENTFD, "KVM_HYPERV_EVENTFD"},
    {KVM_XEN_HVM_CONFIG, "KVM_XEN_HVM_CONFIG"},
    {KVM_XEN_HVM_SET_ATTR, "KVM_XEN_HVM_SET_ATTR"},
    {KVM_XEN_VCPU_SET_ATTR, "KVM_XEN_VCPU_SET_ATTR"},
    {KVM_MEMORY_ENCRYPT_OP, "KVM_MEMORY_ENCRYPT_OP"},
    {KVM_RESET_DIRTY_RINGS, "KVM_RESET_DIRTY_RINGS"},
    {KVM_SET_DEVICE_ATTR, "KVM_SET_DEVICE_ATTR"},
};

}  // namespace

std::string request_name(uint32_t request) {
  for (const auto& [number, name] : kNames) {
    if (number == request) return name;
  }
  return fmt::format("KVM request {:#x}", request);
}

Error request_failed(std::string step, const Process& monitor, int number, uint32_t request, int64_t result,
                     std::string hint) {
  return errno_error(
      std::move(step),
      fmt::format("{} (descriptor {} of task {})", request_name(request), number, monitor.pid()),
      static_cast<int>(-result), std::move(hint));
}

size_t Requests::add(int number, uint32_t request, uint64_t argument) {
  calls_.push_back({SYS_ioctl, {static_cast<uint64_t>(number), request, argument}, 0});
  data_.emplace_back(RemotePtr{0}, 0);
  return calls_.size() - 1;
}

Requests::~Requests() {
  for (const auto& [place, size] : mapped_)
    (void)monitor_.call(SYS_munmap, std::array<uint64_t, 2>{place.value, size}).ok();
}

Result<size_t> Requests::add(int number, uint32_t request, const std::string& data) {
  constexpr size_t kLarge = 32 << 10;  // routes of a thousand interrupts
  RemotePtr place;
  if (data.size() <= kLarge) {
    STASIS_TRY(place, monitor_.put(bytes_of(data)));
  } else {
    constexpr uint64_t kProtection = PROT_READ | PROT_WRITE, kFlags = MAP_PRIVATE | MAP_ANONYMOUS;
    STASIS_TRY(int64_t mapped, monitor_.call(SYS_mmap, std::array<uint64_t, 6>{0, data.size(), kProtection,
                                                                               kFlags, ~uint64_t{0}, 0}));
    if (mapped < 0) return request_failed("make room", monitor_, number, request, mapped);
    place = RemotePtr{static_cast<uint64_t>(mapped)};
    mapped_.emplace_back(place, data.size());
    STASIS_CHECK(monitor_.write(place, bytes_of(data)));
  }
  const size_t index = add(number, request, place.value);
  data_.back() = {place, data.size()};
  return index;
}

Result<void> Requests::run() { return monitor_.run(calls_); }

Result<std::string> Requests::output(size_t index) const {
  std::string data(data_[index].second, '\0');
  STASIS_CHECK(monitor_.read(data_[index].first, std::as_writable_bytes(std::span(data))));
  return data;
}

Result<int64_t> Requests::make(Process& monitor, int number, uint32_t request, uint64_t argument) {
  Requests one(monitor);
  one.add(number, request, argument);
  STASIS_CHECK(one.run());
  if (one.result(0) < 0)
    return request_failed("make a virtual machine", monitor, number, request, one.result(0));
  return one.result(0);
}

}  // namespace stasis::kvm
