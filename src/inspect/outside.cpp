#include "inspect/outside.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>

#include "kernel/proc.h"
#include "resource/socket/socket.h"
#include "resource/socket/unix_diag.h"
#include "resource/terminal/tty.h"

namespace stasis::inspect {
namespace {

using resource::OpenFile;

bool is_hung_up(const OpenFile& file) {
  pollfd state = {file.duplicate.get(), 0, 0};
  return ::poll(&state, 1, 0) > 0 && (state.revents & (POLLHUP | POLLERR)) != 0;
}

// A terminal whose master a process of the tree has is as good as any other pair of descriptors.
bool leads_outside(uint64_t terminal, const DescriptorGraph& files) {
  if (terminal == 0) return false;
  if (!resource::is_pty_slave(terminal)) return true;
  return std::none_of(files.all().begin(), files.all().end(), [&](const auto& file) {
    return resource::is_master(*file) && resource::tty_index(file->duplicate.get()) == minor(terminal);
  });
}

uint64_t find_terminal(const freeze::FrozenTree& tree, const DescriptorGraph& files) {
  // The root's first, then those of the others.
  for (const auto& process : tree.processes()) {
    const uint64_t terminal = kernel::terminal_device(process.stat.terminal);
    if (leads_outside(terminal, files)) return terminal;
  }
  // One that is nobody's controlling terminal: of a program that was started by setsid(1).
  for (int number = 0; number < 3; ++number) {
    const OpenFile* file = files.find(tree.processes().front().pid, number);
    if (file == nullptr || !resource::is_terminal(*file) || resource::is_master(*file) || is_hung_up(*file))
      continue;
    const uint64_t terminal = resource::tty_device(file->duplicate.get());
    if (leads_outside(terminal, files)) return terminal;
  }
  return 0;
}

bool reads(uint32_t flags) { return (flags & O_ACCMODE) != O_WRONLY; }
bool writes(uint32_t flags) { return (flags & O_ACCMODE) != O_RDONLY; }

// An end whose other end somebody outside has. Where that is closed, it stays closed.
bool is_pipe_from_outside(const OpenFile& file, const DescriptorGraph& files) {
  if (!file.link.starts_with("pipe:") || is_hung_up(file)) return false;
  bool reader = false, writer = false;
  for (const auto& other : files.all()) {
    if (other->link != file.link) continue;
    reader = reader || reads(other->flags);
    writer = writer || writes(other->flags);
  }
  return !(reader && writer);
}

// The journal of a service, or the far end of a pair. What listens, and connections of other kinds, are the
// program's own affair.
bool is_socket_from_outside(const OpenFile& file, const DescriptorGraph& files) {
  if (!resource::is_socket(file) ||
      resource::socket_option(file.duplicate.get(), SOL_SOCKET, SO_DOMAIN) != AF_UNIX)
    return false;
  auto diag = resource::unix_diag(file.status.st_ino);
  if (!diag.ok() || diag->listening || !diag->peer || *diag->peer == 0) return false;
  return std::none_of(files.all().begin(), files.all().end(), [&](const auto& other) {
    return resource::is_socket(*other) && static_cast<uint32_t>(other->status.st_ino) == *diag->peer;
  });
}

}  // namespace

OutsideStreams find_outside_streams(const freeze::FrozenTree& tree, const DescriptorGraph& files) {
  OutsideStreams streams;
  streams.terminal = find_terminal(tree, files);
  for (int number = 0; number < 3; ++number) {
    const OpenFile* file = files.find(tree.processes().front().pid, number);
    if (file == nullptr) continue;
    if (is_pipe_from_outside(*file, files) || is_socket_from_outside(*file, files))
      streams.stdio[static_cast<size_t>(number)] = {true, file->status.st_dev, file->status.st_ino};
  }
  return streams;
}

}  // namespace stasis::inspect
