// pidfds, message queues, fanotify groups.
#include <mqueue.h>
#include <sys/fanotify.h>
#include <sys/wait.h>

#include "tests/unit/resource/fakes.h"

namespace stasis::resource {
namespace {

class Handles : public ResourceTest {
 protected:
  static std::string shown_pid(int fd) {
    OpenFile file;
    file.fdinfo = read_file(fmt::format("/proc/self/fdinfo/{}", fd)).value();
    return file.info("Pid");
  }
};

TEST_F(Handles, PidfdsOfOneDeadProcess) {
  pid_t pid = fork();
  if (pid == 0) _exit(3);
  Fd one(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  Fd two(static_cast<int>(syscall(SYS_pidfd_open, pid, O_NONBLOCK)));
  ASSERT_EQ(waitpid(pid, nullptr, 0), pid);
  tree.add({one.get()});
  tree.add({two.get()});
  round_trip();
  struct stat before[2] = {}, after[2] = {};
  for (int i = 0; i < 2; ++i) {
    const int fd = (*made)[static_cast<uint32_t>(i + 1)];
    EXPECT_EQ(shown_pid(fd), "-1");
    EXPECT_LT(syscall(SYS_pidfd_send_signal, fd, 0, nullptr, 0), 0);
    ASSERT_EQ(fstat(i == 0 ? one.get() : two.get(), &before[i]), 0);
    ASSERT_EQ(fstat(fd, &after[i]), 0);
  }
  EXPECT_EQ(before[0].st_ino == before[1].st_ino, after[0].st_ino == after[1].st_ino);
  EXPECT_EQ(fcntl((*made)[1], F_GETFL) & O_NONBLOCK, 0);
  EXPECT_NE(fcntl((*made)[2], F_GETFL) & O_NONBLOCK, 0);
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "a child was left behind";
}

TEST_F(Handles, MessagesComeBackInTheirOrder) {
  const std::string name = fmt::format("/stasis-test-{}", getpid());
  mq_attr attributes = {};
  attributes.mq_maxmsg = 5;
  attributes.mq_msgsize = 50;
  Fd queue(mq_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR, 0640, &attributes));
  if (!queue) GTEST_SKIP() << "no message queues here";
  Fd writer(mq_open(name.c_str(), O_WRONLY | O_NONBLOCK));
  mq_unlink(name.c_str());
  for (auto [text, priority] : {std::pair{"low", 1u}, {"high", 9u}, {"low too", 1u}})
    ASSERT_EQ(mq_send(queue.get(), text, strlen(text), priority), 0);
  tree.add({writer.get()});
  tree.add({queue.get()});
  round_trip();
  for (int fd : {queue.get(), (*made)[2]}) {
    for (std::string expected : {"high", "low", "low too"}) {
      char text[50];
      ssize_t size = mq_receive(fd, text, sizeof text, nullptr);
      EXPECT_EQ(std::string(text, size < 0 ? 0 : static_cast<size_t>(size)), expected);
    }
  }
  mq_attr now = {};
  ASSERT_EQ(mq_getattr((*made)[1], &now), 0);
  EXPECT_EQ(now.mq_maxmsg, 5);
  EXPECT_EQ(now.mq_msgsize, 50);
  EXPECT_EQ(now.mq_flags, O_NONBLOCK);
  ASSERT_EQ(mq_send((*made)[1], "new", 3, 0), 0);
  ASSERT_EQ(mq_getattr((*made)[2], &now), 0);
  EXPECT_EQ(now.mq_curmsgs, 1) << "one queue became two";
}

TEST_F(Handles, FanotifyKeepsItsMarks) {
  Fd group(fanotify_init(FAN_CLASS_NOTIF | FAN_NONBLOCK, O_RDONLY));
  if (!group) GTEST_SKIP() << "no fanotify for this user";
  TemporaryDirectory directory;
  ASSERT_EQ(fanotify_mark(group.get(), FAN_MARK_ADD, FAN_CLOSE_WRITE | FAN_EVENT_ON_CHILD, AT_FDCWD,
                          directory.path().c_str()),
            0);
  Fd place = open_file(directory.path(), O_RDONLY | O_DIRECTORY).value();
  tree.add({group.get()});
  tree.add({place.get()});
  round_trip();
  group.reset();
  open_file(directory / "file", O_CREAT | O_WRONLY).value();
  fanotify_event_metadata event = {};
  ASSERT_EQ(read((*made)[1], &event, sizeof event), static_cast<ssize_t>(sizeof event));
  EXPECT_EQ(event.mask, uint64_t{FAN_CLOSE_WRITE});
  close(event.fd);
}

}  // namespace
}  // namespace stasis::resource
