#include "resource/inotify.h"

#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <sstream>
#include <vector>

#include "kernel/proc.h"
#include "resource/payload.h"
#include "resource/refusal.h"
#include "resource/watched_file.h"
#include "schema/kinds/inotify.pb.h"

namespace stasis::resource {
namespace {

// Numbers of watches are given one after the other; higher ones are reached by adding and removing.
constexpr int kHighestNumber = 100'000;
// With a queue of more events than this it would take too long to fill it.
constexpr unsigned long kLongestQueue = 1'000'000;
// Bits of the mask that fdinfo shows and inotify_add_watch() accepts.
constexpr uint32_t kMask = IN_ALL_EVENTS | IN_EXCL_UNLINK | IN_ONESHOT;
// The file is a symbolic link, which is watched itself: fdinfo does not show that, only what is at the path.
constexpr uint32_t kItself = IN_DONT_FOLLOW;

struct Line {
  int number = 0;
  uint32_t mask = 0;
  WatchedFile file;
};

// "inotify wd:1 ino:2a sdev:800013 mask:800afce ignored_mask:0 fhandle-bytes:8 fhandle-type:1
// f_handle:2a000000..."
std::vector<Line> parse(const std::string& fdinfo) {
  std::vector<Line> lines;
  std::istringstream text(fdinfo);
  for (std::string row; std::getline(text, row);) {
    Line line;
    unsigned long long inode = 0, device = 0;
    if (sscanf(row.c_str(), "inotify wd:%x ino:%llx sdev:%llx mask:%x",
               reinterpret_cast<unsigned*>(&line.number), &inode, &device, &line.mask) < 4) {
      continue;
    }
    line.file.inode = inode;
    line.file.device = device;
    read_handle(row, line.file);
    lines.push_back(std::move(line));
  }
  return lines;
}

void drain(int fd) {
  std::array<char, 65536> ignored;
  for (int waiting = 0; ioctl(fd, FIONREAD, &waiting) == 0 && waiting > 0;) {
    if (read(fd, ignored.data(), ignored.size()) <= 0) break;
  }
}

// Makes the queue of a group without unread events one that has overflowed, and nothing else in it: what the
// program is told by the kernel, too, when events are lost (inotify(7)), so that it looks for itself. It is
// filled by events of a file of our own, which are taken away again up to the one at the end that says so.
Result<void> overflow(const Record& record, int fd) {
  STASIS_TRY(std::string text, read_file("/proc/sys/fs/inotify/max_queued_events"));
  const unsigned long limit = strtoul(text.c_str(), nullptr, 10);
  if (limit > kLongestQueue) return {};
  // Reopened, since the kernel reports nothing of what is done by the descriptor of memfd_create() itself.
  Fd made(memfd_create("stasis", MFD_CLOEXEC));
  STASIS_TRY(Fd file, open_file(kernel::own_descriptor(made.get()), O_RDWR | O_CLOEXEC));
  const int watch = inotify_add_watch(fd, kernel::own_descriptor(made.get()).c_str(), IN_MODIFY | IN_ATTRIB);
  if (watch < 0) return cannot_make(record, "inotify_add_watch");
  // Two events in a row that are the same would be one.
  for (unsigned long i = 0; i <= limit; ++i) {
    if ((i % 2 == 0 ? pwrite(file.get(), "x", 1, 0) == 1 : fchmod(file.get(), 0600) == 0)) continue;
    return cannot_make(record, "the overflow of its queue");
  }
  // In a full queue there is no place for its IN_IGNORED.
  inotify_rm_watch(fd, watch);
  int size = 0;
  if (ioctl(fd, FIONREAD, &size) != 0) return cannot_make(record, "FIONREAD");
  std::array<char, 65536> ignored;
  for (size_t left = static_cast<size_t>(size); left > sizeof(inotify_event);) {
    const ssize_t n = read(fd, ignored.data(), std::min(ignored.size(), left - sizeof(inotify_event)));
    if (n <= 0) return cannot_make(record, "the overflow of its queue");
    left -= static_cast<size_t>(n);
  }
  return {};
}

// `next`: the number that the kernel gives to the next watch.
Result<void> add_watch(const Record& record, int fd, const schema::Inotify::Watch& watch,
                       const std::string& path, int& next) {
  if (watch.number() > kHighestNumber) return cannot_make(record, "watch number", ERANGE);
  for (; next < watch.number(); ++next) {
    int number = inotify_add_watch(fd, "/", IN_UNMOUNT);
    if (number < 0) return cannot_make(record, "inotify_add_watch");
    inotify_rm_watch(fd, number);
  }
  int number = inotify_add_watch(fd, path.c_str(), watch.mask());
  if (number < 0) return cannot_make(record, path, errno, "the program watched it: put it back to restart");
  if (number != watch.number()) {
    return Error{"restore " + record.describe(),
                 path,
                 fmt::format("the kernel numbered the watch {} instead of {}", number, watch.number()),
                 {}};
  }
  next = number + 1;
  return {};
}

}  // namespace

KindInfo InotifyKind::info() const {
  return {
      "inotify", "Descriptors", "inotify: watches with their numbers", Support::kPartial,
      "the kernel tells the inode of a watch and not its path: for an ordinary user the path must be below "
      "or on "
      "the way to a directory where the program has something open; events that were not read yet are lost, "
      "which the program is told as by the kernel (IN_Q_OVERFLOW)"};
}

bool InotifyKind::recognises(const OpenFile& file, const Observation&) const {
  return file.link == "anon_inode:inotify" || file.link == "anon_inode:[inotify]";
}

Result<std::string> InotifyKind::observe(const OpenFile& file, Observation& tree) const {
  schema::Inotify message;
  std::vector<Line> lines = parse(file.fdinfo);
  std::set<std::string> likely;
  if (!lines.empty()) likely = likely_paths(file, tree);
  for (const Line& line : lines) {
    const std::string path = find_path(file, line.file, likely, tree);
    const uint32_t description = path.empty() ? open_description(line.file, tree) : 0;
    if (path.empty() && description == 0) {
      return refusal(
          file,
          fmt::format("the path of its watch {} (inode {}) cannot be found", line.number, line.file.inode),
          "checkpoint as root, or have the program keep the watched directory open");
    }
    if (line.number < 1 || line.number > kHighestNumber) {
      return refusal(file, fmt::format("its watch has the number {}", line.number),
                     "restart the program now and then");
    }
    auto* watch = message.add_watches();
    watch->set_number(line.number);
    watch->set_path(path);
    watch->set_description(description);
    const bool itself = !path.empty() && is_link_itself(file, line.file, path);
    watch->set_mask((line.mask & kMask) | (itself ? kItself : 0));
  }
  std::sort(message.mutable_watches()->begin(), message.mutable_watches()->end(),
            [](const auto& a, const auto& b) { return a.number() < b.number(); });
  int unread = 0;
  if (ioctl(file.duplicate.get(), FIONREAD, &unread) == 0 && unread > 0) {
    message.set_events_lost(true);
    tree.warn(
        fmt::format("{}: instead of the events that were not read yet there is IN_Q_OVERFLOW after a restart",
                    file.describe()));
  }
  return pack(message);
}

Result<Fd> InotifyKind::make(const Record& record, Making&) const {
  STASIS_TRY(auto message, unpack<schema::Inotify>(record));
  Fd fd(inotify_init1(IN_CLOEXEC | (record.flags & O_NONBLOCK ? IN_NONBLOCK : 0)));
  if (!fd) return cannot_make(record, "inotify_init1");
  int next = 1;
  for (const auto& watch : message.watches()) {
    // Files without a name are complete later, and so are the numbers behind them.
    if (watch.description() != 0) break;
    STASIS_CHECK(add_watch(record, fd.get(), watch, watch.path(), next));
  }
  // Every watch that was only there for its number has left an event.
  drain(fd.get());
  return fd;
}

Result<void> InotifyKind::settle(const Record& record, int fd, Making& context, Round round) const {
  STASIS_TRY(auto message, unpack<schema::Inotify>(record));
  if (round == Round::kWait) {
    // What has been opened and filled meanwhile was our doing.
    drain(fd);
    return message.events_lost() ? overflow(record, fd) : Result<void>();
  }
  if (round != Round::kListen) return {};
  bool late = false;
  int next = 1;
  for (const auto& watch : message.watches()) {
    late = late || watch.description() != 0;
    if (!late) {
      next = watch.number() + 1;
    } else if (watch.description() == 0) {
      STASIS_CHECK(add_watch(record, fd, watch, watch.path(), next));
    } else {
      STASIS_TRY(int file, context.description(watch.description()));
      STASIS_CHECK(add_watch(record, fd, watch, kernel::own_descriptor(file), next));
    }
  }
  if (late) drain(fd);
  return {};
}

std::string InotifyKind::summary(const Record& record) const {
  auto message = unpack<schema::Inotify>(record);
  return message.ok() ? fmt::format("{} watches", message->watches_size()) : std::string();
}

Result<void> InotifyKind::relocate(Record& record, const Place& place) const {
  return change<schema::Inotify>(record, [&](schema::Inotify& message) {
    for (auto& watch : *message.mutable_watches()) watch.set_path(place(watch.path()));
  });
}

}  // namespace stasis::resource
