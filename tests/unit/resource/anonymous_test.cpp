// eventfd, signalfd, timerfd, epoll, inotify.
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#include <thread>

#include "resource/eventfd.h"
#include "schema/kinds/eventfd.pb.h"
#include "tests/unit/resource/fakes.h"

namespace stasis::resource {
namespace {

uint64_t read_count(int fd) {
  uint64_t value = 0;
  return read(fd, &value, sizeof value) == sizeof value ? value : UINT64_MAX;
}

class Anonymous : public ResourceTest {};

TEST_F(Anonymous, EventfdKeepsCountAndMode) {
  Fd plain(eventfd(0, EFD_NONBLOCK)), semaphore(eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK)),
      zero(eventfd(0, 0));
  uint64_t big = (uint64_t{1} << 40) + 5;
  ASSERT_EQ(write(plain.get(), &big, sizeof big), 8);
  tree.add({plain.get()});
  tree.add({semaphore.get()});
  tree.add({zero.get()});
  round_trip();
  EXPECT_EQ(read_count((*made)[1]), big);
  EXPECT_EQ(read_count((*made)[1]), UINT64_MAX);  // and does not block
  EXPECT_EQ(read_count((*made)[2]), 1u);
  EXPECT_EQ(read_count((*made)[2]), 1u);
  EXPECT_EQ(fcntl((*made)[3], F_GETFL) & O_NONBLOCK, 0);
  EXPECT_EQ(read_count(plain.get()), big) << "the original was disturbed";
}

// Before Linux 6.5 the kernel does not show it.
TEST_F(Anonymous, TheModeOfAnEventfdIsFoundByTryingAndNothingChanges) {
  for (const bool semaphore : {false, true}) {
    for (const uint64_t count : {uint64_t{0}, uint64_t{1}, uint64_t{2}, uint64_t{7}, UINT64_MAX - 1}) {
      SCOPED_TRACE(fmt::format("{} with {}", semaphore ? "semaphore" : "counter", count));
      Fd original(eventfd(0, semaphore ? EFD_SEMAPHORE : 0));
      ASSERT_TRUE(count == 0 || write(original.get(), &count, sizeof count) == 8);
      const auto& file = tree.add({original.get()});
      std::string shown = file.fdinfo;
      if (const size_t line = shown.find("eventfd-semaphore"); line != std::string::npos)
        shown.erase(line, shown.find('\n', line) - line);
      OpenFile older;
      older.link = file.link;
      older.fdinfo = shown;
      older.duplicate = duplicate(original.get()).value();
      auto payload = EventfdKind().observe(older, tree);
      ASSERT_TRUE(payload.ok());
      schema::Eventfd message;
      ASSERT_TRUE(message.ParseFromString(*payload));
      EXPECT_EQ(message.semaphore(), semaphore);
      EXPECT_EQ(message.count(), count);
      EXPECT_EQ(read_file(fmt::format("/proc/self/fdinfo/{}", original.get())).value(), file.fdinfo);
    }
  }
}

TEST_F(Anonymous, SignalfdKeepsMask) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigaddset(&set, SIGRTMIN + 3);
  Fd fd(signalfd(-1, &set, SFD_NONBLOCK));
  std::string before = read_file(fmt::format("/proc/self/fdinfo/{}", fd.get())).value();
  tree.add({fd.get()});
  round_trip();
  OpenFile old_info, new_info;
  old_info.fdinfo = before;
  new_info.fdinfo = read_file(fmt::format("/proc/self/fdinfo/{}", (*made)[1])).value();
  EXPECT_EQ(old_info.info("sigmask"), new_info.info("sigmask"));
  EXPECT_NE(fcntl((*made)[1], F_GETFL) & O_NONBLOCK, 0);
}

TEST_F(Anonymous, TimerfdKeepsWhatIsLeft) {
  Fd fd(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
  itimerspec value = {{7, 0}, {100, 500}};
  ASSERT_EQ(timerfd_settime(fd.get(), 0, &value, nullptr), 0);
  tree.add({fd.get()});
  round_trip();
  itimerspec now = {};
  ASSERT_EQ(timerfd_gettime((*made)[1], &now), 0);
  EXPECT_EQ(now.it_interval.tv_sec, 7);
  EXPECT_GE(now.it_value.tv_sec, 98);
  EXPECT_LE(now.it_value.tv_sec, 100);
}

TEST_F(Anonymous, TimerfdKeepsUnreadExpirations) {
  Fd periodic(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)),
      once(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
  itimerspec often = {{0, 10'000'000}, {0, 10'000'000}}, soon = {{0, 0}, {0, 1}};
  ASSERT_EQ(timerfd_settime(periodic.get(), 0, &often, nullptr), 0);
  ASSERT_EQ(timerfd_settime(once.get(), 0, &soon, nullptr), 0);
  std::this_thread::sleep_for(std::chrono::milliseconds(55));
  tree.add({periodic.get()});
  tree.add({once.get()});
  round_trip();
  EXPECT_EQ(read_count((*made)[2]), 1u);
  EXPECT_EQ(read_count((*made)[2]), UINT64_MAX);
  uint64_t ticks = read_count((*made)[1]);
  EXPECT_GE(ticks, 5u);
  EXPECT_LT(ticks, 100u);
  uint64_t original = read_count(periodic.get());
  EXPECT_GE(original, 5u) << "the original was disturbed";
  EXPECT_EQ(read_count(once.get()), 1u);
}

TEST_F(Anonymous, AbsoluteWallClockTimerKeepsItsDate) {
  Fd fd(timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK));
  timespec now = {};
  clock_gettime(CLOCK_REALTIME, &now);
  itimerspec value = {{0, 0}, {now.tv_sec + 1, 0}};
  ASSERT_EQ(timerfd_settime(fd.get(), TFD_TIMER_ABSTIME, &value, nullptr), 0);
  tree.add({fd.get()});
  auto records = tree.observe();
  ASSERT_OK(records);
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));  // it passes while the program does not exist
  FakeMaking later(image, std::move(*records));
  ASSERT_OK(later.run());
  pollfd state = {later[1], POLLIN, 0};
  EXPECT_EQ(poll(&state, 1, 100), 1);
}

TEST_F(Anonymous, EpollKeepsItsTargets) {
  Fd set(epoll_create1(0)), ready(eventfd(1, 0)), idle(eventfd(0, 0)), inner(epoll_create1(0));
  auto add = [&](int epoll, int fd, uint32_t events, uint64_t data) {
    epoll_event event = {};
    event.events = events;
    event.data.u64 = data;
    ASSERT_EQ(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), 0);
  };
  // One file under a number that is closed later, and that now is another file.
  Fd other_number = duplicate(ready.get(), 200).value();
  add(set.get(), ready.get(), EPOLLIN, 0xaaaa00000001);
  add(set.get(), idle.get(), EPOLLIN | EPOLLET, 2);
  add(set.get(), other_number.get(), EPOLLIN | EPOLLONESHOT, 3);
  add(set.get(), inner.get(), EPOLLIN, 4);
  int reused = other_number.release();
  ASSERT_EQ(dup2(idle.get(), reused), reused);
  tree.add({set.get()});
  tree.add({ready.get()});
  tree.add({idle.get(), reused});
  tree.add({inner.get()});
  auto records = tree.observe();
  ASSERT_OK(records);

  // The owner of the restored set is this process, where the numbers still are what they were.
  Fd again(epoll_create1(0));
  FakeFinishing owner(again.get());
  ASSERT_OK(find_descriptor_kind("epoll")->finish((*records)[0], owner));
  close(reused);
  std::map<uint64_t, uint32_t> seen;
  epoll_event events[8];
  int count = epoll_wait(again.get(), events, 8, 0);
  for (int index = 0; index < count; ++index) seen[events[index].data.u64] = events[index].events;
  EXPECT_EQ(seen, (std::map<uint64_t, uint32_t>{{0xaaaa00000001, EPOLLIN}, {3, EPOLLIN}}));
  EXPECT_EQ(find_descriptor_kind("epoll")->summary((*records)[0]), "4 targets");
}

TEST_F(Anonymous, InotifyKeepsWatchesAndTheirNumbers) {
  TemporaryDirectory watched;
  Fd fd(inotify_init1(IN_NONBLOCK)), open_directory = open_file(watched.path(), O_RDONLY).value();
  int gone = inotify_add_watch(fd.get(), "/tmp", IN_ONESHOT | IN_UNMOUNT);
  int number = inotify_add_watch(fd.get(), watched.path().c_str(), IN_CREATE);
  inotify_rm_watch(fd.get(), gone);
  read_now(fd.get());
  tree.add({fd.get()});
  tree.add({open_directory.get()});
  round_trip();
  EXPECT_EQ(read_now((*made)[1]), "(nothing)");
  Fd file = open_file(watched / "new", O_CREAT | O_WRONLY).value();
  std::string bytes = read_now((*made)[1]);
  ASSERT_GE(bytes.size(), sizeof(inotify_event));
  auto* event = reinterpret_cast<const inotify_event*>(bytes.data());
  EXPECT_EQ(event->wd, number);
  EXPECT_STREQ(event->name, "new");
}

}  // namespace
}  // namespace stasis::resource
