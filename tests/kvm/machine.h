// A virtual machine: what is made of it once, and the calls that several threads make later.
#pragma once
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "kvm_header.h"

// How a vCPU's thread is told to leave KVM_RUN, and that it was by a signal: monitors do one or the other.
enum class Kick { kImmediateExit, kSignalMask };
enum class Chip { kNone, kSplit, kWhole };

struct Options {
  std::string guest;
  std::string guests;  // the directory where they are
  std::string input;   // a file that is read as the console's input; standard input without it
  unsigned processors = 1;
  unsigned memory_mib = 32;
  unsigned dirty_pages = 16;
  unsigned seconds = 0;  // end after this time with 0
  unsigned jump_seconds = 5;
  unsigned kick_ms = 0;    // kick all vCPUs this often
  unsigned reborn_ms = 0;  // make the machine anew this often
  Kick kick = Kick::kImmediateExit;
  Chip chip = Chip::kWhole;
  bool memfd = false;
  bool dirty_log = false;
  bool sync_registers = false;
  bool pin = false;             // the irqfd is on a pin of the IOAPIC, not an MSI
  unsigned wait_for_input = 0;  // layout::Parameters
  bool break_sequence = false;
  std::string disturb;  // what is changed every second
};

// Lines to stdout, whole ones. A line of what is wrong ends the process, whatever its other threads do.
void say(const std::string& line);
[[noreturn]] void bad(const std::string& what);
[[noreturn]] void skip(const std::string& why);

// A structure with an array of any length at its end.
template <class Head, class Entry>
class WithArray {
 public:
  explicit WithArray(size_t count) : buffer_((sizeof(Head) + count * sizeof(Entry)) / 8 + 1) {}
  Head* operator->() { return head(); }
  Head* head() { return reinterpret_cast<Head*>(buffer_.data()); }
  Entry* array() { return reinterpret_cast<Entry*>(head() + 1); }

 private:
  std::vector<uint64_t> buffer_;
};

class Machine {
 public:
  explicit Machine(const Options& options);

  // Makes the vCPU and its mapping; by the thread that will run it.
  struct Vcpu {
    unsigned number;
    int fd;
    kvm_run* run;
  };
  Vcpu make_vcpu(unsigned number);

  int make_kick(uint64_t address, bool port, uint32_t size, const uint32_t* match);  // an eventfd
  int make_interrupt();  // an eventfd that raises layout::kInterruptVector
  void coalesce(uint64_t address, uint32_t size);
  kvm_coalesced_mmio_ring* ring(const Vcpu& vcpu) const;
  // Whether the page was written since this was asked for it the last time.
  bool was_dirtied(uint64_t page);
  void move_window(uint64_t pages);
  void disturb(const Vcpu& vcpu, const std::string& what);
  // Another machine in the place of this one, with the state of this one. All vCPUs stand still.
  void bear_again(std::vector<Vcpu>& vcpus);

 private:
  void make_vm();
  void filter_msrs();
  void set_region(uint32_t slot, uint64_t address, uint64_t size, uint8_t* memory, uint32_t flags);
  void load();
  void make_chip();
  void route();
  int extension(int number) const;

  const Options& options_;
  int kvm_, vm_ = -1;
  uint8_t* memory_;
  uint8_t* rom_;
  uint64_t window_ = 0;  // pages behind kSharedData
  uint64_t size_;
  std::mutex dirty_mutex_;
  std::vector<bool> dirty_;
  // What KVM was told of and does not tell.
  std::vector<kvm_ioeventfd> kicks_;
  std::vector<kvm_irqfd> interrupts_;
  std::vector<kvm_coalesced_mmio_zone> zones_;
};
