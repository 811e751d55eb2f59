#include "resource/file/proc.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>

#include "resource/payload.h"
#include "resource/refusal.h"
#include "resource/reopen.h"
#include "schema/kinds/proc.pb.h"

namespace stasis::resource {
namespace {

bool is_in_proc(const OpenFile& file) {
  if (!S_ISREG(file.status.st_mode) && !S_ISDIR(file.status.st_mode)) return false;
  struct statfs fs = {};
  return file.link.starts_with('/') && fstatfs(file.duplicate.get(), &fs) == 0 &&
         fs.f_type == PROC_SUPER_MAGIC;
}

// Files of a process, and all directories (they list processes), differ from one /proc to another; the others
// (meminfo, stat, sys/...) are the same everywhere. But one that the program has mounted, or has in a mount
// namespace of its own, comes late.
bool depends_on_session(const OpenFile& file) {
  if (S_ISDIR(file.status.st_mode) || file.root >= 0 || !file.link.starts_with("/proc/")) return true;
  size_t name = file.link.find_first_of("0123456789");
  return name != std::string::npos && file.link[name - 1] == '/' && file.link.compare(0, 5, "/proc") == 0 &&
         name == file.link.find('/', 1) + 1;
}

constexpr std::string_view kDeleted = " (deleted)";

// Whether a directory or file behind the one at `place` is a number.
bool has_number_behind(const std::string& path, size_t place) {
  for (size_t slash = path.find('/', place); slash != std::string::npos; slash = path.find('/', slash + 1)) {
    if (slash + 1 < path.size() && path[slash + 1] >= '0' && path[slash + 1] <= '9') return true;
  }
  return false;
}

bool is_sought(const Record& record) { return record.position != 0 && (record.flags & O_PATH) == 0; }

uint64_t argument(int64_t value) { return static_cast<uint64_t>(value); }

}  // namespace

KindInfo ProcKind::info() const {
  return {"proc", "Descriptors", "files and directories in /proc: path, position", Support::kPartial,
          "those that other processes than the owner could not open any more are refused"};
}

bool ProcKind::recognises(const OpenFile& file, const Observation&) const { return is_in_proc(file); }

Result<std::string> ProcKind::observe(const OpenFile& file, Observation&) const {
  schema::ProcFile message;
  message.set_path(file.link);
  message.set_of_session(depends_on_session(file));
  message.set_directory(S_ISDIR(file.status.st_mode));
  // What is the same in every /proc may have been opened in another one: by us, at an earlier restart.
  if (!message.of_session() || name_of(file).state == Name::kLeadsToFile) return pack(message);
  if (file.link.ends_with(kDeleted))
    message.set_path(file.link.substr(0, file.link.size() - kDeleted.size()));
  const size_t number = message.path().find('/', 1) + 1;
  message.set_dead(atoi(message.path().c_str() + number));
  // The kernel may not have noticed yet that the name leads nowhere.
  const std::string process = fmt::format("/proc/{}/root/proc/{}", file.task, message.dead());
  if (!file.link.ends_with(kDeleted) && access(process.c_str(), F_OK) == 0)
    return refusal(file, "its name does not lead to it: it is of another /proc than the session's",
                   "close it");
  // A thread, a descriptor or a mapping that is gone, perhaps of a process that lives.
  if (message.dead() <= 0 || has_number_behind(message.path(), number))
    return refusal(file, "what it belongs to is gone", "close it");
  return pack(message);
}

// The session's own /proc shows its processes only when they exist, so the owner opens the file in finish();
// until then the number holds something harmless.
Result<Fd> ProcKind::make(const Record& record, Making&) const {
  STASIS_TRY(auto message, unpack<schema::ProcFile>(record));
  if (message.of_session()) return open_file("/dev/null", O_RDONLY);
  auto fd = open_file(message.path(), open_flags(record.flags));
  if (!fd.ok()) return std::move(fd).error().within("restore " + record.describe());
  if (is_sought(record) && lseek(fd->get(), record.position, SEEK_SET) < 0)
    return cannot_make(record, "lseek");
  return fd;
}

// Of a process that has ended: one that has its number for a moment opens its own file, and ends.
Result<void> ProcKind::settle(const Record& record, int fd, Making& context, Round round) const {
  if (round != Round::kWait) return {};
  STASIS_TRY(auto message, unpack<schema::ProcFile>(record));
  if (message.dead() == 0) return {};
  const Actor actor{NsTid{message.dead()}, geteuid(), getegid()};
  context.as(actor, [record, fd, path = message.path()]() -> Result<void> {
    auto opened = open_file(path, open_flags(record.flags));
    if (!opened.ok()) return std::move(opened).error().within("restore " + record.describe());
    if (is_sought(record) && lseek(opened->get(), record.position, SEEK_SET) < 0)
      return cannot_make(record, "lseek");
    if (dup3(opened->get(), fd, O_CLOEXEC) < 0) return cannot_make(record, "dup3");
    return {};
  });
  return {};
}

Result<void> ProcKind::finish(const Record& record, Finishing& owner) const {
  STASIS_TRY(auto message, unpack<schema::ProcFile>(record));
  if (!message.of_session() || message.dead() != 0) return {};
  STASIS_TRY(RemotePtr path,
             owner.put(std::as_bytes(std::span(message.path().c_str(), message.path().size() + 1))));
  STASIS_TRY(int64_t opened,
             owner.call(SYS_openat, std::array{argument(AT_FDCWD), path.value,
                                               argument(open_flags(record.flags)), uint64_t{0}}));
  if (opened < 0) return cannot_make(record, message.path(), static_cast<int>(-opened));
  if (is_sought(record)) {
    STASIS_TRY(int64_t result, owner.call(SYS_lseek, std::array{argument(opened), argument(record.position),
                                                                uint64_t{SEEK_SET}}));
    if (result < 0) return cannot_make(record, "lseek", static_cast<int>(-result));
  }
  return put_in_place(record, opened, owner);
}

std::string ProcKind::summary(const Record& record) const {
  auto message = unpack<schema::ProcFile>(record);
  return message.ok() ? message->path() : std::string();
}

}  // namespace stasis::resource
