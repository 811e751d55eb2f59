#include "resource/pipe.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "resource/payload.h"
#include "resource/pipe_content.h"
#include "resource/refusal.h"
#include "resource/reopen.h"
#include "schema/kinds/pipe.pb.h"

namespace stasis::resource {
namespace {

bool reads(uint32_t flags) { return (flags & O_ACCMODE) != O_WRONLY; }
bool writes(uint32_t flags) { return (flags & O_ACCMODE) != O_RDONLY; }

std::string object_key(uint64_t inode, bool writing) {
  return fmt::format("pipe:{}:{}", inode, writing ? 'w' : 'r');
}

struct Ends {
  uint32_t first_reader = 0;
  bool writer = false;
  bool packets = false;
};

Ends ends_of(const OpenFile& file, const Observation& tree) {
  const auto& pipes = tree.index(
      "pipes", [](const OpenFile& other) { return other.link.starts_with("pipe:") ? other.link : ""; });
  Ends ends;
  auto [first, last] = pipes.equal_range(file.link);
  for (auto entry = first; entry != last; ++entry) {
    const OpenFile& other = *entry->second;
    if (reads(other.flags) && (ends.first_reader == 0 || other.id < ends.first_reader))
      ends.first_reader = other.id;
    if (writes(other.flags)) ends.writer = true;
    if (writes(other.flags) && other.flags & O_DIRECT) ends.packets = true;
  }
  return ends;
}

// A pipe whose other end is closed looks the same to us as one whose other end is in a program outside;
// poll() tells.
void warn_if_open_outside(const OpenFile& file, const Ends& ends, Observation& tree) {
  pollfd state = {file.duplicate.get(), 0, 0};
  if (poll(&state, 1, 0) < 0) return;
  if (!ends.writer && !(state.revents & POLLHUP)) {
    tree.warn(
        fmt::format("{}: its writer is outside the session; after a restart the pipe ends", file.describe()));
  } else if (ends.first_reader == 0 && !(state.revents & POLLERR)) {
    tree.warn(fmt::format("{}: its reader is outside the session; after a restart the pipe is broken",
                          file.describe()));
  }
}

// pipe2() itself makes the first description of each end, as it did for the program; further ones (somebody
// opened /proc/self/fd/N) are opened in the same way.
bool is_first_of_its_end(const Record& record, uint64_t inode, const Making& context) {
  auto end_of = [](uint64_t pipe, uint32_t flags) { return fmt::format("{}:{}", pipe, flags & O_ACCMODE); };
  const auto& ends = context.index(record.kind, "end", [&](const Record& other) {
    auto message = unpack<schema::Pipe>(other);
    return message.ok() ? end_of(message->inode(), other.flags) : std::string();
  });
  const auto first = ends.lower_bound(end_of(inode, record.flags));
  return (record.flags & O_ACCMODE) != O_RDWR && first->second == &record;
}

}  // namespace

KindInfo PipeKind::info() const {
  return {"pipe", "Descriptors", "pipe: both ends, capacity, content, packet mode, ends that are closed"};
}

bool PipeKind::recognises(const OpenFile& file, const Observation&) const {
  return S_ISFIFO(file.status.st_mode) && file.link.starts_with("pipe:");
}

Result<std::string> PipeKind::observe(const OpenFile& file, Observation& tree) const {
  schema::Pipe message;
  message.set_inode(file.status.st_ino);
  int capacity = fcntl(file.duplicate.get(), F_GETPIPE_SZ);
  if (capacity < 0) return cannot_observe(file, "F_GETPIPE_SZ");
  message.set_capacity(static_cast<uint32_t>(capacity));
  Ends ends = ends_of(file, tree);
  warn_if_open_outside(file, ends, tree);
  // Without a reading end in the tree nobody can ever read what is inside.
  if (ends.first_reader == file.id) {
    message.set_packets(ends.packets);
    auto pieces = peek_pipe(file.duplicate.get(), ends.packets);
    if (!pieces.ok()) return std::move(pieces).error().within("save " + file.describe());
    for (std::string& piece : *pieces) message.add_pieces(std::move(piece));
  }
  return pack(message);
}

Result<Fd> PipeKind::make(const Record& record, Making& context) const {
  STASIS_TRY(auto message, unpack<schema::Pipe>(record));
  Fd& reading = context.shared_objects()[object_key(message.inode(), false)];
  Fd& writing = context.shared_objects()[object_key(message.inode(), true)];
  if (!reading) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) return cannot_make(record, "pipe2");
    reading.reset(ends[0]);
    writing.reset(ends[1]);
    int present = fcntl(reading.get(), F_GETPIPE_SZ);
    if (present != static_cast<int>(message.capacity()) &&
        fcntl(reading.get(), F_SETPIPE_SZ, message.capacity()) < 0) {
      return cannot_make(record, fmt::format("a pipe of {} bytes", message.capacity()), errno,
                         "the limits are in /proc/sys/fs/pipe-max-size and pipe-user-pages-soft");
    }
  }
  Fd& end = writes(record.flags) ? writing : reading;
  if (!is_first_of_its_end(record, message.inode(), context)) {
    auto fd = reopen_pipe(end.get(), record.flags);
    if (!fd.ok()) return std::move(fd).error().within("restore " + record.describe());
    return fd;
  }
  STASIS_TRY(Fd fd, duplicate(end.get()));
  STASIS_CHECK(set_status_flags(fd.get(), record.flags));
  return fd;
}

Result<void> PipeKind::fill(const Record& record, int fd, Making&) const {
  STASIS_TRY(auto message, unpack<schema::Pipe>(record));
  auto filled = fill_pipe(fd, {message.pieces().begin(), message.pieces().end()}, message.packets());
  if (!filled.ok()) return std::move(filled).error().within("restore " + record.describe());
  return {};
}

std::string PipeKind::summary(const Record& record) const {
  auto message = unpack<schema::Pipe>(record);
  if (!message.ok()) return {};
  size_t size = 0;
  for (const std::string& piece : message->pieces()) size += piece.size();
  std::string_view end = record.flags & O_RDWR  ? "both ends"
                         : writes(record.flags) ? "writing end"
                                                : "reading end";
  return fmt::format("pipe {}, {}, {} bytes inside", message->inode(), end, size);
}

}  // namespace stasis::resource
