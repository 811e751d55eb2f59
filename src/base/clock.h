// Clock readings in nanoseconds.
#pragma once

#include <cstdint>
#include <ctime>

namespace stasis {

inline int64_t clock_ns(clockid_t clock) {
  timespec now;
  ::clock_gettime(clock, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}
inline timespec to_timespec(int64_t ns) { return {ns / 1'000'000'000, ns % 1'000'000'000}; }
inline int64_t monotonic_ns() { return clock_ns(CLOCK_MONOTONIC); }

}  // namespace stasis
