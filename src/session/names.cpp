#include "session/names.h"

#include <unistd.h>

#include <climits>

#include "image/store.h"

namespace stasis::session {
namespace {

constexpr int kMostNumbers = 100'000;

bool has_checkpoints(const std::string& store, const std::string& name) {
  auto entries = image::list(store + "/" + name);
  return entries.ok() && !entries->empty();
}

}  // namespace

Result<ClaimedName> claim_name(const std::string& name, const std::string& program, const std::string& store,
                               const std::string& purpose) {
  if (!name.empty()) {
    STASIS_TRY(SessionLock lock, SessionLock::take(name, purpose));
    auto record = load_record(name);
    if (record.ok() && is_alive(*record))
      return Error{purpose + " session", name, "a session of this name runs already",
                   "choose another with --name", ErrorCode::kBusy};
    return ClaimedName{name, std::move(lock)};
  }
  std::string base = name_for_program(program);
  for (int number = 1; number < kMostNumbers; ++number) {
    std::string candidate = number == 1 ? base : fmt::format("{}-{}", base, number);
    auto record = load_record(candidate);
    if ((record.ok() && is_alive(*record)) || has_checkpoints(store, candidate)) continue;
    auto lock = SessionLock::take(candidate, purpose);
    if (!lock.ok()) {
      if (lock.error().code == ErrorCode::kBusy) continue;
      return std::move(lock).error();
    }
    // Somebody may have started it between the look and the lock.
    record = load_record(candidate);
    if (record.ok() && is_alive(*record)) continue;
    return ClaimedName{candidate, std::move(lock).value()};
  }
  return Error{"name the session", base, "all numbers are taken", "choose a name with --name",
               ErrorCode::kBusy};
}

Result<std::string> absolute_store(const std::string& store) {
  if (store.empty()) return image::default_store();
  if (store.front() == '/') return store;
  char directory[PATH_MAX];
  if (::getcwd(directory, sizeof(directory)) == nullptr) return errno_error("find the store", store);
  return std::string(directory) + "/" + store;
}

}  // namespace stasis::session
