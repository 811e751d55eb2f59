#include "resource/terminal/pty.h"

#include <asm/termbits.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/tty.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <vector>

#include "resource/file_search.h"
#include "resource/payload.h"
#include "resource/refusal.h"
#include "resource/reopen.h"
#include "resource/terminal/buffers.h"
#include "resource/terminal/tty.h"
#include "schema/kinds/terminal.pb.h"

namespace stasis::resource {
namespace {

// How many masters are opened to get the old number back before any will do.
constexpr size_t kMostSurplus = 256;

std::string master_key(const schema::Pty& message) {
  return fmt::format("pty: {} of {}", message.index(), message.instance());
}

// The file system that a master or slave is in, when it is not the session's: each numbers its own. A master
// that was opened at /dev/ptmx is in what is mounted beside that.
uint64_t own_instance(const OpenFile& file) {
  struct statfs fs = {};
  if (fstatfs(file.duplicate.get(), &fs) != 0 || fs.f_type != DEVPTS_SUPER_MAGIC) return 0;
  struct stat common = {};
  return stat("/dev/pts", &common) == 0 && common.st_dev == file.status.st_dev ? 0 : file.status.st_dev;
}

std::string number_in_instance(const OpenFile& file, uint32_t index) {
  return fmt::format("{} of {}", index, own_instance(file));
}

Fd open_master(const schema::Pty& message) {
  if (message.instance() == 0) return Fd(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  return Fd(open(message.multiplexer().c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC));
}

// The kernel gives the lowest free number. When the old one is free, all lower ones that are free come first.
Result<Fd> new_master(const Record& record, const schema::Pty& message) {
  const uint32_t wanted = message.index();
  std::vector<Fd> surplus;
  for (;;) {
    Fd master = open_master(message);
    if (!master) return cannot_make(record, message.instance() == 0 ? "posix_openpt" : message.multiplexer());
    uint32_t index = tty_index(master.get());
    if (index >= wanted || surplus.size() == kMostSurplus) return master;
    surplus.push_back(std::move(master));
  }
}

// The inode of the slave. By the master, not by a path; and it is not opened as a terminal, which would leave
// a mark.
Fd slave_inode(int master) { return Fd(ioctl(master, TIOCGPTPEER, O_PATH | O_CLOEXEC)); }

void observe_inode(int master, schema::Pty& message) {
  struct stat status = {};
  Fd inode = slave_inode(master);
  if (!inode || fstat(inode.get(), &status) != 0) return;
  message.set_user(status.st_uid);
  message.set_group(status.st_gid);
  message.set_mode(status.st_mode);
}

// It was born with what the file system gives it: whoever may not change that has what it would have had
// then.
Result<void> set_inode(const Record& record, int master, const schema::Pty& message) {
  if (message.mode() == 0) return {};
  struct stat status = {};
  Fd inode = slave_inode(master);
  if (!inode || fstat(inode.get(), &status) != 0) return cannot_make(record, "look at the slave");
  if (status.st_uid != message.user() || status.st_gid != message.group()) {
    if (fchownat(inode.get(), "", message.user(), message.group(), AT_EMPTY_PATH) != 0 && errno != EPERM)
      return cannot_make(record, "chown the slave");
  }
  if (status.st_mode == message.mode()) return {};
  if (chmod(fmt::format("/proc/self/fd/{}", inode.get()).c_str(), message.mode() & 07777) != 0)
    return cannot_make(record, "chmod the slave");
  return {};
}

// What both sides share is set through the master: opening a slave for it would leave a mark when it is
// closed again.
Result<Fd*> pair_of(const Record& record, const schema::Pty& message, Making& context) {
  Fd& master = context.shared_objects()[master_key(message)];
  if (master) return &master;
  STASIS_TRY(master, new_master(record, message));
  int unlocked = 0;
  if (ioctl(master.get(), TIOCSPTLCK, &unlocked) < 0) return cannot_make(record, "unlock the terminal");
  if (message.attributes().size() == sizeof(termios2) &&
      ioctl(master.get(), TCSETS2, message.attributes().data()) < 0) {
    return cannot_make(record, "set the attributes of the terminal");
  }
  if (message.window().size() == kWindowSize &&
      ioctl(master.get(), TIOCSWINSZ, message.window().data()) < 0) {
    return cannot_make(record, "set the size of the terminal");
  }
  return &master;
}

bool has_master(const OpenFile& slave, const Observation& tree) {
  const auto& masters = tree.index("ptys: masters", [](const OpenFile& file) {
    return is_master(file) ? number_in_instance(file, tty_index(file.duplicate.get())) : std::string();
  });
  return masters.contains(number_in_instance(slave, minor(tty_device(slave.duplicate.get()))));
}

bool is_hung_up(int fd) {
  pollfd state = {fd, 0, 0};
  return poll(&state, 1, 0) > 0 && state.revents & POLLHUP;
}

std::string slave_key(const schema::Pty& message) {
  return fmt::format("pty slave: {} of {}", message.index(), message.instance());
}

// Of a master. Without a slave nothing can be asked: opening the first one would leave a mark.
void observe_buffers(const OpenFile& file, Observation& tree, schema::Pty& message) {
  const auto& slaves = tree.index("ptys: slaves", [](const OpenFile& other) {
    if (is_master(other) || !is_terminal(other)) return std::string();
    uint64_t device = tty_device(other.duplicate.get());
    return is_pty_slave(device) ? number_in_instance(other, minor(device)) : std::string();
  });
  if (!slaves.contains(number_in_instance(file, message.index()))) return;
  auto content = look_into_buffers(file.duplicate.get());
  if (!content) {
    tree.warn(fmt::format("{}: input and output that nobody has read yet are missing after a restart",
                          file.describe()));
    return;
  }
  if (content->input.lines_size() > 0 || !content->input.rest().empty())
    *message.mutable_input() = std::move(content->input);
  message.set_output(std::move(content->output));
}

bool has_content(const schema::Pty& message) { return message.has_input() || !message.output().empty(); }

bool is_sane(const schema::Pty& message) {
  size_t typed = message.input().rest().size();
  for (const auto& line : message.input().lines()) typed += line.size() + 1;
  return typed <= kMostBuffered && message.output().size() <= kMostBuffered;
}

}  // namespace

KindInfo PtyKind::info() const {
  return {"pty", "Terminals",
          "pseudo-terminals: attributes, size, packet mode, number, input and output that were not read yet",
          Support::kPartial,
          "the number in /dev/pts changes when it is taken; the master must be in the session"};
}

bool PtyKind::recognises(const OpenFile& file, const Observation&) const {
  return is_master(file) || (is_terminal(file) && is_pty_slave(tty_device(file.duplicate.get())));
}

Result<std::string> PtyKind::observe(const OpenFile& file, Observation& tree) const {
  int fd = file.duplicate.get();
  schema::Pty message;
  message.set_is_master(is_master(file));
  bool hung_up = is_hung_up(fd);
  if (!message.is_master() && !hung_up && !has_master(file, tree)) {
    return refusal(file, "it is a terminal outside the session",
                   "start the program by stasis launch, or detach it");
  }
  message.set_index(message.is_master() ? tty_index(fd) : minor(tty_device(fd)));
  message.set_instance(own_instance(file));
  if (message.instance() != 0) {
    if (name_of(file).state == Name::kLeadsElsewhere && !hung_up)
      return refusal(file, "the file system (devpts) that it is in is mounted nowhere any more");
    message.set_multiplexer(directory_of(file.link) + "/ptmx");
  }
  termios2 attributes = {};
  if (ioctl(fd, TCGETS2, &attributes) == 0) message.set_attributes(&attributes, sizeof attributes);
  char window[kWindowSize] = {};
  if (ioctl(fd, TIOCGWINSZ, window) == 0) message.set_window(window, sizeof window);
  int value = 0;
  if (message.is_master()) {
    message.set_packet_mode(ioctl(fd, TIOCGPKT, &value) == 0 && value != 0);
    message.set_locked(ioctl(fd, TIOCGPTLCK, &value) == 0 && value != 0);
    message.set_slave_closed(hung_up);
    observe_inode(fd, message);
  } else {
    message.set_exclusive(ioctl(fd, TIOCGEXCL, &value) == 0 && value != 0);
  }
  if (message.is_master() && !hung_up) observe_buffers(file, tree, message);
  return pack(message);
}

Result<Fd> PtyKind::make(const Record& record, Making& context) const {
  STASIS_TRY(auto message, unpack<schema::Pty>(record));
  STASIS_TRY(Fd * master, pair_of(record, message, context));
  if (!message.is_master()) {
    // By the master, not by a path: whatever is mounted at /dev/pts, it is the right one.
    // The file would keep O_CLOEXEC among its flags, where open() leaves it out.
    Fd slave(ioctl(master->get(), TIOCGPTPEER, open_flags(record.flags) & ~O_CLOEXEC));
    if (!slave) return cannot_make(record, "open the slave of the terminal");
    return slave;
  }
  if (has_content(message)) {
    if (!is_sane(message)) {
      return Error{"read the image",
                   record.describe(),
                   "more is in its buffers than they hold",
                   {},
                   ErrorCode::kDamaged};
    }
    // While others may still open it.
    Fd slave(ioctl(master->get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
    if (!slave) return cannot_make(record, "open the slave of the terminal");
    context.shared_objects()[slave_key(message)] = std::move(slave);
  }
  STASIS_CHECK(set_inode(record, master->get(), message));
  STASIS_TRY(Fd fd, duplicate(master->get()));
  STASIS_CHECK(set_status_flags(fd.get(), record.flags));
  return fd;
}

// What would keep others from opening the slave comes when all are open.
Result<void> PtyKind::fill(const Record& record, int fd, Making& context) const {
  STASIS_TRY(auto message, unpack<schema::Pty>(record));
  if (message.exclusive() && ioctl(fd, TIOCEXCL) < 0) return cannot_make(record, "TIOCEXCL");
  if (!message.is_master()) return {};
  if (message.slave_closed()) {
    Fd slave(ioctl(fd, TIOCGPTPEER, O_RDWR | O_NOCTTY));
    if (!slave) return cannot_make(record, "open the slave of the terminal");
  }
  if (has_content(message)) {
    STASIS_CHECK(fill_buffers(fd, context.shared_objects()[slave_key(message)].get(),
                              {message.input(), message.output()}));
  }
  int on = 1;
  if (message.packet_mode() && ioctl(fd, TIOCPKT, &on) < 0) return cannot_make(record, "TIOCPKT");
  if (message.locked() && ioctl(fd, TIOCSPTLCK, &on) < 0) return cannot_make(record, "TIOCSPTLCK");
  return {};
}

std::string PtyKind::summary(const Record& record) const {
  auto message = unpack<schema::Pty>(record);
  if (!message.ok()) return {};
  return fmt::format("{} of pty {}{}", message->is_master() ? "master" : "slave", message->index(),
                     message->packet_mode() ? ", packet mode" : "");
}

}  // namespace stasis::resource
