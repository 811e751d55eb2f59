#include "resource/file/fifo.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "resource/file/open_by_name.h"
#include "resource/payload.h"
#include "resource/pipe_content.h"
#include "resource/refusal.h"
#include "resource/reopen.h"
#include "schema/kinds/pipe.pb.h"

namespace stasis::resource {
namespace {

std::string object_key(const schema::Fifo& message) {
  return fmt::format("fifo:{:x}:{}", message.device(), message.pipe().inode());
}

std::string inode_key(const OpenFile& file) {
  return fmt::format("{:x}:{}", file.status.st_dev, file.status.st_ino);
}

// A descriptor for both directions: while it is there, opening either end does not wait for the other.
Result<Fd> open_both_ends(const Record& record, const schema::Fifo& message) {
  std::string path = message.path();
  if (message.deleted()) {
    path += fmt::format(".stasis-{}", getpid());
    if (mkfifo(path.c_str(), 0600) < 0) {
      path = fmt::format("/tmp/.stasis-fifo-{}-{}", getpid(), record.id);
      if (mkfifo(path.c_str(), 0600) < 0) return cannot_make(record, "mkfifo " + path);
    }
  }
  struct stat status = {};
  if (stat(path.c_str(), &status) < 0) {
    return cannot_make(record, path, errno,
                       "the program had this FIFO open: create it again (mkfifo) to restart");
  }
  if (!S_ISFIFO(status.st_mode)) {
    return Error{"restore " + record.describe(), path, "it was a FIFO, and now is something else",
                 "create it again (mkfifo) to restart"};
  }
  auto fd = open_file(path, O_RDWR | O_NONBLOCK);
  int error = errno;
  if (message.deleted()) unlink(path.c_str());
  if (!fd.ok()) return cannot_make(record, path, error);
  return fd;
}

}  // namespace

KindInfo FifoKind::info() const {
  return {"fifo", "Descriptors", "FIFO: path, capacity, content", Support::kPartial,
          "content comes back only into a FIFO that nobody else is using"};
}

bool FifoKind::recognises(const OpenFile& file, const Observation&) const {
  return S_ISFIFO(file.status.st_mode) && file.link.starts_with('/');
}

Result<std::string> FifoKind::observe(const OpenFile& file, Observation& tree) const {
  NamedPath name = name_of(file);
  if (name.state == Name::kLeadsElsewhere) return refusal(file, "its name leads to another file");
  schema::Fifo message;
  message.set_path(name.path);
  message.set_deleted(name.state == Name::kDeleted);
  message.set_device(file.status.st_dev);
  message.set_mode(file.status.st_mode);
  message.mutable_pipe()->set_inode(file.status.st_ino);
  int capacity = fcntl(file.duplicate.get(), F_GETPIPE_SZ);
  if (capacity < 0) return cannot_observe(file, "F_GETPIPE_SZ");
  message.mutable_pipe()->set_capacity(static_cast<uint32_t>(capacity));

  const auto& fifos = tree.index(
      "FIFOs", [](const OpenFile& other) { return S_ISFIFO(other.status.st_mode) ? inode_key(other) : ""; });
  uint32_t first_reader = 0;
  bool packets = false;
  auto [first, last] = fifos.equal_range(inode_key(file));
  for (auto entry = first; entry != last; ++entry) {
    const OpenFile& other = *entry->second;
    bool reads = (other.flags & O_ACCMODE) != O_WRONLY && !(other.flags & O_PATH);
    if (reads && (first_reader == 0 || other.id < first_reader)) first_reader = other.id;
    packets = packets || ((other.flags & O_ACCMODE) != O_RDONLY && other.flags & O_DIRECT);
  }
  if (first_reader == file.id) {
    auto pieces = peek_pipe(file.duplicate.get(), packets);
    if (!pieces.ok()) return std::move(pieces).error().within("save " + file.describe());
    message.mutable_pipe()->set_packets(packets);
    for (std::string& piece : *pieces) message.mutable_pipe()->add_pieces(std::move(piece));
  }
  return pack(message);
}

Result<Fd> FifoKind::make(const Record& record, Making& context) const {
  STASIS_TRY(auto message, unpack<schema::Fifo>(record));
  Fd& both = context.shared_objects()[object_key(message)];
  if (!both) {
    STASIS_TRY(both, open_both_ends(record, message));
    int capacity = static_cast<int>(message.pipe().capacity());
    if (fcntl(both.get(), F_GETPIPE_SZ) != capacity && fcntl(both.get(), F_SETPIPE_SZ, capacity) < 0) {
      return cannot_make(record, fmt::format("a FIFO of {} bytes", capacity), errno,
                         "the limits are in /proc/sys/fs/pipe-max-size and pipe-user-pages-soft");
    }
  }
  auto fd = reopen_pipe(both.get(), record.flags);
  if (!fd.ok()) return std::move(fd).error().within("restore " + record.describe());
  return fd;
}

Result<void> FifoKind::fill(const Record& record, int fd, Making& context) const {
  STASIS_TRY(auto message, unpack<schema::Fifo>(record));
  int inside = 0;
  // Somebody else who has it open may have written, or have kept what was inside.
  if (ioctl(context.shared_objects()[object_key(message)].get(), FIONREAD, &inside) == 0 && inside > 0)
    return {};
  auto filled = fill_pipe(fd, {message.pipe().pieces().begin(), message.pipe().pieces().end()},
                          message.pipe().packets());
  if (!filled.ok()) return std::move(filled).error().within("restore " + record.describe());
  return {};
}

Result<void> FifoKind::relocate(Record& record, const Place& place) const {
  return change<schema::Fifo>(record, [&](schema::Fifo& fifo) { fifo.set_path(place(fifo.path())); });
}

}  // namespace stasis::resource
