// What is known of each request of KVM on x86 (linux/kvm.h): the one table of both halves.
//
// What the kernel tells is read when a checkpoint is taken (vcpu_state.cpp). The others are remembered, and
// made again at a restart in the order in which they were made; those of Stage::kLast after the state of
// vCPUs and interrupt controllers is there, since they let interrupts in.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kvm_api.h"

namespace stasis::kvm {

enum class Effect : uint8_t {
  kNone,    // none that lasts, or one that the kernel tells
  kValue,   // the argument itself; the newest of a descriptor counts
  kData,    // `size` bytes at the argument; the newest of a descriptor with the same first `key` bytes counts
  kCreate,  // the same as kValue, but each counts: it returns a descriptor
  kDevice,  // KVM_CREATE_DEVICE
  kSlot,    // memory; by number, and gone when its size is 0
  kZone,    // coalesced accesses, until
  kNoZone,  //   this takes them away
  kEvent,   // KVM_IOEVENTFD
  kInterrupt,  // KVM_IRQFD
  kArray,      // `size` bytes, then elements of `key` bytes, whose number is in the first or second 32 bits
  kMask,       // KVM_SET_SIGNAL_MASK
  kFilter,     // KVM_X86_SET_MSR_FILTER
  kRun,
  kDirtyLog,
};

enum class Stage : uint8_t { kFirst, kLast };

struct Rule {
  uint32_t request;
  Effect effect = Effect::kNone;
  uint16_t size = 0;  // bytes; 0: as the request says
  uint16_t key = 0;   // bytes
  Stage stage = Stage::kFirst;
};

// What headers of 2022 do not have.
inline constexpr uint32_t kSetUserMemoryRegion2 = 0x40a0ae49;
inline constexpr uint32_t kPreFaultMemory = 0xc040aed5;

inline constexpr Rule kRules[] = {
    // Of /dev/kvm
    {KVM_GET_API_VERSION},
    {KVM_CHECK_EXTENSION},
    {KVM_GET_VCPU_MMAP_SIZE},
    {KVM_GET_SUPPORTED_CPUID},
    {KVM_GET_EMULATED_CPUID},
    {KVM_GET_SUPPORTED_HV_CPUID},
    {KVM_GET_MSR_INDEX_LIST},
    {KVM_GET_MSR_FEATURE_INDEX_LIST},
    {KVM_X86_GET_MCE_CAP_SUPPORTED},
    {KVM_CREATE_VM, Effect::kCreate},
    // Of a machine
    {KVM_CREATE_VCPU, Effect::kCreate},
    {KVM_CREATE_DEVICE, Effect::kDevice},
    {KVM_GET_STATS_FD, Effect::kCreate},
    {KVM_ENABLE_CAP, Effect::kData, 0, 4},
    {KVM_SET_TSS_ADDR, Effect::kValue},
    {KVM_SET_IDENTITY_MAP_ADDR, Effect::kData},
    {KVM_SET_BOOT_CPU_ID, Effect::kValue},
    {KVM_SET_NR_MMU_PAGES, Effect::kValue},
    {KVM_GET_NR_MMU_PAGES},
    {KVM_SET_USER_MEMORY_REGION, Effect::kSlot},
    {kSetUserMemoryRegion2, Effect::kSlot},
    {kPreFaultMemory},
    {KVM_GET_DIRTY_LOG, Effect::kDirtyLog},
    {KVM_CLEAR_DIRTY_LOG},
    {KVM_CREATE_IRQCHIP, Effect::kValue},
    {KVM_GET_IRQCHIP},
    {KVM_SET_IRQCHIP},
    {KVM_IRQ_LINE},
    {KVM_IRQ_LINE_STATUS},
    {KVM_SIGNAL_MSI},
    {KVM_CREATE_PIT, Effect::kValue},
    {KVM_CREATE_PIT2, Effect::kData},
    {KVM_GET_PIT},
    {KVM_SET_PIT},
    {KVM_GET_PIT2},
    {KVM_SET_PIT2},
    {KVM_REINJECT_CONTROL, Effect::kData, 32},
    {KVM_GET_CLOCK},
    {KVM_SET_CLOCK},
    {KVM_X86_SET_MSR_FILTER, Effect::kFilter},
    {KVM_SET_PMU_EVENT_FILTER, Effect::kArray, 32, 8},
    {KVM_GET_DEVICE_ATTR},
    {KVM_HAS_DEVICE_ATTR},
    {KVM_SET_GSI_ROUTING, Effect::kArray, 8, sizeof(kvm_irq_routing_entry), Stage::kLast},
    {KVM_REGISTER_COALESCED_MMIO, Effect::kZone, 0, 0, Stage::kLast},
    {KVM_UNREGISTER_COALESCED_MMIO, Effect::kNoZone},
    {KVM_IOEVENTFD, Effect::kEvent, 0, 0, Stage::kLast},
    {KVM_IRQFD, Effect::kInterrupt, 0, 0, Stage::kLast},
    // Of a vCPU
    {KVM_RUN, Effect::kRun},
    {KVM_GET_REGS},
    {KVM_SET_REGS},
    {KVM_GET_SREGS},
    {KVM_SET_SREGS},
    {KVM_GET_SREGS2},
    {KVM_SET_SREGS2},
    {KVM_GET_FPU},
    {KVM_SET_FPU},
    {KVM_GET_XSAVE},
    {KVM_GET_XSAVE2},
    {KVM_SET_XSAVE},
    {KVM_GET_XCRS},
    {KVM_SET_XCRS},
    {KVM_GET_MSRS},
    {KVM_SET_MSRS},
    {KVM_SET_CPUID},
    {KVM_SET_CPUID2},
    {KVM_GET_CPUID2},
    {KVM_GET_LAPIC},
    {KVM_SET_LAPIC},
    {KVM_GET_MP_STATE},
    {KVM_SET_MP_STATE},
    {KVM_GET_VCPU_EVENTS},
    {KVM_SET_VCPU_EVENTS},
    {KVM_GET_DEBUGREGS},
    {KVM_SET_DEBUGREGS},
    {KVM_GET_NESTED_STATE},
    {KVM_SET_NESTED_STATE},
    {KVM_TRANSLATE},
    {KVM_INTERRUPT},
    {KVM_NMI},
    {KVM_SMI},
    {KVM_X86_SET_MCE},
    {KVM_KVMCLOCK_CTRL},
    {KVM_GET_TSC_KHZ},
    {KVM_SET_TSC_KHZ, Effect::kValue},
    {KVM_X86_SETUP_MCE, Effect::kData},
    {KVM_SET_SIGNAL_MASK, Effect::kMask},
    {KVM_SET_GUEST_DEBUG, Effect::kData},
    {KVM_SET_VAPIC_ADDR, Effect::kData, 0, 0, Stage::kLast},
    {KVM_TPR_ACCESS_REPORTING, Effect::kData},
};

constexpr const Rule* find_rule(uint32_t request) {
  for (const Rule& rule : kRules) {
    if (rule.request == request) return &rule;
  }
  return nullptr;
}

// Whether the vCPU has asked for something that it gets only when it is run again.
constexpr bool is_access(uint32_t reason) {
  switch (reason) {
    case KVM_EXIT_UNKNOWN:
    case KVM_EXIT_EXCEPTION:
    case KVM_EXIT_DEBUG:
    case KVM_EXIT_HLT:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_SHUTDOWN:
    case KVM_EXIT_FAIL_ENTRY:
    case KVM_EXIT_INTR:
    case KVM_EXIT_SET_TPR:
    case KVM_EXIT_TPR_ACCESS:
    case KVM_EXIT_NMI:
    case KVM_EXIT_INTERNAL_ERROR:
    case KVM_EXIT_SYSTEM_EVENT:
    case KVM_EXIT_IOAPIC_EOI:
    case KVM_EXIT_X86_BUS_LOCK:
      return false;
    default:
      return true;
  }
}

}  // namespace stasis::kvm
