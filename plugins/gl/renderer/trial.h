#pragma once

namespace stasis::gl {

// Starts the driver that the environment names, without a screen, and prints what it calls itself, or on the
// error output what is wrong. Returns the exit status.
int try_driver();

}  // namespace stasis::gl
