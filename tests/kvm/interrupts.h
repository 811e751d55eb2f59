// Interrupts for guests: the local APIC, and a way to wait for the first one.
#pragma once
#include "guest.h"

inline constexpr u64 kWithInterrupts = 0x3202;  // flags

namespace lapic {

inline constexpr u64 kVersion = 0x30, kEnd = 0xb0, kSpurious = 0xf0, kTimer = 0x320, kLint0 = 0x350,
                     kInitialCount = 0x380, kCurrentCount = 0x390, kDivide = 0x3e0;
inline constexpr u32 kMasked = 0x10000, kPeriodic = 0x20000, kDeadline = 0x40000;

inline void enable() { write32(kLapic + kSpurious, 0x1ff); }
inline void end() { write32(kLapic + kEnd, 0); }

}  // namespace lapic

// An interrupt that has never come within this time is one that this KVM does not bring.
inline u64 patience() { return parameters().tsc_khz * 5000; }
