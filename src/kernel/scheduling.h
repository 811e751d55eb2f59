// The kernel's struct sched_attr: its header and the C library's cannot be included together.
#pragma once

#include <cstdint>

namespace stasis::kernel {

// Of sched_setattr() and sched_getattr(), with all that Linux 5.3 and later have.
struct SchedulingAttributes {
  uint32_t size = 0;
  uint32_t policy = 0;
  uint64_t flags = 0;
  int32_t nice = 0;
  uint32_t priority = 0;
  uint64_t runtime_ns = 0, deadline_ns = 0, period_ns = 0;
  uint32_t utilization_min = 0, utilization_max = 0;
};
static_assert(sizeof(SchedulingAttributes) == 56);

}  // namespace stasis::kernel
