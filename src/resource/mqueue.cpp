#include "resource/mqueue.h"

#include <fcntl.h>
#include <mqueue.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>

#include "resource/payload.h"
#include "resource/refusal.h"
#include "resource/reopen.h"

namespace stasis::resource {
namespace {

constexpr auto kMagic = 0x19800202;  // not in the kernel's public headers

// The limits of the kernel's that nobody can lift.
constexpr int64_t kMostMessages = 65536;
constexpr int64_t kLargestMessage = 16 << 20;
constexpr uint64_t kMostBytes = uint64_t{1} << 30;

struct Attributes {  // struct mq_attr of the kernel
  int64_t flags, most_messages, message_size, messages, reserved[4];
};

std::string object_key(const schema::PosixQueue& queue) { return fmt::format("mqueue:{}", queue.inode()); }

Result<Attributes> attributes_of(int fd) {
  Attributes attributes = {};
  if (syscall(SYS_mq_getsetattr, fd, nullptr, &attributes) < 0)
    return errno_error("look at a message queue", {});
  return attributes;
}

// No message may be lost when we are killed, so another process does it, in one go.
Result<void> take_and_put_back(int fd, const Attributes& attributes, schema::PosixQueue& out) {
  const auto each = static_cast<size_t>(attributes.message_size) + 2 * sizeof(uint32_t);
  const size_t size = 4096 + each * static_cast<size_t>(attributes.messages);
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return errno_error("read a message queue", {});
  auto* count = static_cast<int64_t*>(memory);
  auto* sizes = reinterpret_cast<uint32_t*>(static_cast<char*>(memory) + 4096);
  uint32_t* priorities = sizes + attributes.messages;
  char* texts = reinterpret_cast<char*>(priorities + attributes.messages);
  const pid_t pid = fork();
  if (pid == 0) {
    setsid();
    const auto most = static_cast<size_t>(attributes.message_size);
    int64_t taken = 0;
    for (; taken < attributes.messages; ++taken) {
      long got = syscall(SYS_mq_timedreceive, fd, texts + static_cast<size_t>(taken) * most, most,
                         priorities + taken, nullptr);
      if (got < 0) break;
      sizes[taken] = static_cast<uint32_t>(got);
    }
    int64_t back = 0;
    while (back < taken && syscall(SYS_mq_timedsend, fd, texts + static_cast<size_t>(back) * most,
                                   sizes[back], priorities[back], nullptr) == 0)
      ++back;
    *count = taken;
    _exit(back == taken ? 0 : 1);
  }
  int status = 1;
  while (pid > 0 && waitpid(pid, &status, __WALL) < 0 && errno == EINTR) {
  }
  const bool complete = pid > 0 && status == 0 && *count == attributes.messages;
  for (int64_t i = 0; complete && i < attributes.messages; ++i) {
    auto* message = out.add_messages();
    message->set_priority(priorities[i]);
    message->set_text(std::string(texts + i * attributes.message_size, sizes[i]));
  }
  munmap(memory, size);
  if (!complete) return Error{"read a message queue", {}, "its messages could not be read", "try again"};
  return {};
}

// "QSIZE:129 NOTIFY:2 SIGNO:0 NOTIFY_PID:8260"; the number is that of a process as we see it.
struct Notification {
  int notify = 0;
  int signal = 0;
  HostTid pid;
};

Result<Notification> notification_of(int fd) {
  std::array<char, 256> text = {};
  if (pread(fd, text.data(), text.size() - 1, 0) < 0) return errno_error("read a message queue", {});
  Notification result;
  const char* rest = strstr(text.data(), "NOTIFY:");
  if (rest != nullptr)
    sscanf(rest, "NOTIFY:%d SIGNO:%d NOTIFY_PID:%d", &result.notify, &result.signal, &result.pid.value);
  return result;
}

// What is not allowed to be larger than the system's limits needs CAP_SYS_RESOURCE.
Error cannot_make_queue(const schema::PosixQueue& queue, int error) {
  return errno_error(
      "restore a message queue", "/" + queue.name(), error,
      error == EINVAL ? "it is larger than /proc/sys/fs/mqueue allows: raise msg_max and msgsize_max" : "");
}

}  // namespace

Result<void> read_queue(int fd, schema::PosixQueue& out) {
  STASIS_TRY(Attributes attributes, attributes_of(fd));
  struct stat status = {};
  if (fstat(fd, &status) < 0) return errno_error("look at a message queue", {});
  out.set_inode(status.st_ino);
  out.set_most_messages(attributes.most_messages);
  out.set_message_size(attributes.message_size);
  out.set_mode(status.st_mode & 07777);
  out.set_user(status.st_uid);
  out.set_group(status.st_gid);
  if (attributes.messages == 0) return {};
  // Its own description waits for nothing.
  STASIS_TRY(Fd own, reopen(fd, O_RDWR | O_NONBLOCK));
  return take_and_put_back(own.get(), attributes, out);
}

namespace {

// One that was removed may have had the name of another one.
std::string name_for(const schema::PosixQueue& queue) {
  return queue.removed() ? fmt::format("stasis-{}-{}", getpid(), queue.inode()) : queue.name();
}

// With its messages, and for its maker alone.
Result<Fd> create_queue(const schema::PosixQueue& queue) {
  const auto size = static_cast<uint64_t>(queue.message_size());
  if (queue.most_messages() < 1 || queue.most_messages() > kMostMessages || queue.message_size() < 1 ||
      queue.message_size() > kLargestMessage || queue.messages_size() > queue.most_messages() ||
      size * static_cast<uint64_t>(queue.most_messages()) > kMostBytes) {
    return Error{
        "restore a message queue", "/" + queue.name(), "its size makes no sense", {}, ErrorCode::kDamaged};
  }
  Attributes attributes = {};
  attributes.most_messages = queue.most_messages();
  attributes.message_size = queue.message_size();
  constexpr int kFlags = O_CREAT | O_EXCL | O_RDWR | O_NONBLOCK | O_CLOEXEC;
  Fd fd(static_cast<int>(syscall(SYS_mq_open, name_for(queue).c_str(), kFlags, 0600, &attributes)));
  if (!fd) return cannot_make_queue(queue, errno);
  for (const auto& message : queue.messages()) {
    if (syscall(SYS_mq_timedsend, fd.get(), message.text().data(), message.text().size(), message.priority(),
                nullptr) < 0)
      return cannot_make_queue(queue, errno);
  }
  return fd;
}

Result<void> give_away(int fd, const schema::PosixQueue& queue) {
  if (fchown(fd, queue.user(), queue.group()) < 0 && geteuid() == 0) return cannot_make_queue(queue, errno);
  if (fchmod(fd, queue.mode()) < 0) return cannot_make_queue(queue, errno);
  return {};
}

}  // namespace

Result<Fd> make_queue(const schema::PosixQueue& queue) {
  STASIS_TRY(Fd fd, create_queue(queue));
  STASIS_CHECK(give_away(fd.get(), queue));
  return fd;
}

KindInfo MessageQueueKind::info() const {
  return {"mqueue", "Descriptors",
          "POSIX message queues: names, attributes, messages, who is notified by a signal", Support::kPartial,
          "the kernel does not tell the value that comes with the signal of mq_notify; a notification by a "
          "thread "
          "is refused"};
}

bool MessageQueueKind::recognises(const OpenFile& file, const Observation&) const {
  struct statfs fs = {};
  return S_ISREG(file.status.st_mode) && fstatfs(file.duplicate.get(), &fs) == 0 && fs.f_type == kMagic;
}

Result<std::string> MessageQueueKind::observe(const OpenFile& file, Observation& tree) const {
  schema::PosixQueue queue;
  NamedPath name = name_of(file);
  constexpr std::string_view kDeleted = " (deleted)";
  const bool removed = file.link.ends_with(kDeleted) && file.status.st_nlink == 0;
  queue.set_removed(removed);
  queue.set_name(name.path.substr(1, removed && name.path.ends_with(kDeleted)
                                         ? name.path.size() - 1 - kDeleted.size()
                                         : std::string::npos));
  // A description of our own, since the program's may be for writing only.
  auto own = reopen(file.duplicate.get(), O_RDONLY | O_NONBLOCK);
  if (!own.ok())
    return refusal(file, "it cannot be looked at: " + own.error().cause, "checkpoint it as root");
  STASIS_TRY(Notification notification, notification_of(own->get()));
  const auto& queues = tree.index("message queues", [this, &tree](const OpenFile& other) {
    return recognises(other, tree) ? fmt::to_string(other.status.st_ino) : std::string();
  });
  bool is_first = true;
  auto [first, last] = queues.equal_range(fmt::to_string(file.status.st_ino));
  for (auto entry = first; entry != last; ++entry) is_first = is_first && entry->second->id >= file.id;
  if (!is_first) {
    queue.set_inode(file.status.st_ino);
    return pack(queue);
  }
  if (notification.pid.value != 0) {
    STASIS_TRY(Attributes attributes, attributes_of(own->get()));
    if (attributes.messages > 0) {
      return refusal_for_now(file, "a process is to be told of its next message, and it is not empty",
                             "let the program receive its messages");
    }
    if (notification.notify == SIGEV_THREAD)
      return refusal(file, "a thread is to be started by its next message (mq_notify with SIGEV_THREAD)",
                     "let the program use a signal");
    queue.set_notified(tree.session_task(notification.pid).value);
    if (queue.notified() != file.pid.value)
      return refusal(
          file,
          fmt::format("task {}, which did not open it, is to be told of its next message", queue.notified()),
          "let the process that opens a queue ask for notification");
    queue.set_notify(notification.notify);
    queue.set_signal(notification.signal);
    if (notification.notify == SIGEV_SIGNAL)
      tree.warn(fmt::format("{}: the value that comes with the signal of mq_notify is 0 after a restart",
                            file.describe()));
  }
  if (auto read = read_queue(own->get(), queue); !read.ok())
    return refusal(file, "its messages cannot be read: " + read.error().cause, "checkpoint it as root");
  return pack(queue);
}

Result<Fd> MessageQueueKind::make(const Record& record, Making& context) const {
  STASIS_TRY(auto queue, unpack<schema::PosixQueue>(record));
  Fd& object = context.shared_objects()[object_key(queue)];
  // The first description of a queue has all of it.
  for (const Record& other : context.records()) {
    if (object) break;
    if (other.kind != record.kind) continue;
    STASIS_TRY(auto first, unpack<schema::PosixQueue>(other));
    if (first.inode() != queue.inode() || first.most_messages() == 0) continue;
    STASIS_TRY(object, create_queue(first));
  }
  if (!object) return cannot_make(record, "the queue", ENOENT);
  const uint32_t flags = (record.flags & (O_ACCMODE | O_NONBLOCK)) | O_CLOEXEC;
  Fd fd(static_cast<int>(syscall(SYS_mq_open, name_for(queue).c_str(), flags, 0, nullptr)));
  if (!fd) return cannot_make(record, "mq_open");
  return fd;
}

// When all are open: the mode may forbid it, and it may have no name.
Result<void> MessageQueueKind::fill(const Record& record, int, Making& context) const {
  STASIS_TRY(auto queue, unpack<schema::PosixQueue>(record));
  if (queue.most_messages() == 0) return {};
  STASIS_CHECK(give_away(context.shared_objects()[object_key(queue)].get(), queue));
  if (queue.removed() && syscall(SYS_mq_unlink, name_for(queue).c_str()) < 0)
    return cannot_make_queue(queue, errno);
  return {};
}

Result<void> MessageQueueKind::finish(const Record& record, Finishing& owner) const {
  STASIS_TRY(auto queue, unpack<schema::PosixQueue>(record));
  if (queue.notified() == 0) return {};
  sigevent event = {};
  event.sigev_notify = queue.notify();
  event.sigev_signo = queue.signal();
  STASIS_TRY(RemotePtr place, owner.put(std::as_bytes(std::span(&event, 1))));
  STASIS_TRY(int64_t result,
             owner.call(SYS_mq_notify, std::array{static_cast<uint64_t>(owner.number()), place.value}));
  if (result < 0) return cannot_make(record, "mq_notify", static_cast<int>(-result));
  return {};
}

std::string MessageQueueKind::summary(const Record& record) const {
  auto queue = unpack<schema::PosixQueue>(record);
  if (!queue.ok()) return {};
  return fmt::format("/{}, {} messages", queue->name(), queue->messages_size());
}

}  // namespace stasis::resource
