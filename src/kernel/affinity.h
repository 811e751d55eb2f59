// The processors on which tasks may run.
//
// A tracer and its task take turns. When each has a processor of its own, every turn wakes an idle one, which
// takes six times as long as a switch on the same processor, and more in a virtual machine (see
// docs/decisions/0003-one-processor.md). So while they work together they share one.
#pragma once

#include <string>

#include "stasis/types.h"

namespace stasis::kernel {

// As sched_getaffinity() gives it; empty when the task is gone.
std::string affinity_of(HostTid task);
void set_affinity(HostTid task, const std::string& mask);

// Keeps the calling thread on the processor where it is, until release() or its destruction. One at a time.
class OneProcessor {
 public:
  OneProcessor();
  ~OneProcessor() { release(); }
  OneProcessor(const OneProcessor&) = delete;
  OneProcessor& operator=(const OneProcessor&) = delete;
  void release();

  // The mask that has just this processor; empty when there is no OneProcessor.
  static const std::string& mask();
  // For a thread that was started meanwhile: back to all processors that its starter had.
  static void leave_in_new_thread();
};

}  // namespace stasis::kernel
