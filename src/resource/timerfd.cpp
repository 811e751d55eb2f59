#include "resource/timerfd.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "resource/payload.h"
#include "resource/refusal.h"
#include "schema/kinds/timerfd.pb.h"

namespace stasis::resource {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr unsigned long kSetTicks = _IOW('T', 0, uint64_t);  // TFD_IOC_SET_TICKS

int64_t nanoseconds(const timespec& time) { return time.tv_sec * kSecond + time.tv_nsec; }
timespec timespec_of(int64_t ns) { return {ns / kSecond, static_cast<long>(ns % kSecond)}; }

int64_t now(int clock) {
  timespec time = {};
  clock_gettime(clock, &time);
  return nanoseconds(time);
}

// "(1, 500000000)"
int64_t parse_pair(const std::string& text) {
  long long seconds = 0, rest = 0;
  if (sscanf(text.c_str(), "(%lld, %lld)", &seconds, &rest) != 2) return 0;
  return seconds * kSecond + rest;
}

bool is_wall_clock(int clock) { return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_ALARM; }

}  // namespace

KindInfo TimerfdKind::info() const {
  return {"timerfd", "Timers", "timerfd: clock, time left, interval, unread expirations"};
}

bool TimerfdKind::recognises(const OpenFile& file, const Observation&) const {
  return file.link == "anon_inode:[timerfd]";
}

Result<std::string> TimerfdKind::observe(const OpenFile& file, Observation&) const {
  std::string clock = file.info("clockid");
  if (clock.empty()) return refusal(file, "the kernel does not show the state of a timerfd in fdinfo");
  schema::Timerfd message;
  message.set_clock(atoi(clock.c_str()));
  message.set_settime_flags(static_cast<uint32_t>(strtoul(file.info("settime flags").c_str(), nullptr, 8)));
  message.set_ticks(strtoull(file.info("ticks").c_str(), nullptr, 10));
  message.set_left_ns(parse_pair(file.info("it_value")));
  message.set_interval_ns(parse_pair(file.info("it_interval")));

  // A periodic timer stops counting when it expires and catches up when it is read or asked for; until then
  // fdinfo shows neither the true number of expirations nor the phase. Asking is what the program itself may
  // do at any time: a later read gives the same number as without it.
  if (message.ticks() > 0 && message.interval_ns() > 0) {
    itimerspec value = {};
    if (timerfd_gettime(file.duplicate.get(), &value) < 0) return cannot_observe(file, "timerfd_gettime");
    STASIS_TRY(std::string fdinfo, read_file(fmt::format("/proc/self/fdinfo/{}", file.duplicate.get())));
    OpenFile again;
    again.fdinfo = std::move(fdinfo);
    message.set_ticks(strtoull(again.info("ticks").c_str(), nullptr, 10));
    message.set_left_ns(nanoseconds(value.it_value));
  }
  if (message.left_ns() > 0 && is_wall_clock(message.clock()) &&
      message.settime_flags() & TFD_TIMER_ABSTIME) {
    message.set_expires_ns(now(message.clock()) + message.left_ns());
  }
  return pack(message);
}

Result<Fd> TimerfdKind::make(const Record& record, Making&) const {
  STASIS_TRY(auto message, unpack<schema::Timerfd>(record));
  Fd fd(timerfd_create(message.clock(), TFD_CLOEXEC | (record.flags & O_NONBLOCK ? TFD_NONBLOCK : 0)));
  if (!fd) {
    return cannot_make(record, "timerfd_create", errno,
                       errno == EPERM ? "alarm clocks need CAP_WAKE_ALARM: restart as root" : "");
  }

  // An absolute timer of the wall clock keeps its date, even when that has passed. All others keep the time
  // that was left: in the session's time namespace the monotonic clocks stood still meanwhile.
  itimerspec value = {.it_interval = timespec_of(message.interval_ns()), .it_value = {}};
  int flags = static_cast<int>(message.settime_flags());
  if (message.expires_ns() > 0) {
    value.it_value = timespec_of(message.expires_ns());
  } else {
    value.it_value = timespec_of(message.left_ns());
    flags &= ~(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET);
  }
  if (message.left_ns() > 0 && timerfd_settime(fd.get(), flags, &value, nullptr) < 0) {
    return cannot_make(record, "timerfd_settime");
  }
  if (message.ticks() == 0) return fd;

  uint64_t ticks = message.ticks();
  if (ioctl(fd.get(), kSetTicks, &ticks) == 0) return fd;
  // Kernels without CONFIG_CHECKPOINT_RESTORE: start the timer as many intervals ago as it has expirations to
  // show.
  auto interval = static_cast<uint64_t>(message.interval_ns());
  if (interval == 0 || ticks > INT64_MAX / interval) {
    value.it_value = {0, 1};
    flags = 0;
  } else {
    int64_t start = now(message.clock()) + message.left_ns() - static_cast<int64_t>(ticks * interval);
    value.it_value = timespec_of(std::max<int64_t>(start, 1));
    flags = TFD_TIMER_ABSTIME;
  }
  if (timerfd_settime(fd.get(), flags, &value, nullptr) < 0) return cannot_make(record, "timerfd_settime");
  return fd;
}

std::string TimerfdKind::summary(const Record& record) const {
  auto message = unpack<schema::Timerfd>(record);
  if (!message.ok()) return {};
  if (message->left_ns() == 0) return fmt::format("disarmed, {} expirations", message->ticks());
  return fmt::format("{:.3f} s left, interval {:.3f} s, {} expirations", double(message->left_ns()) / kSecond,
                     double(message->interval_ns()) / kSecond, message->ticks());
}

}  // namespace stasis::resource
