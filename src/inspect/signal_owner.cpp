#include "inspect/signal_owner.h"

#include <fcntl.h>

namespace stasis::inspect {

namespace {

// The kernel answers us with a number of our own namespace. 0: not in the session.
int number_in_session(const f_owner_ex& owner, const freeze::FrozenTree& tree) {
  for (const auto& process : tree.processes()) {
    if (owner.type == F_OWNER_PID && process.leader.value == owner.pid) return process.status.ns_tgid.value;
    if (owner.type == F_OWNER_PGRP && process.stat.group == owner.pid) return process.status.ns_group.value;
    if (owner.type != F_OWNER_TID) continue;
    for (const auto& thread : process.threads) {
      if (thread.tid.value == owner.pid) return thread.ns_tid.value;
    }
  }
  return 0;
}

}  // namespace

bool observe_signal_owner(const resource::OpenFile& file, const freeze::FrozenTree& tree,
                          schema::Description& out) {
  f_owner_ex owner = {};
  int signal = ::fcntl(file.duplicate.get(), F_GETSIG);
  if (signal > 0) out.mutable_signal_owner()->set_signal(static_cast<uint32_t>(signal));
  // One that has ended is shown as nobody.
  if (::fcntl(file.duplicate.get(), F_GETOWN_EX, &owner) != 0 || owner.pid == 0) return true;
  int id = number_in_session(owner, tree);
  if (id == 0) return false;
  out.mutable_signal_owner()->set_type(owner.type);
  out.mutable_signal_owner()->set_id(id);
  return true;
}

}  // namespace stasis::inspect
