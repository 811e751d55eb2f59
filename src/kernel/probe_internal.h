// What the probes share: an outcome, and a child process in which a trial can do no harm.
#pragma once

#include <functional>
#include <string>

#include "kernel/probe.h"

namespace stasis::kernel::probing {

struct Outcome {
  Ability ability = Ability::kMissing;
  std::string reason;
  std::string remedy;
};

Outcome works(std::string reason);
Outcome partly(std::string reason, std::string remedy);
Outcome lacking(std::string reason, std::string remedy);
// "clone3: Operation not permitted"
std::string failed(const char* call);

// Runs the trial in a forked child and brings its outcome back. A trial that dies or hangs (10 s) is a
// missing ability.
Outcome in_child(const std::function<Outcome()>& trial);

// In the child: what `launch` starts with. As root: nothing. Else a user namespace that maps the user to
// itself, and in it all capabilities. Empty when it worked, else the reason.
std::string enter_user_namespace();

// Namespaces.
Outcome try_user_namespace();
Outcome try_exact_pids();
Outcome try_mount_proc();
Outcome try_time_namespace();
Outcome try_network_namespace();
Outcome try_mounts();

// Looking at and changing other processes.
Outcome try_trace_session();
Outcome try_trace_stranger();
Outcome try_kcmp();
Outcome try_pidfd_getfd();
Outcome try_rseq_configuration();
Outcome try_posix_timers();
Outcome try_mm_map();

// Memory.
Outcome try_pagemap_scan();
Outcome try_write_tracking();
Outcome try_seccomp_notification();

// The X server of launch --display.
Outcome try_display();

// The store.
Outcome try_store(const std::string& directory);
Outcome try_reflink(const std::string& directory);

}  // namespace stasis::kernel::probing
