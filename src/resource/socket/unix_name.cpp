#include "resource/socket/unix_name.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>

#include "resource/refusal.h"
#include "resource/socket/socket.h"

namespace stasis::resource {
namespace {

constexpr size_t kPathStart = offsetof(sockaddr_un, sun_path);

// Empty for abstract names and for none.
std::string path_of(const std::string& address) {
  if (address.size() <= kPathStart || address[kPathStart] == 0) return {};
  return std::string(address.c_str() + kPathStart);
}

// A relative path in an address counts from the current directory, and the very text must come back: so go
// there for the time of the call.
class InDirectory {
 public:
  explicit InDirectory(const std::string& directory) {
    if (directory.empty()) return;
    before_.reset(open(".", O_PATH | O_DIRECTORY | O_CLOEXEC));
    ok_ = before_ && chdir(directory.c_str()) == 0;
  }
  InDirectory(const InDirectory&) = delete;
  InDirectory& operator=(const InDirectory&) = delete;
  ~InDirectory() {
    if (before_ && ok_) ok_ = fchdir(before_.get()) == 0;
  }
  bool ok() const { return ok_; }

 private:
  Fd before_;
  bool ok_ = true;
};

std::string working_directory(HostTid task) {
  std::array<char, 4096> buffer;
  ssize_t length = readlink(fmt::format("/proc/{}/cwd", task).c_str(), buffer.data(), buffer.size());
  return length > 0 ? std::string(buffer.data(), static_cast<size_t>(length)) : std::string();
}

enum class InUse { kNo, kYes, kUnknown };

// Connecting is the only way to learn whether a socket file still has a socket.
InUse has_socket(const std::string& address, int type) {
  Fd probe(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe) return InUse::kUnknown;
  if (connect_to(probe.get(), address) == 0) return InUse::kYes;
  if (errno == ECONNREFUSED) {
    // A stream socket that is bound and does not listen refuses, too; a connection of another type tells them
    // apart.
    Fd other(::socket(AF_UNIX, (type == SOCK_DGRAM ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0));
    if (!other || connect_to(other.get(), address) == 0) return InUse::kUnknown;
    return errno == ECONNREFUSED ? InUse::kNo : InUse::kYes;
  }
  return errno == EACCES ? InUse::kUnknown : InUse::kYes;
}

Result<void> remove_stale(const Record& record, const std::string& path, const schema::UnixSocket& message) {
  struct stat status = {};
  if (lstat(path.c_str(), &status) < 0) return {};
  std::string step = "restore " + record.describe();
  if (!S_ISSOCK(status.st_mode)) {
    return Error{step, path, "there is a file of another kind where the program had a socket",
                 "move it away"};
  }
  if (has_socket(message.address(), message.type()) != InUse::kNo) {
    return Error{step, path, "another program is using this socket",
                 "end it first; is the session itself still running?", ErrorCode::kBusy};
  }
  if (unlink(path.c_str()) < 0) return cannot_make(record, path, errno, "remove this stale socket");
  return {};
}

// A socket whose file is gone cannot be reached by its name any more, and the name may belong to another
// socket now. The kernel chooses an abstract name instead: a listener must have some.
Result<void> bind_anywhere(const Record& record, int fd) {
  sa_family_t family = AF_UNIX;
  if (bind_to(fd, {reinterpret_cast<char*>(&family), sizeof family}) < 0) return cannot_make(record, "bind");
  return {};
}

}  // namespace

std::string unix_name(const std::string& address) {
  if (address.size() <= kPathStart) return {};
  if (std::string path = path_of(address); !path.empty()) return path;
  return "@" + address.substr(kPathStart + 1);
}

void observe_unix_name(const OpenFile& file, const UnixDiag& diag, schema::UnixSocket& message) {
  std::string address = local_address(file.duplicate.get());
  if (address.size() <= kPathStart) return;
  message.set_address(address);
  std::string path = path_of(address);
  if (path.empty()) return;
  std::string root = fmt::format("/proc/{}/root", file.task);
  if (path[0] != '/') {
    message.set_directory(working_directory(file.task));
    path = message.directory() + "/" + path;
  }
  struct stat status = {};
  bool found = stat((root + path).c_str(), &status) == 0 && S_ISSOCK(status.st_mode) && diag.file &&
               *diag.file == static_cast<uint32_t>(status.st_ino);
  message.set_name_removed(!found);
  message.set_file_mode(found ? status.st_mode & 07777 : 0);
}

Result<void> bind_unix(const Record& record, int fd, const schema::UnixSocket& message) {
  if (message.address().empty()) return {};
  std::string path = path_of(message.address());
  if (path.empty()) {
    if (bind_to(fd, message.address()) < 0) {
      return cannot_make(
          record, unix_name(message.address()), errno,
          errno == EADDRINUSE ? "another program has this name; is the session itself still running?" : "");
    }
    return {};
  }
  if (message.name_removed()) return bind_anywhere(record, fd);
  InDirectory there(message.directory());
  if (!there.ok()) return cannot_make(record, message.directory());
  STASIS_CHECK(remove_stale(record, path, message));
  if (bind_to(fd, message.address()) < 0) return cannot_make(record, path);
  if (chmod(path.c_str(), message.file_mode()) < 0) return cannot_make(record, path);
  return {};
}

int connect_unix(int fd, const schema::UnixSocket& listener) {
  InDirectory there(listener.directory());
  return there.ok() ? connect_to(fd, listener.address()) : -1;
}

}  // namespace stasis::resource
