#include "resource/eventfd.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <optional>

#include "resource/payload.h"
#include "resource/refusal.h"
#include "schema/kinds/eventfd.pb.h"

namespace stasis::resource {

namespace {

// Never blocks: whoever in the kernel listens to it (an irqfd) may have taken the count meanwhile.
std::optional<uint64_t> take(int fd) {
  uint64_t value = 0;
  iovec into = {&value, sizeof value};
  if (::preadv2(fd, &into, 1, -1, RWF_NOWAIT) != sizeof value) return std::nullopt;
  return value;
}

bool add(int fd, uint64_t value) { return value == 0 || ::write(fd, &value, sizeof value) == sizeof value; }

// Before Linux 6.5 only a read tells, of a count of more than 1. It stands still, so that nobody sees more of
// it than that there is an event, which there is not.
bool acts_as_semaphore(int fd, uint64_t count) {
  const uint64_t more = count < 2 ? 2 - count : 0;
  if (!add(fd, more)) return false;
  const auto taken = take(fd);
  if (!taken) return false;
  const bool semaphore = *taken == 1;
  const uint64_t left = semaphore ? count + more - 1 : 0;
  if (left > count) {
    (void)take(fd);
  } else {
    (void)add(fd, count - left);
  }
  return semaphore;
}

}  // namespace

KindInfo EventfdKind::info() const { return {"eventfd", "Descriptors", "eventfd: counter, semaphore mode"}; }

bool EventfdKind::recognises(const OpenFile& file, const Observation&) const {
  return file.link == "anon_inode:[eventfd]";
}

Result<std::string> EventfdKind::observe(const OpenFile& file, Observation&) const {
  // Reading the descriptor would take the count away from the program; fdinfo shows it (in hexadecimal).
  std::string count = file.info("eventfd-count");
  if (count.empty()) return refusal(file, "the kernel does not show the count of an eventfd in fdinfo");
  schema::Eventfd message;
  message.set_count(strtoull(count.c_str(), nullptr, 16));
  const std::string semaphore = file.info("eventfd-semaphore");
  message.set_semaphore(semaphore.empty() ? acts_as_semaphore(file.duplicate.get(), message.count())
                                          : semaphore == "1");
  return pack(message);
}

Result<Fd> EventfdKind::make(const Record& record, Making&) const {
  STASIS_TRY(auto message, unpack<schema::Eventfd>(record));
  int flags = EFD_CLOEXEC | (message.semaphore() ? EFD_SEMAPHORE : 0) |
              (record.flags & O_NONBLOCK ? EFD_NONBLOCK : 0);
  // The initial value of eventfd2() has 32 bits, the counter has 64: write the rest.
  Fd fd(::eventfd(0, flags));
  if (!fd) return cannot_make(record, "eventfd");
  uint64_t count = message.count();
  if (count == UINT64_MAX) return cannot_make(record, "count", ERANGE);
  if (count > 0 && ::write(fd.get(), &count, sizeof count) != sizeof count)
    return cannot_make(record, "write");
  return fd;
}

std::string EventfdKind::summary(const Record& record) const {
  auto message = unpack<schema::Eventfd>(record);
  if (!message.ok()) return {};
  return fmt::format("count {}{}", message->count(), message->semaphore() ? ", semaphore" : "");
}

}  // namespace stasis::resource
