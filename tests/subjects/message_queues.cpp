// POSIX message queues: names, attributes, messages with their priorities, who waits for a message.
#include <mqueue.h>
#include <poll.h>

#include "subject.h"

namespace {

const char* name_of(const char* what) {
  static char name[64];
  snprintf(name, sizeof name, "/stasis-%d-%s", getpid(), what);
  return name;
}

mqd_t made(const char* name, int flags = O_RDWR) {
  mq_attr attributes = {};
  attributes.mq_maxmsg = 7;
  attributes.mq_msgsize = 120;
  mqd_t queue = mq_open(name, flags | O_CREAT, 0620, &attributes);
  if (queue < 0 && errno == ENOSYS) SKIP("this kernel has no message queues");
  MUST(queue >= 0);
  return queue;
}

void receive(mqd_t queue, const char* text, unsigned priority) {
  char back[128] = {};
  unsigned is = 0;
  CHECK_EQ(mq_receive(queue, back, 120, &is), static_cast<ssize_t>(strlen(text)));
  CHECK_EQ(strncmp(back, text, strlen(text)), 0);
  CHECK_EQ(is, priority);
}

}  // namespace

CASE(queue_with_messages) {
  mqd_t queue = made(name_of("a"));
  MUST(mq_send(queue, "one", 3, 1) == 0 && mq_send(queue, "high", 4, 30) == 0);
  MUST(mq_send(queue, "two", 3, 1) == 0 && mq_send(queue, "", 0, 0) == 0);
  subject::hold();
  mq_attr now = {};
  CHECK_EQ(mq_getattr(queue, &now), 0);
  CHECK_EQ(now.mq_maxmsg, 7);
  CHECK_EQ(now.mq_msgsize, 120);
  CHECK_EQ(now.mq_curmsgs, 4);
  CHECK_EQ(now.mq_flags, 0);
  struct stat st = {};
  CHECK_EQ(fstat(queue, &st), 0);
  CHECK_EQ(st.st_mode & 0777, 0620u & ~022u);
  mqd_t again = mq_open(name_of("a"), O_RDONLY | O_NONBLOCK);
  CHECK(again >= 0);
  receive(again, "high", 30);
  receive(queue, "one", 1);
  receive(again, "two", 1);
  receive(queue, "", 0);
  char byte[128];
  CHECK(mq_receive(again, byte, 120, nullptr) < 0 && errno == EAGAIN);
  CHECK_EQ(mq_unlink(name_of("a")), 0);
}

CASE(queue_that_is_full) {
  mqd_t queue = made(name_of("full"), O_RDWR | O_NONBLOCK);
  for (int i = 0; i < 7; ++i) MUST(mq_send(queue, "x", 1, 0) == 0);
  subject::hold();
  CHECK(mq_send(queue, "y", 1, 0) < 0 && errno == EAGAIN);
  mq_attr now = {};
  CHECK_EQ(mq_getattr(queue, &now), 0);
  CHECK_EQ(now.mq_flags, O_NONBLOCK);
  CHECK_EQ(now.mq_curmsgs, 7);
}

CASE(queue_without_a_name) {
  mqd_t queue = made(name_of("gone"));
  mqd_t reader = mq_open(name_of("gone"), O_RDONLY);
  MUST(reader >= 0 && mq_unlink(name_of("gone")) == 0 && mq_send(queue, "still", 5, 3) == 0);
  subject::hold();
  receive(reader, "still", 3);
  CHECK_EQ(mq_send(queue, "more", 4, 2), 0);
  receive(reader, "more", 2);
  CHECK(mq_open(name_of("gone"), O_RDONLY) < 0 && errno == ENOENT);
}

CASE(queue_that_nobody_has_open) {
  mqd_t queue = made(name_of("closed"));
  MUST(mq_send(queue, "kept", 4, 5) == 0 && mq_close(queue) == 0);
  subject::hold();
  queue = mq_open(name_of("closed"), O_RDONLY);
  CHECK(queue >= 0);
  if (queue >= 0) receive(queue, "kept", 5);
}

CASE(queue_shared_by_fork) {
  mqd_t queue = made(name_of("shared"));
  pid_t pid = subject::child([=] {
    subject::mark("born");
    subject::await("sent");
    receive(queue, "hello", 9);
  });
  subject::await("born");
  subject::hold();
  CHECK_EQ(mq_send(queue, "hello", 5, 9), 0);
  subject::mark("sent");
  JOIN(pid);
}

CASE(receiver_waits) {
  mqd_t queue = made(name_of("wait"));
  pthread_t t = subject::thread([=] { receive(queue, "at last", 4); });
  subject::pass(30);
  subject::hold();
  CHECK_EQ(mq_send(queue, "at last", 7, 4), 0);
  pthread_join(t, nullptr);
}

// The value that comes with the signal is not to be seen from outside, so none is set here.
CASE(notified_by_a_signal) {
  static volatile int code;
  struct sigaction action = {};
  action.sa_flags = SA_SIGINFO;
  action.sa_sigaction = [](int, siginfo_t* info, void*) { code = info->si_code; };
  MUST(sigaction(SIGUSR1, &action, nullptr) == 0);
  mqd_t queue = made(name_of("told"));
  sigevent event = {};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGUSR1;
  MUST(mq_notify(queue, &event) == 0);
  subject::hold();
  CHECK_EQ(mq_send(queue, "x", 1, 0), 0);
  for (int i = 0; i < 1000 && code == 0; ++i) subject::pass(1);
  CHECK_EQ(code, SI_MESGQ);
}

CASE(polled) {
  mqd_t queue = made(name_of("poll"));
  MUST(mq_send(queue, "x", 1, 0) == 0);
  subject::hold();
  pollfd entry = {queue, POLLIN | POLLOUT, 0};
  CHECK_EQ(poll(&entry, 1, 0), 1);
  CHECK_EQ(entry.revents, POLLIN | POLLOUT);
}
