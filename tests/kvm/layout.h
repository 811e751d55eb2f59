// What the monitor and its guests know of each other: addresses, ports, and the page of parameters.
// Everything is below 4 GiB, which the monitor's page tables map one to one, in pages of 2 MiB that ring 3
// may use.
#pragma once
#include <cstdint>

namespace layout {

// Guest memory: what the monitor puts there before the first instruction.
inline constexpr uint64_t kParameters = 0x1000;
inline constexpr uint64_t kPageTables = 0x2000;  // PML4, PDPT, four page directories
inline constexpr uint64_t kImage = 0x10000;      // entered at 1000:0000 in real mode, by all processors
inline constexpr uint64_t kSharedData = 0x1000000;

struct Parameters {
  uint64_t processors;
  uint64_t tsc_khz;
  uint64_t memory_mib;      // of RAM, from address 0
  uint64_t dirty_pages;     // guest "memory": how many pages it writes between two ticks
  uint64_t chip;            // there is an interrupt controller (0 with --no-irqchip)
  uint64_t pic;             // ... which has a PIC and a PIT (0 with --split)
  uint64_t wait_for_input;  // guest "smp": 1: start the others when a byte comes from the console, 2: all but
                            // the SIPI
  uint64_t deadline_timer;  // the LAPIC can do that
  uint64_t dirty_log;       // RAM has a dirty log (kWasDirtied can be asked)
  uint64_t user_msrs;       // kMsrRead and kMsrWrite are there
  uint64_t jump_seconds;    // guest "clock": more than that at once is wrong
  uint64_t pin;             // the interrupts come through the pin kPin of the IOAPIC, not as messages
};

// The console: what the guest writes becomes lines on stdout. A line that begins with BAD ends the monitor
// with 1, one that begins with SKIP with 77.
inline constexpr uint16_t kConsole = 0x3f8;
inline constexpr uint16_t kConsoleStatus = 0x3fd;  // bit 0: a byte can be read

// Numbers in sequence, 4 bytes each: reading gives n, n + 1, ...; what is written must be n, n + 1, ... Each
// processor has its own: port + stride * processor.
inline constexpr uint16_t kPortRead = 0x500;
inline constexpr uint16_t kPortWrite = 0x504;
inline constexpr uint16_t kPortStride = 0x10;
// The same in memory space; 4 and 8 bytes wide.
inline constexpr uint64_t kMemoryRead = 0xd0000000;
inline constexpr uint64_t kMemoryWrite = 0xd0000008;
inline constexpr uint64_t kMemoryStride = 0x100;
// Writes that KVM puts into its ring of coalesced ones; numbers in sequence again, 4 bytes at + 8 *
// processor.
inline constexpr uint64_t kCoalesced = 0xd0001000;
inline constexpr uint64_t kCoalescedSize = 0x1000;

// And the same as MSRs, which KVM leaves to the monitor.
inline constexpr uint32_t kMsrRead = 0x4b000000;
inline constexpr uint32_t kMsrWrite = 0x4b000001;
// A slot of memory that can only be read, and holds kRomStep * n at 8 * n; writes there are in sequence as
// well, at
// + 8 * processor.
inline constexpr uint64_t kRom = 0xc0000000;
inline constexpr uint64_t kRomSize = 0x100000;
inline constexpr uint64_t kRomStep = 0x9e3779b97f4a7c15;
// A slot that shows RAM from kSharedData on a second time. Writing a number to the port moves it: to so many
// pages behind.
inline constexpr uint64_t kWindow = 0xc8000000;
inline constexpr uint64_t kWindowSize = 0x100000;
inline constexpr uint16_t kMoveWindow = 0x614;

// ioeventfds: without data match in both spaces, and one with it.
inline constexpr uint16_t kKickPort = 0x600;
inline constexpr uint16_t kKickMatchPort = 0x604;
inline constexpr uint32_t kKickMatch = 0x1234567;
inline constexpr uint64_t kKickMemory = 0xd0002000;
// How many kicks the guest has made so far: the eventfds must have counted as many.
inline constexpr uint16_t kKickTotal = 0x608;
// How many of the monitor's interrupts have come so far. It raises the next one only when this is as many as
// it raised, and the first when this is written as 0.
inline constexpr uint16_t kInterruptTotal = 0x60c;
// Page number: it was written since the last time that this was asked, and the dirty log must have it.
inline constexpr uint16_t kWasDirtied = 0x610;

// The GSI of the monitor's irqfd: a pin of the IOAPIC that no device has, and one that can only be an MSI.
inline constexpr uint32_t kPin = 11;
inline constexpr uint32_t kMessagePin = 24;
inline constexpr uint8_t kInterruptVector = 0x40;

}  // namespace layout
