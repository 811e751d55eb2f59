#include "resource/eventfd.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "resource/payload.h"
#include "resource/refusal.h"
#include "schema/kinds/eventfd.pb.h"

namespace stasis::resource {

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
  message.set_semaphore(file.info("eventfd-semaphore") == "1");  // shown since Linux 6.5
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
