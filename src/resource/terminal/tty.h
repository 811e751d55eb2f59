// Which terminal a descriptor belongs to.
#pragma once

#include <sys/ioctl.h>

#include <cstddef>

#include "stasis/descriptor.h"

namespace stasis::resource {

inline constexpr size_t kWindowSize = sizeof(winsize);

// A terminal of any sort, also one opened as /dev/tty.
bool is_terminal(const OpenFile& file);
// The master side of a pseudo-terminal.
bool is_master(const OpenFile& file);
// st_rdev of the terminal (of the slave, for a pseudo-terminal): also for a descriptor of /dev/tty, whose own
// st_rdev says nothing. 0: not a terminal.
uint64_t tty_device(int fd);
bool is_pty_slave(uint64_t device);
// N of /dev/pts/N, asked from the master.
uint32_t tty_index(int master);

}  // namespace stasis::resource
