// The namespaces that a session lives in.
#pragma once

#include <optional>

#include "kernel/proc.h"
#include "stasis/result.h"

namespace stasis::session {

struct NamespaceOptions {
  // A user namespace that maps the user to itself. It gives the rights over the other namespaces that an
  // ordinary user lacks.
  bool user = false;
  // A time namespace whose clocks differ from the host's by this much.
  std::optional<kernel::ClockOffsets> clocks;
  // A network namespace. There is nothing in it but a loopback interface that is down.
  bool network = false;
};

// True when the other namespaces cannot be had without a user namespace: without CAP_SYS_ADMIN.
bool needs_user_namespace();

// Offsets that let the clocks of the session go on at these values now.
kernel::ClockOffsets offsets_for(int64_t monotonic_ns, int64_t boottime_ns);

// Puts this process into new user, mount, ipc and network namespaces. kernel::host_proc() must have been
// called before. Not undone: call it in a process made for the purpose.
Result<void> enter_new_namespaces(const NamespaceOptions& options);

// Puts the next child of this process into a new pid namespace, as its init, and into a time namespace. After
// enter_new_namespaces(): children that are born before are helpers. With a time namespace for its children a
// process can share its memory with none of them before Linux 6.3 (kernel::run_beside).
Result<void> make_namespaces_of_children(const NamespaceOptions& options);

// Mounts a /proc that shows the pid namespace of the caller over the one that there is.
Result<void> mount_proc();

}  // namespace stasis::session
