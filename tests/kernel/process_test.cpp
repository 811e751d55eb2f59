// What we believe of Linux, about making processes and about what others may see of them.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/kcmp.h>
#include <linux/rseq.h>
#include <linux/sched.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/rseq.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "child.h"

using beliefs::Child;
using beliefs::sleep_for_ever;

namespace {

bool write_file(const char* name, const char* text) {
  int fd = open(name, O_WRONLY);
  if (fd < 0) return false;
  bool done = write(fd, text, strlen(text)) == static_cast<ssize_t>(strlen(text));
  close(fd);
  return done;
}

// A new user namespace that maps us to ourselves, and a new pid namespace for the children.
bool enter_namespaces() {
  char map[64];
  uid_t uid = getuid();
  gid_t gid = getgid();
  if (unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0) return false;
  snprintf(map, sizeof map, "%u %u 1", uid, uid);
  write_file("/proc/self/setgroups", "deny");
  if (!write_file("/proc/self/uid_map", map)) return false;
  snprintf(map, sizeof map, "%u %u 1", gid, gid);
  return write_file("/proc/self/gid_map", map);
}

}  // namespace

// restore/: without privilege, a task is made with the number that it had, in a new user and pid namespace.
TEST(Process, SetTidInAUserNamespace) {
  Child child([] {
    if (!enter_namespaces()) {
      Child::tell(77);
      return;
    }
    pid_t init = fork();
    if (init == 0) {
      pid_t wanted = 4821;
      clone_args arguments = {};
      arguments.exit_signal = SIGCHLD;
      arguments.set_tid = reinterpret_cast<uint64_t>(&wanted);
      arguments.set_tid_size = 1;
      long got = syscall(SYS_clone3, &arguments, sizeof arguments);
      if (got == 0) _exit(syscall(SYS_getpid) == 4821 ? 5 : 6);
      int status = 0;
      waitpid(static_cast<pid_t>(got), &status, 0);
      _exit(got == 4821 && WEXITSTATUS(status) == 5 ? 0 : 1);
    }
    int status = -1;
    waitpid(init, &status, 0);
    Child::tell(status);
  });
  long status = child.told();
  if (status == 77) GTEST_SKIP() << "user namespaces are not allowed here";
  EXPECT_EQ(status, 0);
}

// session/: the clocks of a new time namespace are set before its first process is in it; children then see
// them.
TEST(Process, TimeNamespaceMovesTheClocks) {
  Child child([] {
    if (unshare(CLONE_NEWUSER | CLONE_NEWTIME) != 0) {
      Child::tell(77);
      return;
    }
    timespec before;
    clock_gettime(CLOCK_MONOTONIC, &before);
    bool set = write_file("/proc/self/timens_offsets", "monotonic 100000 0\nboottime 100000 0\n");
    pid_t below = fork();
    if (below == 0) {
      timespec now;
      clock_gettime(CLOCK_MONOTONIC, &now);
      _exit(now.tv_sec - before.tv_sec >= 100000 ? 0 : 1);
    }
    int status = -1;
    waitpid(below, &status, 0);
    Child::tell(set ? status : -2);
  });
  long status = child.told();
  if (status == 77) GTEST_SKIP() << "user namespaces are not allowed here";
  EXPECT_EQ(status, 0);
}

// restore/: the end of a namespace's first process ends all the others.
TEST(Process, DeathOfInitEndsTheNamespace) {
  Child child([] {
    if (!enter_namespaces()) {
      Child::tell(77);
      return;
    }
    int held[2];
    if (pipe(held) != 0) _exit(1);
    pid_t init = fork();
    if (init == 0) {
      if (fork() == 0) sleep_for_ever();
      sleep_for_ever();
    }
    usleep(20000);
    close(held[1]);
    kill(init, SIGKILL);
    waitpid(init, nullptr, 0);
    char byte;
    Child::tell(read(held[0], &byte, 1));  // end of file: nobody holds the other end
  });
  long result = child.told();
  if (result == 77) GTEST_SKIP() << "user namespaces are not allowed here";
  EXPECT_EQ(result, 0);
}

// inspect/: two descriptors of one open file description are found with kcmp, also in two processes.
TEST(Process, KcmpFindsSharedDescriptions) {
  int first = open("/dev/null", O_RDONLY), second = open("/dev/null", O_RDONLY), copy = dup(first);
  Child child(sleep_for_ever);
  pid_t self = getpid();
  EXPECT_EQ(syscall(SYS_kcmp, self, child.pid(), KCMP_FILE, first, first), 0);
  EXPECT_EQ(syscall(SYS_kcmp, self, child.pid(), KCMP_FILE, first, copy), 0);
  EXPECT_NE(syscall(SYS_kcmp, self, child.pid(), KCMP_FILE, first, second), 0);
  close(first);
  close(second);
  close(copy);
}

// resource/: a descriptor of a child can be taken over, and shares its offset.
TEST(Process, PidfdGetfdSharesTheDescription) {
  Child child([] {
    int fd = memfd_create("belief", 0);
    if (write(fd, "12345", 5) != 5) _exit(1);
    Child::tell(fd);
    sleep_for_ever();
  });
  long number = child.told();
  ASSERT_GE(number, 0);
  int pidfd = static_cast<int>(syscall(SYS_pidfd_open, child.pid(), 0));
  int fd = static_cast<int>(syscall(SYS_pidfd_getfd, pidfd, number, 0));
  ASSERT_GE(fd, 0);
  EXPECT_EQ(lseek(fd, 0, SEEK_CUR), 5);
  close(fd);
  close(pidfd);
}

// resource/pipe: tee copies what is in a pipe and takes nothing.
TEST(Process, TeeDoesNotConsume) {
  int from[2], to[2];
  ASSERT_EQ(pipe(from) | pipe(to), 0);
  ASSERT_EQ(write(from[1], "content", 7), 7);
  EXPECT_EQ(tee(from[0], to[1], 65536, SPLICE_F_NONBLOCK), 7);
  char text[8] = {};
  EXPECT_EQ(read(from[0], text, 7), 7);
  EXPECT_STREQ(text, "content");
  for (int fd : {from[0], from[1], to[0], to[1]}) close(fd);
}

// remote/rseq, before Linux 5.13: the errors of rseq() tell whether a thread has registered an area, and
// whether it is this one, and nothing changes by that.
TEST(Process, ErrorsOfRseqTellWhatIsRegistered) {
  if (__rseq_size == 0) GTEST_SKIP() << "the C library has registered nothing";
  auto* area = static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset;
  auto* nobodys = reinterpret_cast<void*>(~uint64_t{31});
  const auto error_of = [](void* address, int flags, unsigned signature) {
    return syscall(SYS_rseq, address, 32, flags, signature) == 0 ? 0 : errno;
  };
  EXPECT_EQ(error_of(nobodys, 0, RSEQ_SIG), EINVAL);
  EXPECT_EQ(error_of(area, RSEQ_FLAG_UNREGISTER, ~RSEQ_SIG), EPERM);
  EXPECT_EQ(error_of(area + 32, RSEQ_FLAG_UNREGISTER, ~RSEQ_SIG), EINVAL);
  EXPECT_EQ(error_of(area, 0, RSEQ_SIG), EBUSY);  // it is registered as before
  ASSERT_EQ(error_of(area, RSEQ_FLAG_UNREGISTER, RSEQ_SIG), 0);
  EXPECT_EQ(error_of(nobodys, 0, RSEQ_SIG), EFAULT);
  EXPECT_EQ(error_of(area, RSEQ_FLAG_UNREGISTER, ~RSEQ_SIG), EINVAL);
  EXPECT_EQ(error_of(area, 0, RSEQ_SIG), 0);
}
