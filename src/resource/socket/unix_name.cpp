#include "resource/socket/unix_name.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <vector>

#include "kernel/proc.h"
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

// A relative path in an address counts from the current directory, an absolute one from the root directory,
// and the very text must come back: so go there for the time of the call.
class InDirectory {
 public:
  explicit InDirectory(const std::string& directory, const std::string& root = {}) {
    if (directory.empty() && root.empty()) return;
    before_.reset(open(".", O_PATH | O_DIRECTORY | O_CLOEXEC));
    ok_ = before_ && (directory.empty() || chdir(directory.c_str()) == 0);
    if (!ok_ || root.empty()) return;
    root_before_.reset(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    ok_ = root_before_ && chroot(root.c_str()) == 0;
    if (!ok_) root_before_.reset();
  }
  InDirectory(const InDirectory&) = delete;
  InDirectory& operator=(const InDirectory&) = delete;
  ~InDirectory() {
    if (root_before_) ok_ = fchdir(root_before_.get()) == 0 && chroot(".") == 0;
    if (before_) ok_ = fchdir(before_.get()) == 0 && ok_;
  }
  bool ok() const { return ok_; }

 private:
  Fd before_, root_before_;
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
Result<Fd> bind_anywhere(const Record& record, int fd) {
  sa_family_t family = AF_UNIX;
  if (bind_to(fd, {reinterpret_cast<char*>(&family), sizeof family}) < 0) return cannot_make(record, "bind");
  return Fd();
}

// Who may connect is decided by the file's owner and mode. Only root can give a file away; whoever is in a
// group may have given it to that. The mode comes last, as a change of the owner clears bits of it.
Result<void> give_file_back(const Record& record, const std::string& path,
                            const schema::UnixSocket& message) {
  if (message.file_owned() && lchown(path.c_str(), message.file_user(), message.file_group()) < 0 &&
      geteuid() == 0 && errno != EINVAL)
    return cannot_make(record, path, errno, "give it back to its owner");
  if (chmod(path.c_str(), message.file_mode()) < 0) return cannot_make(record, path);
  return {};
}

// Directories that are there only for a moment.
class MissingDirectories {
 public:
  // Makes what is missing above a path.
  explicit MissingDirectories(const std::string& path) {
    for (size_t slash = path.find('/', 1); slash != std::string::npos; slash = path.find('/', slash + 1)) {
      std::string directory = path.substr(0, slash);
      if (mkdir(directory.c_str(), 0700) == 0) made_.push_back(directory);
    }
  }
  MissingDirectories(const MissingDirectories&) = delete;
  MissingDirectories& operator=(const MissingDirectories&) = delete;
  ~MissingDirectories() {
    for (auto directory = made_.rbegin(); directory != made_.rend(); ++directory) rmdir(directory->c_str());
  }

 private:
  std::vector<std::string> made_;
};

// Puts a file aside for as long as it lives.
class PutAside {
 public:
  explicit PutAside(std::string path) : path_(std::move(path)), aside_(path_ + ".stasis-aside") {
    struct stat status = {};
    moved_ = lstat(path_.c_str(), &status) == 0 && rename(path_.c_str(), aside_.c_str()) == 0;
  }
  PutAside(const PutAside&) = delete;
  PutAside& operator=(const PutAside&) = delete;
  ~PutAside() {
    if (moved_) rename(aside_.c_str(), path_.c_str());
  }
  bool moved() const { return moved_; }

 private:
  std::string path_, aside_;
  bool moved_ = false;
};

// A relative path is bound from any directory as well as from the one that is gone, and an absolute one in
// any root directory.
class AnyDirectory {
 public:
  AnyDirectory() { made_ = mkdtemp(name_.data()) != nullptr; }
  AnyDirectory(const AnyDirectory&) = delete;
  AnyDirectory& operator=(const AnyDirectory&) = delete;
  ~AnyDirectory() {
    if (made_) rmdir(name_.data());
  }
  std::string path() const { return made_ ? std::string(name_.data()) : std::string(); }

 private:
  std::array<char, 32> name_ = {P_tmpdir "/stasis-socket-XXXXXX"};
  bool made_ = false;
};

enum class Afterwards { kRemove, kKeepIfAlone };

Result<Fd> bind_for_a_moment(const Record& record, int fd, const schema::UnixSocket& message,
                             Afterwards afterwards) {
  const std::string path = path_of(message.address());
  MissingDirectories above(path);
  PutAside other(path);
  if (bind_to(fd, message.address()) < 0) return bind_anywhere(record, fd);
  Fd handle(open(path.c_str(), O_PATH | O_CLOEXEC));
  const bool remove = afterwards == Afterwards::kRemove || other.moved();
  if (remove) unlink(path.c_str());
  if (!handle) return cannot_make(record, path);
  if (!remove) STASIS_CHECK(give_file_back(record, path, message));
  return handle;
}

Result<Fd> bind_removed(const Record& record, int fd, const schema::UnixSocket& message,
                        Afterwards afterwards) {
  const bool relative = path_of(message.address())[0] != '/';
  // Somewhere else, where that can be: a socket keeps the mount busy through which it was bound, and at the
  // name another one may hide that on which its file was.
  if (afterwards == Afterwards::kRemove) {
    AnyDirectory any;
    InDirectory there(relative ? any.path() : "", relative ? "" : any.path());
    if (!any.path().empty() && there.ok()) return bind_for_a_moment(record, fd, message, afterwards);
  }
  if (!relative) {
    InDirectory there({}, message.directory());
    if (!there.ok()) return bind_anywhere(record, fd);
    return bind_for_a_moment(record, fd, message, afterwards);
  }
  if (InDirectory there(message.directory()); there.ok())
    return bind_for_a_moment(record, fd, message, afterwards);
  return afterwards == Afterwards::kRemove ? bind_anywhere(record, fd)
                                           : bind_removed(record, fd, message, Afterwards::kRemove);
}

}  // namespace

Result<std::string> relocated(const std::string& address, const DescriptorKind::Place& place) {
  const std::string path = path_of(address);
  if (!path.starts_with('/')) return address;
  const std::string there = place(path);
  if (there.size() >= sizeof(sockaddr_un::sun_path))
    return Error{"restart", there, "this path is too long for a socket", {}, ErrorCode::kUsage};
  return address.substr(0, kPathStart) + there + '\0';
}

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
  std::array<char, 4096> directory;
  ssize_t length = readlink(root.c_str(), directory.data(), directory.size());
  if (length > 1) message.set_directory(directory.data(), static_cast<size_t>(length));
  if (path[0] != '/') {
    message.set_directory(working_directory(file.task));
    path = message.directory() + "/" + path;
    // The kernel shows it from the root of everything.
    root = fmt::format("/proc/{}/cwd/", file.task);
    path = path_of(address);
  }
  struct stat status = {};
  bool found = stat((root + path).c_str(), &status) == 0 && S_ISSOCK(status.st_mode) && diag.file &&
               *diag.file == static_cast<uint32_t>(status.st_ino);
  message.set_name_removed(!found);
  if (!found) return;
  message.set_file_mode(status.st_mode & 07777);
  message.set_file_user(status.st_uid);
  message.set_file_group(status.st_gid);
  message.set_file_owned(true);
}

namespace {

// What is in flight in a circle keeps its names after the program's end until the kernel's collector of
// garbage has come by, which works beside us. It is waited for once: a name may be taken for good, and by a
// thousand.
int bind_abstract(int fd, const std::string& address) {
  static bool waited = false;
  constexpr int kLooks = 50;
  for (int look = 0;; ++look) {
    if (bind_to(fd, address) == 0) return 0;
    if (errno != EADDRINUSE || waited) return -1;
    if (look == kLooks) break;
    // The closing of a unix socket sends for the collector.
    { Fd any(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)); }
    timespec moment{0, 10'000'000};
    nanosleep(&moment, nullptr);
  }
  waited = true;
  errno = EADDRINUSE;
  return -1;
}

}  // namespace

Result<Fd> bind_unix(const Record& record, int fd, const schema::UnixSocket& message) {
  if (message.address().empty()) return Fd();
  std::string path = path_of(message.address());
  if (path.empty()) {
    if (bind_abstract(fd, message.address()) < 0) {
      return cannot_make(
          record, unix_name(message.address()), errno,
          errno == EADDRINUSE ? "another program has this name; is the session itself still running?" : "");
    }
    return Fd();
  }
  if (message.name_removed()) return bind_removed(record, fd, message, Afterwards::kRemove);
  const bool relative = path[0] != '/';
  InDirectory there(relative ? message.directory() : "", relative ? "" : message.directory());
  if (!there.ok()) return cannot_make(record, message.directory());
  STASIS_CHECK(remove_stale(record, path, message));
  if (bind_to(fd, message.address()) < 0) return cannot_make(record, path);
  STASIS_CHECK(give_file_back(record, path, message));
  return Fd();
}

Result<Fd> bind_unix_again(const Record& record, int fd, const schema::UnixSocket& message) {
  if (message.address().empty()) return Fd();
  if (path_of(message.address()).empty()) {
    // Of an abstract name there is one socket only, and a name that is taken is not worth failing for.
    if (bind_abstract(fd, message.address()) < 0 && errno != EADDRINUSE)
      return cannot_make(record, unix_name(message.address()));
    return Fd();
  }
  return bind_removed(record, fd, message,
                      message.name_removed() ? Afterwards::kRemove : Afterwards::kKeepIfAlone);
}

namespace {

std::string address_of_handle(int handle) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  auto end =
      fmt::format_to_n(address.sun_path, sizeof address.sun_path - 1, "{}", kernel::own_descriptor(handle));
  return {reinterpret_cast<char*>(&address), kPathStart + end.size + 1};
}

}  // namespace

Reach::Reach(const schema::UnixSocket& target, int handle)
    : address_(handle < 0 ? target.address() : address_of_handle(handle)) {
  if (handle >= 0) return;
  (path_of(address_).starts_with('/') ? root_ : directory_) = target.directory();
}

int Reach::connect(int fd) const {
  InDirectory there(directory_, root_);
  return there.ok() ? connect_to(fd, address_) : -1;
}

Result<void> Reach::with_address(const Record& record,
                                 const std::function<Result<void>(const std::string& address)>& use) const {
  InDirectory there(directory_, root_);
  if (!there.ok()) return cannot_make(record, directory_ + root_);
  return use(address_);
}

}  // namespace stasis::resource
