// Who is told about files: inotify with events, fanotify, leases, directory notification.
#include <poll.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>

#include "subject.h"

namespace {

int made(const char* name) {
  int fd = open(subject::path(name), O_RDWR | O_CREAT, 0644);
  MUST(fd >= 0);
  return fd;
}

struct Events {
  alignas(inotify_event) char bytes[4096];
  ssize_t size = 0;
  ssize_t at = 0;
  explicit Events(int fd) : size(read(fd, bytes, sizeof bytes)) {}
  const inotify_event* next() {
    if (at >= size) return nullptr;
    auto* event = reinterpret_cast<const inotify_event*>(bytes + at);
    at += static_cast<ssize_t>(sizeof *event + event->len);
    return event;
  }
};

}  // namespace

CASE(events_that_were_not_read) {
  int fd = inotify_init1(IN_NONBLOCK);
  int directory = inotify_add_watch(fd, subject::path("."), IN_CREATE | IN_DELETE | IN_MOVE);
  made("before");
  int file = inotify_add_watch(fd, subject::path("before"), IN_MODIFY | IN_ATTRIB);
  MUST(fd >= 0 && directory == 1 && file == 2);
  int writer = made("before");
  MUST(write(writer, "x", 1) == 1);
  MUST(rename(subject::path("before"), subject::path("after")) == 0);
  int marker = inotify_add_watch(fd, subject::path("."), IN_CREATE | IN_DELETE | IN_MOVE | IN_MASK_ADD);
  CHECK_EQ(marker, 1);
  subject::hold();
  Events events(fd);
  const inotify_event* event = events.next();
  auto is = [&](int watch, uint32_t mask, const char* name) {
    if (event == nullptr) {
      subject::say("no event");
      CHECK(event != nullptr);
      return;
    }
    CHECK_EQ(event->wd, watch);
    CHECK_EQ(event->mask, mask);
    if (name != nullptr && event->len > 0) {
      CHECK_EQ(strcmp(event->name, name), 0);
    } else {
      CHECK_EQ(event->len, 0u);
    }
    event = events.next();
  };
  is(1, IN_CREATE, "before");
  is(2, IN_MODIFY, nullptr);
  uint32_t cookie = event != nullptr ? event->cookie : 0;
  is(1, IN_MOVED_FROM, "before");
  CHECK(event != nullptr && event->cookie == cookie && cookie != 0);
  is(1, IN_MOVED_TO, "after");
}

// Events can be told from outside only by taking them away. After a restart the program learns that there
// were some.
CASE(events_are_lost_like_in_a_full_queue) {
  int fd = inotify_init1(IN_NONBLOCK);
  MUST(mkdir(subject::path("in"), 0700) == 0);
  MUST(inotify_add_watch(fd, subject::path("in"), IN_CREATE) == 1);
  close(made("in/one"));
  subject::hold();
  pollfd entry = {fd, POLLIN, 0};
  CHECK_EQ(poll(&entry, 1, 0), 1);
  Events events(fd);
  const inotify_event* event = events.next();
  CHECK(event != nullptr);
  if (event != nullptr && event->mask == IN_CREATE) {
    CHECK_EQ(strcmp(event->name, "one"), 0);  // nothing was restarted
  } else if (event != nullptr) {
    CHECK_EQ(event->mask, IN_Q_OVERFLOW);
    CHECK_EQ(event->wd, -1);
  }
  CHECK(events.next() == nullptr);
  close(made("in/two"));
  Events later(fd);
  event = later.next();
  CHECK(event != nullptr && event->wd == 1 && event->mask == IN_CREATE);
}

// What a restart makes in a watched directory is no event of the program's. That files are read anybody may
// see.
CASE(no_events_of_a_restart) {
  constexpr uint32_t kReading = IN_OPEN | IN_ACCESS | IN_CLOSE_NOWRITE;
  int fd = inotify_init1(IN_NONBLOCK);
  MUST(mkdir(subject::path("in"), 0700) == 0);
  MUST(inotify_add_watch(fd, subject::path("in"), IN_ALL_EVENTS & ~kReading) == 1);
  int directory = open(subject::path("in"), O_RDONLY | O_DIRECTORY), file = made("in/file");
  int removed = made("in/removed");
  MUST(directory >= 0 && unlink(subject::path("in/removed")) == 0 && write(file, "x", 1) == 1);
  MUST(write(removed, "x", 1) == 1);
  { Events drained(fd); }
  subject::hold();
  Events events(fd);
  CHECK(events.next() == nullptr);
}

CASE(watch_of_a_file_that_was_removed) {
  int fd = inotify_init1(IN_NONBLOCK);
  int file = made("file");
  MUST(inotify_add_watch(fd, subject::path("file"), IN_MODIFY | IN_DELETE_SELF) == 1);
  MUST(unlink(subject::path("file")) == 0);
  { Events drained(fd); }
  subject::hold();
  CHECK_EQ(write(file, "x", 1), 1);
  Events events(fd);
  const inotify_event* event = events.next();
  while (event != nullptr && (event->mask & IN_MODIFY) == 0) event = events.next();
  CHECK(event != nullptr && event->wd == 1);
  close(file);
  Events last(fd);
  event = last.next();
  while (event != nullptr && (event->mask & IN_DELETE_SELF) == 0) event = last.next();
  CHECK(event != nullptr);
}

CASE(watch_of_what_is_not_open) {
  int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  MUST(mkdir(subject::path("some"), 0700) == 0 && mkdir(subject::path("some/where"), 0700) == 0);
  MUST(inotify_add_watch(fd, subject::path("some/where"), IN_CREATE) == 1);
  subject::hold();
  close(made("some/where/new"));
  Events events(fd);
  const inotify_event* event = events.next();
  CHECK(event != nullptr && event->wd == 1 && strcmp(event->name, "new") == 0);
  CHECK(events.next() == nullptr);
}

CASE(read_lease) {
  close(made("file"));
  int fd = open(subject::path("file"), O_RDONLY);
  if (fcntl(fd, F_SETLEASE, F_RDLCK) != 0) SKIP("no leases here");
  int copy = dup(fd);
  subject::hold();
  CHECK_EQ(fcntl(fd, F_GETLEASE), F_RDLCK);
  CHECK_EQ(fcntl(copy, F_GETLEASE), F_RDLCK);
  CHECK_EQ(fcntl(fd, F_SETLEASE, F_UNLCK), 0);
}

CASE(lease_that_is_broken_later) {
  static volatile int told;
  int fd = made("file");
  struct sigaction action = {};
  action.sa_flags = SA_SIGINFO;
  action.sa_sigaction = [](int, siginfo_t* info, void*) { told = info->si_fd; };
  MUST(sigaction(SIGUSR1, &action, nullptr) == 0 && fcntl(fd, F_SETSIG, SIGUSR1) == 0);
  if (fcntl(fd, F_SETLEASE, F_WRLCK) != 0) SKIP("no leases here");
  subject::hold();
  CHECK_EQ(fcntl(fd, F_GETLEASE), F_WRLCK);
  CHECK(open(subject::path("file"), O_RDONLY | O_NONBLOCK) < 0 && errno == EWOULDBLOCK);
  for (int i = 0; i < 1000 && told == 0; ++i) subject::pass(1);
  CHECK_EQ(told, fd);
  CHECK_EQ(fcntl(fd, F_SETLEASE, F_UNLCK), 0);
  CHECK(open(subject::path("file"), O_RDONLY | O_NONBLOCK) >= 0);
}

// Somebody waits for the lease, and the time within which it must be given up is running.
CASE_WITH(lease_that_is_being_broken, subject::kMayRefuse) {
  int fd = made("file");
  signal(SIGIO, SIG_IGN);
  if (fcntl(fd, F_SETLEASE, F_WRLCK) != 0) SKIP("no leases here");
  MUST(open(subject::path("file"), O_RDONLY | O_NONBLOCK) < 0 && errno == EWOULDBLOCK);
  MUST(fcntl(fd, F_GETLEASE) == F_RDLCK);
  subject::hold();
  CHECK_EQ(fcntl(fd, F_GETLEASE), F_RDLCK);
}

CASE_WITH(lease_that_must_be_given_up, subject::kMayRefuse) {
  close(made("file"));
  int fd = open(subject::path("file"), O_RDONLY);
  signal(SIGIO, SIG_IGN);
  if (fcntl(fd, F_SETLEASE, F_RDLCK) != 0) SKIP("no leases here");
  MUST(open(subject::path("file"), O_WRONLY | O_NONBLOCK) < 0 && errno == EWOULDBLOCK);
  subject::hold();
  CHECK_EQ(fcntl(fd, F_GETLEASE), F_UNLCK);
}

CASE(fanotify_marks) {
  int fd = fanotify_init(FAN_CLASS_NOTIF | FAN_NONBLOCK, O_RDONLY);
  if (fd < 0) SKIP("no fanotify for this user");
  close(made("file"));
  MUST(fanotify_mark(fd, FAN_MARK_ADD, FAN_MODIFY | FAN_CLOSE_WRITE, AT_FDCWD, subject::path("file")) == 0);
  MUST(fanotify_mark(fd, FAN_MARK_ADD, FAN_OPEN | FAN_EVENT_ON_CHILD, AT_FDCWD, subject::path(".")) == 0);
  subject::hold();
  int writer = open(subject::path("file"), O_WRONLY);
  CHECK_EQ(write(writer, "x", 1), 1);
  close(writer);
  alignas(fanotify_event_metadata) char bytes[4096];
  ssize_t size = read(fd, bytes, sizeof bytes);
  uint64_t seen = 0;
  auto* event = reinterpret_cast<fanotify_event_metadata*>(bytes);
  for (; FAN_EVENT_OK(event, size); event = FAN_EVENT_NEXT(event, size)) {
    seen |= event->mask;
    close(event->fd);
  }
  CHECK_EQ(seen, FAN_MODIFY | FAN_CLOSE_WRITE | FAN_OPEN);
}

CASE(watch_of_a_symbolic_link_itself) {
  int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  close(made("file"));
  MUST(symlink("file", subject::path("link")) == 0);
  MUST(inotify_add_watch(fd, subject::path("link"), IN_MOVE_SELF | IN_DONT_FOLLOW) == 1);
  MUST(inotify_add_watch(fd, subject::path("file"), IN_MODIFY) == 2);
  subject::hold();
  int file = made("file");
  CHECK_EQ(write(file, "x", 1), 1);
  CHECK_EQ(rename(subject::path("link"), subject::path("other")), 0);
  Events events(fd);
  const inotify_event* event = events.next();
  CHECK(event != nullptr && event->wd == 2 && event->mask == IN_MODIFY);
  event = event == nullptr ? nullptr : events.next();
  CHECK(event != nullptr && event->wd == 1 && event->mask == IN_MOVE_SELF);
}

// What /proc shows of a group is what it was made with, also how its own descriptor was to be opened.
CASE(fanotify_flags) {
  auto shown = [](int fd) {
    char name[64], text[4096];
    unsigned flags = ~0u;
    snprintf(name, sizeof name, "/proc/self/fdinfo/%d", fd);
    MUST(subject::slurp(name, text, sizeof text) > 0);
    const char* line = strstr(text, "fanotify flags:");
    MUST(line != nullptr && sscanf(line, "fanotify flags:%x", &flags) == 1);
    return flags;
  };
  int open_on_exec = fanotify_init(FAN_CLASS_NOTIF | FAN_NONBLOCK | FAN_REPORT_FID, O_RDONLY);
  int closed_on_exec = fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_REPORT_FID, O_RDONLY);
  if (open_on_exec < 0 || closed_on_exec < 0) SKIP("no fanotify for this user");
  unsigned one = shown(open_on_exec), other = shown(closed_on_exec);
  MUST(one != other);
  subject::hold();
  CHECK_EQ(shown(open_on_exec), one);
  CHECK_EQ(shown(closed_on_exec), other);
  CHECK_EQ(fcntl(open_on_exec, F_GETFD), 0);
  CHECK_EQ(fcntl(closed_on_exec, F_GETFD), FD_CLOEXEC);
}
