#include "resource/file/locks.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/syscall.h>

#include <array>
#include <sstream>

#include "resource/refusal.h"

namespace stasis::resource {
namespace {

constexpr std::string_view kLockHint =
    "another program holds a lock on it: a second copy of the same session, perhaps";

struct flock as_flock(const schema::FileLock& lock) {
  struct flock result = {};
  result.l_type = lock.exclusive() ? F_WRLCK : F_RDLCK;
  result.l_whence = SEEK_SET;
  result.l_start = static_cast<off_t>(lock.start());
  result.l_len = static_cast<off_t>(lock.length());
  return result;
}

}  // namespace

// "lock:\t1: POSIX  ADVISORY  WRITE 4711 fe:01:1234 0 EOF"
Result<void> observe_locks(const OpenFile& file, schema::File& message) {
  std::istringstream lines(file.fdinfo);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("lock:")) continue;
    std::istringstream words(line);
    std::string key, number, kind, advisory, type, pid, inode, start, end;
    words >> key >> number >> kind >> advisory >> type >> pid >> inode >> start >> end;
    auto* lock = message.add_locks();
    if (kind == "FLOCK") {
      lock->set_kind(schema::FileLock::FLOCK);
    } else if (kind == "OFDLCK") {
      lock->set_kind(schema::FileLock::OFD);
    } else if (kind == "POSIX") {
      lock->set_kind(schema::FileLock::PROCESS);
    } else {
      return refusal(file, fmt::format("it has a lock of a kind that cannot be restored: {}", kind),
                     "leases and delegations are given up when another program opens the file");
    }
    lock->set_exclusive(type == "WRITE");
    lock->set_start(strtoull(start.c_str(), nullptr, 10));
    if (end != "EOF") lock->set_length(strtoull(end.c_str(), nullptr, 10) - lock->start() + 1);
  }
  return {};
}

Result<void> lock_description(const Record& record, int fd, const schema::File& message) {
  for (const auto& lock : message.locks()) {
    int result = 0;
    if (lock.kind() == schema::FileLock::FLOCK) {
      result = flock(fd, (lock.exclusive() ? LOCK_EX : LOCK_SH) | LOCK_NB);
    } else if (lock.kind() == schema::FileLock::OFD) {
      struct flock wanted = as_flock(lock);
      result = fcntl(fd, F_OFD_SETLK, &wanted);
    }
    if (result < 0)
      return cannot_make(record, fmt::format("lock {}", message.path()), errno, std::string(kLockHint));
  }
  return {};
}

Result<void> lock_as_process(const Record& record, Finishing& owner, const schema::File& message) {
  for (const auto& lock : message.locks()) {
    if (lock.kind() != schema::FileLock::PROCESS) continue;
    struct flock wanted = as_flock(lock);
    STASIS_TRY(RemotePtr address, owner.put(std::as_bytes(std::span(&wanted, 1))));
    std::array arguments = {static_cast<uint64_t>(owner.number()), uint64_t{F_SETLK}, address.value};
    STASIS_TRY(int64_t result, owner.call(SYS_fcntl, arguments));
    if (result < 0) {
      return cannot_make(record, fmt::format("lock {}", message.path()), static_cast<int>(-result),
                         std::string(kLockHint));
    }
  }
  return {};
}

}  // namespace stasis::resource
