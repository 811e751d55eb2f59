// Stop signals that are pending in tasks that job control has stopped.
#pragma once

#include "freeze/frozen_process.h"

namespace stasis::freeze {

// One that came when the task was stopped already changes nothing, but shows. Whoever executes system calls
// for us takes it, so it is sent once more before the task is let go. Somebody may have let the task go on
// meanwhile, who took it away.
void send_stops_again(const FrozenProcess& process);

}  // namespace stasis::freeze
