// The devices of the machine, which check what the guest does with them. One lock for all, as monitors have
// it.
#pragma once
#include <array>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>

#include "machine.h"

class Devices {
 public:
  Devices(Machine& machine, const Options& options);

  // What KVM_RUN has returned with. False if it is none of theirs.
  bool handle(const Machine::Vcpu& vcpu);
  // While this is held, nothing is done with the machine. What is left in the ring of coalesced writes is
  // taken.
  std::unique_lock<std::mutex> halt(const Machine::Vcpu& vcpu);
  // Without end: what counts the kicks, and what raises interrupts.
  void count_kicks();
  void raise_interrupts();

 private:
  static constexpr unsigned kProcessors = 8;
  struct Sequences {
    std::array<uint64_t, kProcessors> read{}, written{};
  };

  void port(const Machine::Vcpu& vcpu, bool write, uint16_t number, uint32_t size, uint8_t* data);
  void memory(bool write, uint64_t address, uint32_t size, uint8_t* data);
  void console(unsigned processor, char character);
  void drain(kvm_coalesced_mmio_ring* ring);
  void coalesced(uint64_t address, uint32_t size, const uint8_t* data);
  uint64_t next(Sequences& sequences, unsigned processor);
  static void check(std::array<uint64_t, kProcessors>& sequence, unsigned processor, uint64_t value,
                    const char* what);
  void take_kicks();
  bool input();

  Machine& machine_;
  const Options& options_;
  std::mutex mutex_;
  Sequences ports_, memory_, msrs_, rom_;
  std::array<uint64_t, kProcessors> coalesced_{};
  std::array<std::string, kProcessors> lines_;
  std::array<int, 3> kicks_;
  int interrupt_;
  uint64_t kicked_ = 0, raised_ = 0;
  uint64_t acknowledged_ = ~uint64_t{0};  // the guest is not ready for the first one
  int input_ = 0;
  std::deque<char> typed_;
};
