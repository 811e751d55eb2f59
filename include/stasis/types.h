// Numbers that name things in different worlds have different types, so that they cannot be mixed up.
#pragma once

#include <fmt/format.h>
#include <sys/types.h>

#include <compare>
#include <cstdint>

namespace stasis {

// A task (thread) or process as this process sees it: valid for ptrace, kill, and our /proc.
struct HostTid {
  pid_t value = 0;
  auto operator<=>(const HostTid&) const = default;
};

// The same as the program sees it, in the session's own pid namespace. This is what images contain.
struct NsTid {
  pid_t value = 0;
  auto operator<=>(const NsTid&) const = default;
};

// An address in a tracee. Never dereferenced here.
struct RemotePtr {
  uint64_t value = 0;
  auto operator<=>(const RemotePtr&) const = default;
  RemotePtr operator+(uint64_t bytes) const { return {value + bytes}; }
};

inline constexpr uint64_t kPageSize = 4096;
constexpr uint64_t page_down(uint64_t value) { return value & ~(kPageSize - 1); }
constexpr uint64_t page_up(uint64_t value) { return page_down(value + kPageSize - 1); }

}  // namespace stasis

template <>
struct fmt::formatter<stasis::HostTid> : formatter<int> {
  auto format(stasis::HostTid tid, format_context& context) const {
    return formatter<int>::format(tid.value, context);
  }
};
template <>
struct fmt::formatter<stasis::NsTid> : formatter<int> {
  auto format(stasis::NsTid tid, format_context& context) const {
    return formatter<int>::format(tid.value, context);
  }
};
