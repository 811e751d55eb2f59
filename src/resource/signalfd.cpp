#include "resource/signalfd.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "resource/payload.h"
#include "resource/refusal.h"
#include "schema/kinds/signalfd.pb.h"

namespace stasis::resource {

KindInfo SignalfdKind::info() const { return {"signalfd", "Descriptors", "signalfd: mask"}; }

bool SignalfdKind::recognises(const OpenFile& file, const Observation&) const {
  return file.link == "anon_inode:[signalfd]";
}

Result<std::string> SignalfdKind::observe(const OpenFile& file, Observation&) const {
  std::string mask = file.info("sigmask");
  if (mask.empty()) return refusal(file, "the kernel does not show the mask of a signalfd in fdinfo");
  schema::Signalfd message;
  message.set_mask(strtoull(mask.c_str(), nullptr, 16));
  return pack(message);
}

// What is read from a signalfd are the pending signals of whoever reads: the descriptor itself holds only the
// mask.
Result<Fd> SignalfdKind::make(const Record& record, Making&) const {
  STASIS_TRY(auto message, unpack<schema::Signalfd>(record));
  uint64_t mask = message.mask();
  int flags = SFD_CLOEXEC | (record.flags & O_NONBLOCK ? SFD_NONBLOCK : 0);
  Fd fd(static_cast<int>(syscall(SYS_signalfd4, -1, &mask, sizeof mask, flags)));
  if (!fd) return cannot_make(record, "signalfd4");
  return fd;
}

std::string SignalfdKind::summary(const Record& record) const {
  auto message = unpack<schema::Signalfd>(record);
  if (!message.ok()) return {};
  std::string signals;
  for (int number = 1; number <= 64; ++number) {
    if (message->mask() >> (number - 1) & 1)
      signals += fmt::format("{}{}", signals.empty() ? "" : ", ", number);
  }
  return "signals " + signals;
}

}  // namespace stasis::resource
