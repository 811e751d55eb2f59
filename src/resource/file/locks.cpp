#include "resource/file/locks.h"

#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <optional>
#include <sstream>

#include "kernel/proc.h"
#include "resource/refusal.h"

namespace stasis::resource {
namespace {

// One line of /proc/locks, or what follows "lock:" in fdinfo.
// "1: POSIX  ADVISORY  WRITE 4711 fe:01:1234 0 EOF"
struct LockLine {
  std::string kind;
  std::string mode, type;
  bool exclusive = false;
  HostTid holder;
  std::string file;
  uint64_t start = 0;
  uint64_t length = 0;  // 0: to the end of the file
};

std::optional<LockLine> parse_lock(const std::string& text) {
  std::istringstream words(text);
  LockLine lock;
  std::string number, start, end;
  words >> number >> lock.kind >> lock.mode >> lock.type >> lock.holder.value >> lock.file >> start >> end;
  if (words.fail() || lock.kind == "->") return std::nullopt;  // somebody who waits for one
  lock.exclusive = lock.type == "WRITE";
  lock.start = strtoull(start.c_str(), nullptr, 10);
  if (end != "EOF") lock.length = strtoull(end.c_str(), nullptr, 10) - lock.start + 1;
  return lock;
}

std::vector<LockLine> locks_of(const OpenFile& file) {
  constexpr std::string_view kKey = "lock:";
  std::vector<LockLine> locks;
  std::istringstream lines(file.fdinfo);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(kKey)) continue;
    if (auto lock = parse_lock(line.substr(kKey.size()))) locks.push_back(*lock);
  }
  return locks;
}

template <typename Lock>
struct flock to_flock(const Lock& lock) {
  struct flock result = {};
  result.l_type = lock.exclusive() ? F_WRLCK : F_RDLCK;
  result.l_whence = SEEK_SET;
  result.l_start = static_cast<off_t>(lock.start());
  result.l_len = static_cast<off_t>(lock.length());
  return result;
}

bool overlap(const LockLine& held, const struct flock& wanted) {
  auto end = [](uint64_t start, uint64_t length) { return length == 0 ? UINT64_MAX : start + length; };
  auto start = static_cast<uint64_t>(wanted.l_start), length = static_cast<uint64_t>(wanted.l_len);
  return held.start < end(start, length) && start < end(held.start, held.length);
}

std::string range(const struct flock& lock) {
  if (lock.l_len == 0)
    return lock.l_start == 0 ? "the whole file" : fmt::format("bytes from {}", lock.l_start);
  return fmt::format("bytes {} to {}", lock.l_start, lock.l_start + lock.l_len - 1);
}

// From /proc/locks of the host, since the holder need not be in the session.
std::string describe_holder(int fd, const struct flock& wanted) {
  struct stat status = {};
  Fd list(openat(kernel::host_proc(), "locks", O_RDONLY | O_CLOEXEC));
  if (!list || fstat(fd, &status) != 0) return "somebody";
  std::string file =
      fmt::format("{:02x}:{:02x}:{}", major(status.st_dev), minor(status.st_dev), status.st_ino);
  std::string text, buffer(1 << 16, '\0');
  for (ssize_t count; (count = read(list.get(), buffer.data(), buffer.size())) > 0;)
    text.append(buffer, 0, static_cast<size_t>(count));
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    auto lock = parse_lock(line);
    if (!lock || lock->file != file || !overlap(*lock, wanted)) continue;
    if (!lock->exclusive && wanted.l_type != F_WRLCK) continue;
    if (lock->holder.value <= 0) break;  // of an open file description, which several may have
    auto stat = kernel::read_stat(lock->holder);
    return stat.ok() ? fmt::format("process {} ({})", lock->holder, stat->comm)
                     : fmt::format("process {}", lock->holder);
  }
  return "another process";
}

}  // namespace

Result<void> observe_locks(const OpenFile& file, const Observation& tree, schema::Description& out) {
  for (const LockLine& line : locks_of(file)) {
    if (line.kind == "POSIX") continue;
    if (line.kind != "FLOCK" && line.kind != "OFDLCK" && line.kind != "LEASE") {
      return refusal(file, fmt::format("it has a lock of a kind that cannot be restored: {}", line.kind),
                     "delegations are given up when another program opens the file");
    }
    auto* lock = out.add_locks();
    lock->set_kind(line.kind == "FLOCK"   ? schema::FileLock::FLOCK
                   : line.kind == "LEASE" ? schema::FileLock::LEASE
                                          : schema::FileLock::OFD);
    lock->set_breaking(line.kind == "LEASE" && line.mode == "BREAKING");
    lock->set_released(line.kind == "LEASE" && line.type == "UNLCK");
    lock->set_exclusive(line.exclusive);
    lock->set_start(line.start);
    lock->set_length(line.length);
    // An OFD lock has none. Who is gone is shown by a number that means nobody.
    if (line.holder.value > 0) lock->set_holder(tree.session_task(line.holder).value);
  }
  return {};
}

bool has_write_lease(const OpenFile& file) {
  for (const LockLine& line : locks_of(file)) {
    if (line.kind == "LEASE" && (line.exclusive || line.mode == "BREAKING")) return true;
  }
  return false;
}

std::vector<schema::RecordLock> record_locks(const OpenFile& file) {
  std::vector<schema::RecordLock> locks;
  for (const LockLine& line : locks_of(file)) {
    if (line.kind != "POSIX") continue;
    schema::RecordLock& lock = locks.emplace_back();
    lock.set_number(file.number);
    lock.set_exclusive(line.exclusive);
    lock.set_start(line.start);
    lock.set_length(line.length);
  }
  return locks;
}

bool shows_holder(const schema::FileLock& lock) {
  return lock.kind() == schema::FileLock::FLOCK && lock.holder() != 0;
}

int flock_operation(const schema::FileLock& lock) { return (lock.exclusive() ? LOCK_EX : LOCK_SH) | LOCK_NB; }

Result<void> lock_description(const schema::Description& description, int fd) {
  for (const auto& lock : description.locks()) {
    if (lock.kind() == schema::FileLock::LEASE || shows_holder(lock)) continue;
    struct flock wanted = to_flock(lock);
    int result = lock.kind() == schema::FileLock::FLOCK ? flock(fd, flock_operation(lock))
                                                        : fcntl(fd, F_OFD_SETLK, &wanted);
    if (result < 0) return lock_refused(description.shown(), fd, wanted, errno);
  }
  return {};
}

// One that is being broken is shown as what it has to become. What it was is seen by whoever opens the file
// only: a read lease needs a file that nobody has open for writing.
int lease_type(const schema::FileLock& lock, uint32_t flags) {
  if (!lock.breaking()) return lock.exclusive() ? F_WRLCK : F_RDLCK;
  return lock.released() && (flags & O_ACCMODE) == O_RDONLY ? F_RDLCK : F_WRLCK;
}

struct flock as_flock(const schema::RecordLock& lock) {
  return to_flock(lock);
}

struct flock as_flock(const schema::FileLock& lock) {
  return to_flock(lock);
}

Error lock_refused(const std::string& shown, int fd, const struct flock& wanted, int error) {
  std::string step = fmt::format("restart: lock {} of a file", range(wanted));
  if (error != EAGAIN && error != EACCES) return errno_error(step, shown, error);
  return Error{step, shown, fmt::format("{} holds a lock on it", describe_holder(fd, wanted)),
               "a second copy of the same session, perhaps; end it, or wait until it gives the lock up",
               ErrorCode::kBusy};
}

}  // namespace stasis::resource
