// Changes one thing of a running machine behind its guest's back, to see that the guest notices. Called by
// the thread of the vCPU, when KVM_RUN has returned for a signal: then nothing of an access to a device is
// pending.
#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>

#include "layout.h"
#include "machine.h"

namespace {

template <class State>
void change(int fd, unsigned long get, unsigned long set, void (*how)(State&)) {
  State state = {};
  if (ioctl(fd, get, &state) < 0) skip(std::string("cannot disturb: ") + strerror(errno));
  how(state);
  if (ioctl(fd, set, &state) < 0) skip(std::string("cannot disturb: ") + strerror(errno));
}

void change_msr(int fd, uint32_t number) {
  alignas(8) uint8_t buffer[sizeof(kvm_msrs) + sizeof(kvm_msr_entry)] = {};
  auto* msrs = reinterpret_cast<kvm_msrs*>(buffer);
  auto* entry = reinterpret_cast<kvm_msr_entry*>(msrs + 1);
  msrs->nmsrs = 1;
  entry->index = number;
  if (ioctl(fd, KVM_GET_MSRS, msrs) != 1) skip("cannot disturb: KVM_GET_MSRS");
  entry->data += 8;
  if (ioctl(fd, KVM_SET_MSRS, msrs) != 1) skip("cannot disturb: KVM_SET_MSRS");
}

}  // namespace

void Machine::disturb(const Vcpu& vcpu, const std::string& what) {
  if (what == "general") {
    change<kvm_regs>(vcpu.fd, KVM_GET_REGS, KVM_SET_REGS, [](kvm_regs& state) { state.r13 ^= 1; });
  } else if (what == "vector") {
    // ZMM9 and its lower parts: SSE state begins at byte 160
    change<kvm_xsave>(vcpu.fd, KVM_GET_XSAVE, KVM_SET_XSAVE,
                      [](kvm_xsave& state) { state.region[(160 + 9 * 16) / 4] ^= 1; });
  } else if (what == "debug") {
    change<kvm_debugregs>(vcpu.fd, KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS,
                          [](kvm_debugregs& state) { state.db[2] += 16; });
  } else if (what == "lapic") {
    change<kvm_lapic_state>(vcpu.fd, KVM_GET_LAPIC, KVM_SET_LAPIC,
                            [](kvm_lapic_state& state) { state.regs[0xd3] ^= 4; });
  } else if (what == "msr") {
    change_msr(vcpu.fd, 0xc0000082);  // LSTAR
  } else if (what == "timer") {
    change<kvm_lapic_state>(vcpu.fd, KVM_GET_LAPIC, KVM_SET_LAPIC,
                            [](kvm_lapic_state& state) { state.regs[0x322] ^= 2; });
  } else if (what == "pic") {
    change<kvm_irqchip>(vm_, KVM_GET_IRQCHIP, KVM_SET_IRQCHIP,
                        [](kvm_irqchip& state) { state.chip.pic.imr ^= 8; });
  } else if (what == "clock") {
    change<kvm_clock_data>(vm_, KVM_GET_CLOCK, KVM_SET_CLOCK, [](kvm_clock_data& state) {
      state.clock -= 500'000'000;
      state.flags = 0;
    });
  } else if (what == "memory") {
    memory_[layout::kSharedData + (7 << 20) + 123] ^= 1;
  } else {
    bad("no way to disturb " + what);
  }
}
