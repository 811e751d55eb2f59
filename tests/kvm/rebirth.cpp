// Makes the machine anew from its state: what a migration does, or a checkpoint and restart, within one
// process. It shows that what KVM tells of a machine is enough to go on with, in this order, and that the
// guests hold then. All vCPUs stand still, and each has come back from KVM_RUN with EINTR: nothing of an
// access to a device is pending.
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "machine.h"

namespace {

template <class State>
void call(int fd, unsigned long request, State* state, const char* name) {
  if (ioctl(fd, request, state) < 0) bad(std::string(name) + ": " + strerror(errno));
}
#define CALL(fd, request, state) call(fd, request, state, #request)

constexpr uint32_t kTscDeadline = 0x6e0, kTsc = 0x10;

struct Processor {
  kvm_regs general;
  kvm_sregs2 special;
  kvm_xcrs xcrs;
  kvm_xsave xsave;
  kvm_debugregs debug;
  kvm_vcpu_events events;
  kvm_mp_state running;
  kvm_lapic_state lapic;
  std::vector<kvm_msr_entry> msrs;
  // Without a local APIC in the kernel CR8 is the monitor's: KVM_RUN takes it from here.
  uint64_t cr8;
};

// As many as this KVM has, without those that it lists and does not tell.
std::vector<kvm_msr_entry> read_msrs(int kvm, int vcpu) {
  WithArray<kvm_msr_list, uint32_t> list(1024);
  list->nmsrs = 1024;
  CALL(kvm, KVM_GET_MSR_INDEX_LIST, list.head());
  std::vector<uint32_t> numbers(list.array(), list.array() + list->nmsrs);
  for (uint32_t number = 0x200; number < 0x210; ++number)
    numbers.push_back(number);  // MTRRs, which are not listed
  numbers.push_back(0x2ff);
  std::vector<kvm_msr_entry> found;
  for (uint32_t number : numbers) {
    WithArray<kvm_msrs, kvm_msr_entry> one(1);
    one->nmsrs = 1;
    one.array()->index = number;
    if (ioctl(vcpu, KVM_GET_MSRS, one.head()) == 1) found.push_back(*one.array());
  }
  return found;
}

void write_msr(int vcpu, const kvm_msr_entry& entry) {
  WithArray<kvm_msrs, kvm_msr_entry> one(1);
  one->nmsrs = 1;
  *one.array() = entry;
  // Some can only be read.
  [[maybe_unused]] int done = ioctl(vcpu, KVM_SET_MSRS, one.head());
}

}  // namespace

void Machine::bear_again(std::vector<Vcpu>& vcpus) {
  bool chip = options_.chip != Chip::kNone, whole = options_.chip == Chip::kWhole;
  // --- read
  // What was written to an irqfd may be on its way to the controllers still, in a work item of the kernel,
  // and would be lost: to give the irqfd up waits for it.
  for (kvm_irqfd interrupt : interrupts_) {
    interrupt.flags |= KVM_IRQFD_FLAG_DEASSIGN;
    CALL(vm_, KVM_IRQFD, &interrupt);
  }
  std::vector<Processor> processors(vcpus.size());
  for (size_t i = 0; i < vcpus.size(); ++i) {
    int fd = vcpus[i].fd;
    Processor& state = processors[i];
    // First: reading it takes an INIT or SIPI that is pending into account, which changes the registers.
    if (chip) CALL(fd, KVM_GET_MP_STATE, &state.running);
    CALL(fd, KVM_GET_REGS, &state.general);
    CALL(fd, KVM_GET_SREGS2, &state.special);
    CALL(fd, KVM_GET_XCRS, &state.xcrs);
    CALL(fd, KVM_GET_XSAVE, &state.xsave);
    CALL(fd, KVM_GET_DEBUGREGS, &state.debug);
    CALL(fd, KVM_GET_VCPU_EVENTS, &state.events);
    if (chip) CALL(fd, KVM_GET_LAPIC, &state.lapic);
    state.msrs = read_msrs(kvm_, fd);
    state.cr8 = vcpus[i].run->cr8;
  }
  kvm_clock_data clock = {};
  CALL(vm_, KVM_GET_CLOCK, &clock);
  kvm_irqchip chips[3] = {};
  kvm_pit_state2 pit = {};
  if (whole) {
    for (uint32_t i = 0; i < 3; ++i) {
      chips[i].chip_id = i;
      CALL(vm_, KVM_GET_IRQCHIP, &chips[i]);
    }
    CALL(vm_, KVM_GET_PIT2, &pit);
  }
  if (options_.dirty_log) was_dirtied(0);  // what it has is kept

  // --- end and begin
  auto length = size_t(ioctl(kvm_, KVM_GET_VCPU_MMAP_SIZE, 0));
  for (Vcpu& vcpu : vcpus) {
    munmap(vcpu.run, length);
    close(vcpu.fd);
  }
  close(vm_);
  make_vm();
  for (size_t i = 0; i < vcpus.size(); ++i) vcpus[i] = make_vcpu(unsigned(i));

  // --- write
  // The clock before the MSRs, one of which makes KVM tell the guest of it.
  clock.flags = 0;
  CALL(vm_, KVM_SET_CLOCK, &clock);
  if (whole) {
    for (kvm_irqchip& one : chips) CALL(vm_, KVM_SET_IRQCHIP, &one);
    CALL(vm_, KVM_SET_PIT2, &pit);
  }
  for (size_t i = 0; i < vcpus.size(); ++i) {
    int fd = vcpus[i].fd;
    Processor& state = processors[i];
    // The place and kind of the local APIC are among the special registers: before what it holds, and before
    // the deadline, which is dropped unless its timer is in that mode. And CR4 says whether there is XSAVE.
    CALL(fd, KVM_SET_SREGS2, &state.special);
    CALL(fd, KVM_SET_XCRS, &state.xcrs);
    CALL(fd, KVM_SET_XSAVE, &state.xsave);
    CALL(fd, KVM_SET_REGS, &state.general);
    if (chip) CALL(fd, KVM_SET_LAPIC, &state.lapic);
    for (const kvm_msr_entry& entry : state.msrs) {
      if (entry.index != kTscDeadline && entry.index != kTsc) write_msr(fd, entry);
    }
    for (uint32_t last : {kTsc, kTscDeadline}) {  // the deadline is a time of the TSC
      for (const kvm_msr_entry& entry : state.msrs) {
        if (entry.index == last) write_msr(fd, entry);
      }
    }
    CALL(fd, KVM_SET_DEBUGREGS, &state.debug);
    CALL(fd, KVM_SET_VCPU_EVENTS, &state.events);
    if (chip) CALL(fd, KVM_SET_MP_STATE, &state.running);
    vcpus[i].run->cr8 = state.cr8;
  }
  for (const kvm_ioeventfd& kick : kicks_) CALL(vm_, KVM_IOEVENTFD, &kick);
  for (const kvm_coalesced_mmio_zone& zone : zones_) CALL(vm_, KVM_REGISTER_COALESCED_MMIO, &zone);
  // Last: what was written to them in between raises an interrupt at once.
  for (const kvm_irqfd& interrupt : interrupts_) CALL(vm_, KVM_IRQFD, &interrupt);
}
