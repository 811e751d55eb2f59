#include "resource/fanotify.h"

#include <fcntl.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cstdio>
#include <optional>
#include <sstream>

#include "kernel/proc.h"
#include "resource/payload.h"
#include "resource/refusal.h"
#include "resource/reopen.h"
#include "resource/watched_file.h"
#include "schema/kinds/fanotify.pb.h"

namespace stasis::resource {
namespace {

using Mark = schema::Fanotify::Mark;

constexpr uint32_t kDecides = FAN_CLASS_CONTENT | FAN_CLASS_PRE_CONTENT;
constexpr uint32_t kMarkIgnore = 0x400;  // FAN_MARK_IGNORE, Linux 6.0
// With nothing but these an ignored mask is empty.
constexpr uint64_t kModifiers = FAN_ONDIR | FAN_EVENT_ON_CHILD;

// A line of /proc/PID/mountinfo that fits.
std::optional<std::string> mount_point(const OpenFile& file, int id, uint64_t device) {
  auto text = read_file(fmt::format("/proc/{}/mountinfo", file.task));
  if (!text.ok()) return std::nullopt;
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    int number = 0, parent = 0;
    unsigned major_number = 0, minor_number = 0;
    std::string root, place;
    char colon = 0;
    std::istringstream words(line);
    words >> number >> parent >> major_number >> colon >> minor_number >> root >> place;
    const uint64_t theirs = uint64_t{major_number} << 20 | minor_number;
    if (!words.fail() && (id != 0 ? number == id : theirs == device)) return place;
  }
  return std::nullopt;
}

struct Line {
  Mark mark;
  WatchedFile file;
  int mount = 0;
};

// "fanotify ino:4f969 sdev:800013 mflags:0 mask:3b ignored_mask:40000000 fhandle-bytes:8 ..."
// "fanotify mnt_id:12 mflags:40 mask:38 ignored_mask:40000003"
// "fanotify sdev:800013 mflags:0 mask:3b ignored_mask:0"
std::optional<Line> parse(const std::string& text) {
  Line line;
  unsigned long long inode = 0, device = 0, mask = 0, ignored = 0;
  unsigned mount = 0, flags = 0;
  if (sscanf(text.c_str(), "fanotify ino:%llx sdev:%llx mflags:%x mask:%llx ignored_mask:%llx", &inode,
             &device, &flags, &mask, &ignored) == 5) {
    line.mark.set_kind(Mark::INODE);
    read_handle(text, line.file);
  } else if (sscanf(text.c_str(), "fanotify mnt_id:%x mflags:%x mask:%llx ignored_mask:%llx", &mount, &flags,
                    &mask, &ignored) == 4) {
    line.mark.set_kind(Mark::MOUNT);
  } else if (sscanf(text.c_str(), "fanotify sdev:%llx mflags:%x mask:%llx ignored_mask:%llx", &device, &flags,
                    &mask, &ignored) == 4) {
    line.mark.set_kind(Mark::FILE_SYSTEM);
  } else {
    return std::nullopt;
  }
  line.file.inode = inode;
  line.file.device = device;
  line.mount = static_cast<int>(mount);
  line.mark.set_mask(mask);
  line.mark.set_ignored((ignored & ~kModifiers) != 0 ? ignored : 0);
  line.mark.set_flags(flags);
  return line;
}

Result<void> find(const OpenFile& file, Line& line, const std::set<std::string>& likely,
                  const Observation& tree) {
  if (line.mark.kind() == Mark::INODE) {
    line.mark.set_path(find_path(file, line.file, likely, tree));
    if (!line.mark.path().empty()) {
      if (is_link_itself(file, line.file, line.mark.path()))
        line.mark.set_flags(line.mark.flags() | FAN_MARK_DONT_FOLLOW);
      return {};
    }
    line.mark.set_description(open_description(line.file, tree));
    if (line.mark.description() != 0) return {};
    return refusal(file, fmt::format("the path of its mark on inode {} cannot be found", line.file.inode),
                   "checkpoint as root, or have the program keep the watched file open");
  }
  auto place = mount_point(file, line.mount, line.file.device);
  if (!place) return refusal(file, "the mount that it watches cannot be found", "end the watching");
  line.mark.set_path(*place);
  return {};
}

Result<void> add(const Record& record, int fd, const Mark& mark, const std::string& path) {
  unsigned type = FAN_MARK_ADD | (mark.flags() & FAN_MARK_DONT_FOLLOW);
  if (mark.kind() == Mark::MOUNT) type |= FAN_MARK_MOUNT;
  if (mark.kind() == Mark::FILE_SYSTEM) type |= FAN_MARK_FILESYSTEM;
  auto set = [&](unsigned how, uint64_t mask) -> Result<void> {
    if (mask == 0 || fanotify_mark(fd, type | how, mask, AT_FDCWD, path.c_str()) == 0) return {};
    return cannot_make(record, path, errno, "the program watched it: put it back to restart");
  };
  STASIS_CHECK(set(0, mark.mask()));
  const unsigned survives = mark.flags() & FAN_MARK_IGNORED_SURV_MODIFY;
  const unsigned ignores = (mark.flags() & kMarkIgnore) != 0 ? kMarkIgnore : FAN_MARK_IGNORED_MASK;
  return set(ignores | survives, mark.ignored());
}

}  // namespace

KindInfo FanotifyKind::info() const {
  return {"fanotify", "Descriptors", "fanotify: marks on files, mounts and file systems", Support::kPartial,
          "events that were not read yet are lost; a group that decides about accesses is refused"};
}

bool FanotifyKind::recognises(const OpenFile& file, const Observation&) const {
  return file.link == "anon_inode:[fanotify]";
}

Result<std::string> FanotifyKind::observe(const OpenFile& file, Observation& tree) const {
  schema::Fanotify message;
  unsigned flags = 0, event_flags = 0;
  std::istringstream lines(file.fdinfo);
  const std::set<std::string> likely = likely_paths(file, tree);
  bool known = false;
  for (std::string text; std::getline(lines, text);) {
    if (sscanf(text.c_str(), "fanotify flags:%x event-flags:%x", &flags, &event_flags) == 2) {
      known = true;
    } else if (auto line = parse(text)) {
      STASIS_CHECK(find(file, *line, likely, tree));
      *message.add_marks() = line->mark;
    } else if (text.starts_with("fanotify")) {
      return refusal(file, fmt::format("it has a mark of an unknown sort: {}", text), "end the watching");
    }
  }
  if (!known) return refusal(file, "the kernel does not show its marks in fdinfo");
  if ((flags & kDecides) != 0) {
    return refusal(file, "accesses to files wait in it for its decision",
                   "use a group that is only told of events");
  }
  message.set_flags(flags);
  message.set_event_flags(event_flags);
  int unread = 0;
  if (ioctl(file.duplicate.get(), FIONREAD, &unread) == 0 && unread > 0)
    tree.warn(fmt::format("{}: events that were not read yet are missing after a restart", file.describe()));
  return pack(message);
}

Result<Fd> FanotifyKind::make(const Record& record, Making&) const {
  STASIS_TRY(auto message, unpack<schema::Fanotify>(record));
  // The group keeps the flags and shows them, also that the descriptor was to be closed by exec().
  Fd fd(fanotify_init(message.flags(), message.event_flags()));
  if (!fd) {
    return cannot_make(
        record, "fanotify_init", errno,
        errno == EPERM ? "only root may watch without FAN_REPORT_FID: restart it as root" : "");
  }
  if (fcntl(fd.get(), F_SETFD, FD_CLOEXEC) < 0) return cannot_make(record, "F_SETFD");
  STASIS_CHECK(set_status_flags(fd.get(), record.flags));
  return fd;
}

// When everything that is opened and filled has been.
Result<void> FanotifyKind::settle(const Record& record, int fd, Making& context, Round round) const {
  if (round != Round::kWait) return {};
  STASIS_TRY(auto message, unpack<schema::Fanotify>(record));
  for (const Mark& mark : message.marks()) {
    std::string path = mark.path();
    if (mark.description() != 0) {
      STASIS_TRY(int file, context.description(mark.description()));
      path = kernel::own_descriptor(file);
    }
    STASIS_CHECK(add(record, fd, mark, path));
  }
  return {};
}

std::string FanotifyKind::summary(const Record& record) const {
  auto message = unpack<schema::Fanotify>(record);
  return message.ok() ? fmt::format("{} marks", message->marks_size()) : std::string();
}

Result<void> FanotifyKind::relocate(Record& record, const Place& place) const {
  return change<schema::Fanotify>(record, [&](schema::Fanotify& message) {
    for (auto& mark : *message.mutable_marks()) mark.set_path(place(mark.path()));
  });
}

}  // namespace stasis::resource
