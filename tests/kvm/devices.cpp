#include "devices.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>

#include "layout.h"

Devices::Devices(Machine& machine, const Options& options) : machine_(machine), options_(options) {
  kicks_[0] = machine.make_kick(layout::kKickPort, true, 4, nullptr);
  kicks_[1] = machine.make_kick(layout::kKickMatchPort, true, 4, &layout::kKickMatch);
  kicks_[2] = machine.make_kick(layout::kKickMemory, false, 4, nullptr);
  interrupt_ = options.chip == Chip::kNone ? -1 : machine.make_interrupt();
  machine.coalesce(layout::kCoalesced, layout::kCoalescedSize);
  if (!options.input.empty()) {
    input_ = open(options.input.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (input_ < 0) bad("no input " + options.input);
  }
}

bool Devices::handle(const Machine::Vcpu& vcpu) {
  kvm_run& run = *vcpu.run;
  std::lock_guard lock(mutex_);
  // What is in the ring came before this.
  if (kvm_coalesced_mmio_ring* ring = machine_.ring(vcpu)) drain(ring);
  if (options_.sync_registers) {
    uint64_t rip = run.s.regs.regs.rip;
    // Cleared to see that it is filled in next time as well.
    run.s.regs.regs.rip = 0;
    if (rip == 0) bad("KVM_RUN does not show the registers");
  }
  if (run.exit_reason == KVM_EXIT_X86_RDMSR || run.exit_reason == KVM_EXIT_X86_WRMSR) {
    bool write = run.exit_reason == KVM_EXIT_X86_WRMSR;
    if (run.msr.index != (write ? layout::kMsrWrite : layout::kMsrRead))
      bad("another MSR was left to the monitor");
    run.msr.error = 0;
    if (write) {
      check(msrs_.written, vcpu.number, run.msr.data, "what is written to an MSR");
    } else {
      run.msr.data = next(msrs_, vcpu.number);
    }
    return true;
  }
  if (run.exit_reason == KVM_EXIT_IO) {
    auto* data = reinterpret_cast<uint8_t*>(&run) + run.io.data_offset;
    for (uint32_t i = 0; i < run.io.count; ++i) {
      port(vcpu, run.io.direction == KVM_EXIT_IO_OUT, run.io.port, run.io.size, data + i * run.io.size);
    }
    return true;
  }
  if (run.exit_reason == KVM_EXIT_MMIO) {
    memory(run.mmio.is_write != 0, run.mmio.phys_addr, run.mmio.len, run.mmio.data);
    return true;
  }
  return false;
}

std::unique_lock<std::mutex> Devices::halt(const Machine::Vcpu& vcpu) {
  std::unique_lock lock(mutex_);
  if (kvm_coalesced_mmio_ring* ring = machine_.ring(vcpu)) drain(ring);
  return lock;
}

uint64_t Devices::next(Sequences& sequences, unsigned processor) {
  uint64_t value = sequences.read[processor]++;
  // To see that the guests notice: one number is left out.
  if (options_.break_sequence && value == 5000) value = sequences.read[processor]++;
  return value;
}

void Devices::check(std::array<uint64_t, kProcessors>& sequence, unsigned processor, uint64_t value,
                    const char* what) {
  if (value != sequence[processor]) {
    bad(std::string(what) + " of processor " + std::to_string(processor) + " is " + std::to_string(value) +
        " instead of " + std::to_string(sequence[processor]));
  }
  ++sequence[processor];
}

void Devices::port(const Machine::Vcpu& vcpu, bool write, uint16_t number, uint32_t size, uint8_t* data) {
  uint64_t value = 0;
  memcpy(&value, data, write ? size : 0);
  if (number == layout::kConsole) {
    if (write) {
      console(vcpu.number, char(value));
    } else if (input()) {
      value = uint8_t(typed_.front());
      typed_.pop_front();
    }
  } else if (number == layout::kConsoleStatus) {
    value = 0x60 | (input() ? 1U : 0U);
  } else if (number >= layout::kPortRead && number < layout::kPortRead + layout::kPortStride * kProcessors) {
    unsigned processor = (number - layout::kPortRead) / layout::kPortStride;
    if (processor != vcpu.number) bad("a processor uses the port of another");
    if (write) {
      check(ports_.written, processor, value, "what is written to the port");
    } else {
      value = next(ports_, processor);
    }
  } else if (number == layout::kKickTotal && write) {
    take_kicks();
    if (uint32_t(kicked_) != value) {
      bad("the guest has kicked " + std::to_string(value) + " times, and " + std::to_string(kicked_) +
          " were counted");
    }
  } else if (number == layout::kInterruptTotal && write) {
    acknowledged_ = value;
    if (uint32_t(raised_) != value) {
      bad(std::to_string(raised_) + " interrupts were raised, and " + std::to_string(value) + " have come");
    }
  } else if (number == layout::kWasDirtied && write) {
    if (!machine_.was_dirtied(value))
      bad("page " + std::to_string(value) + " was written and is not in the dirty log");
  } else if (number == layout::kMoveWindow && write) {
    machine_.move_window(value);
  } else if (number == layout::kKickPort || number == layout::kKickMatchPort) {
    bad("a kick came as an exit");
  } else {
    bad("port " + std::to_string(number));
  }
  if (!write) memcpy(data, &value, size);
}

void Devices::memory(bool write, uint64_t address, uint32_t size, uint8_t* data) {
  if (address >= layout::kCoalesced && address < layout::kCoalesced + layout::kCoalescedSize && write) {
    coalesced(address, size, data);  // the ring was full
    return;
  }
  if (write && address >= layout::kRom && address < layout::kRom + 8 * kProcessors) {
    uint64_t value = 0;
    memcpy(&value, data, size);
    check(rom_.written, unsigned(address - layout::kRom) / 8, value, "what is written to the ROM");
    return;
  }
  uint64_t processor = (address - layout::kMemoryRead) / layout::kMemoryStride;
  if (address < layout::kMemoryRead || processor >= kProcessors) {
    char text[60];
    snprintf(text, sizeof text, "a %s at %#llx", write ? "write" : "read",
             static_cast<unsigned long long>(address));
    bad(text);
  }
  uint64_t mask = size == 8 ? ~uint64_t{0} : (uint64_t{1} << 8 * size) - 1, value = 0;
  if (write) {
    memcpy(&value, data, size);
    uint64_t wanted = memory_.written[processor];
    check(memory_.written, unsigned(processor), (wanted & ~mask) | value, "what is written to memory");
  } else {
    value = next(memory_, unsigned(processor));
    memcpy(data, &value, size);
  }
}

void Devices::coalesced(uint64_t address, uint32_t size, const uint8_t* data) {
  uint64_t processor = (address - layout::kCoalesced) / 8;
  if (processor >= kProcessors || size != 4) bad("a strange write among the coalesced ones");
  uint32_t value;
  memcpy(&value, data, 4);
  check(coalesced_, unsigned(processor), value, "a coalesced write");
}

// KVM writes at `last` under a lock of its own, and this reads at `first` under that of the devices.
void Devices::drain(kvm_coalesced_mmio_ring* ring) {
  constexpr uint32_t kCapacity = (4096 - sizeof(kvm_coalesced_mmio_ring)) / sizeof(kvm_coalesced_mmio);
  while (ring->first != __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE)) {
    const kvm_coalesced_mmio& write = ring->coalesced_mmio[ring->first];
    coalesced(write.phys_addr, write.len, write.data);
    __atomic_store_n(&ring->first, (ring->first + 1) % kCapacity, __ATOMIC_RELEASE);
  }
}

void Devices::console(unsigned processor, char character) {
  std::string& line = lines_[processor];
  if (character != '\n') {
    line += character;
    return;
  }
  std::string whole;
  whole.swap(line);
  if (whole.starts_with("BAD ")) bad(whole.substr(4));
  if (whole.starts_with("SKIP ")) skip(whole.substr(5));
  say(whole);
}

// Whether a byte was typed.
bool Devices::input() {
  pollfd ready = {input_, POLLIN, 0};
  char byte;
  if (poll(&ready, 1, 0) > 0 && read(input_, &byte, 1) == 1) typed_.push_back(byte);
  return !typed_.empty();
}

void Devices::take_kicks() {
  for (int event : kicks_) {
    uint64_t count;
    if (read(event, &count, sizeof count) == ssize_t(sizeof count)) kicked_ += count;
  }
}

void Devices::count_kicks() {
  time_t said = 0;  // tenths of a second
  for (;;) {
    std::array<pollfd, 3> ready;
    for (size_t i = 0; i < ready.size(); ++i) ready[i] = {kicks_[i], POLLIN, 0};
    if (poll(ready.data(), ready.size(), -1) <= 0) continue;
    std::lock_guard lock(mutex_);
    take_kicks();
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (now.tv_sec * 10 + now.tv_nsec / 100000000 == said) continue;
    said = now.tv_sec * 10 + now.tv_nsec / 100000000;
    say("KICKS " + std::to_string(kicked_) + " interrupts " + std::to_string(raised_));
  }
}

void Devices::raise_interrupts() {
  if (interrupt_ < 0) return;
  for (;;) {
    usleep(5000);
    std::lock_guard lock(mutex_);
    if (acknowledged_ != raised_) continue;
    // Counted before: the guest may be faster than this thread.
    ++raised_;
    uint64_t one = 1;
    if (write(interrupt_, &one, sizeof one) != ssize_t(sizeof one)) bad("the eventfd of the interrupt");
  }
}
