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
// (meminfo, stat, sys/...) are the same everywhere.
bool depends_on_session(const OpenFile& file) {
  if (S_ISDIR(file.status.st_mode)) return true;
  size_t name = file.link.find_first_of("0123456789");
  return name != std::string::npos && file.link[name - 1] == '/' && file.link.compare(0, 5, "/proc") == 0 &&
         name == file.link.find('/', 1) + 1;
}

uint64_t argument(int64_t value) { return static_cast<uint64_t>(value); }

}  // namespace

KindInfo ProcKind::info() const {
  return {"proc", "Descriptors", "files and directories in /proc: path, position", Support::kPartial,
          "files of a process are opened anew by their owner: refused when several processes share the "
          "descriptor, or "
          "when the process they belong to is gone"};
}

bool ProcKind::recognises(const OpenFile& file, const Observation&) const { return is_in_proc(file); }

Result<std::string> ProcKind::observe(const OpenFile& file, Observation&) const {
  schema::ProcFile message;
  message.set_path(file.link);
  message.set_of_session(depends_on_session(file));
  // What is the same in every /proc may have been opened in another one: by us, at an earlier restart.
  if (message.of_session() && name_of(file).state != Name::kLeadsToFile)
    return refusal(file, "the process that it belongs to has ended", "close it");
  message.set_directory(S_ISDIR(file.status.st_mode));
  if (message.of_session()) {
    for (const auto& [pid, number] : file.owners) {
      if (pid != file.pid) {
        return refusal(
            file,
            fmt::format("it is a file of a process in /proc which tasks {} and {} share", file.pid, pid),
            "each process has to open it for itself");
      }
      message.add_numbers(number);
    }
  }
  return pack(message);
}

// The session's own /proc shows its processes only when they exist, so the owner opens the file in finish();
// until then the number holds something harmless.
Result<Fd> ProcKind::make(const Record& record, Making&) const {
  STASIS_TRY(auto message, unpack<schema::ProcFile>(record));
  if (message.of_session()) return open_file("/dev/null", O_RDONLY);
  auto fd = open_file(message.path(), open_flags(record.flags));
  if (!fd.ok()) return std::move(fd).error().within("restore " + record.describe());
  if (record.position != 0 && lseek(fd->get(), record.position, SEEK_SET) < 0)
    return cannot_make(record, "lseek");
  return fd;
}

Result<void> ProcKind::finish(const Record& record, Finishing& owner) const {
  STASIS_TRY(auto message, unpack<schema::ProcFile>(record));
  if (!message.of_session()) return {};
  STASIS_TRY(RemotePtr path,
             owner.put(std::as_bytes(std::span(message.path().c_str(), message.path().size() + 1))));
  STASIS_TRY(int64_t opened,
             owner.call(SYS_openat, std::array{argument(AT_FDCWD), path.value,
                                               argument(open_flags(record.flags)), uint64_t{0}}));
  if (opened < 0) return cannot_make(record, message.path(), static_cast<int>(-opened));
  if (record.position != 0) {
    STASIS_TRY(int64_t result, owner.call(SYS_lseek, std::array{argument(opened), argument(record.position),
                                                                uint64_t{SEEK_SET}}));
    if (result < 0) return cannot_make(record, "lseek", static_cast<int>(-result));
  }
  for (int number : message.numbers()) {
    STASIS_TRY(int64_t flags, owner.call(SYS_fcntl, std::array{argument(number), uint64_t{F_GETFD}}));
    uint64_t close_on_exec = flags > 0 && flags & FD_CLOEXEC ? O_CLOEXEC : 0;
    STASIS_TRY(int64_t placed,
               owner.call(SYS_dup3, std::array{argument(opened), argument(number), close_on_exec}));
    if (placed < 0) return cannot_make(record, "dup3", static_cast<int>(-placed));
  }
  STASIS_TRY(int64_t closed, owner.call(SYS_close, std::array{argument(opened)}));
  if (closed < 0) return cannot_make(record, "close", static_cast<int>(-closed));
  return {};
}

std::string ProcKind::summary(const Record& record) const {
  auto message = unpack<schema::ProcFile>(record);
  return message.ok() ? message->path() : std::string();
}

}  // namespace stasis::resource
