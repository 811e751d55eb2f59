#include "session/interval.h"

#include <fcntl.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "image/store.h"
#include "session/checkpoint.h"

namespace stasis::session {
namespace {

using nlohmann::json;

// Checkpoints with this tag were made by the timer and may be removed by it.
constexpr const char* kIntervalTag = "interval";
constexpr size_t kLargestFailure = 64 << 10;

Result<void> prune(const Record& record) {
  if (record.keep == 0) return {};
  STASIS_TRY(std::vector<image::Entry> entries, image::list(record.store + "/" + record.name));
  std::erase_if(entries, [](const image::Entry& entry) { return entry.tag != kIntervalTag; });
  for (size_t i = 0; i + record.keep < entries.size(); ++i) STASIS_CHECK(image::remove(entries[i].directory));
  return {};
}

void write_log(const std::string& directory, const std::string& text) {
  auto file = open_file(directory + "/log", O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (!file.ok()) return;
  if (!write_all(file->get(), fmt::format("{} {}\n", clock_ns(CLOCK_REALTIME) / 1'000'000'000, text)).ok())
    return;
}

// Replaced as a whole, since others read it meanwhile. What cannot be written is in the log, or nowhere.
void write_failure(const std::string& directory, const IntervalFailure& failure) {
  const std::string path = directory + "/" + kIntervalFailureFile, draft = path + ".new";
  const json value = {{"since_ns", failure.since_ns}, {"message", failure.message}};
  auto file = open_file(draft, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (!file.ok()) return;
  if (write_all(file->get(), value.dump(-1, ' ', false, json::error_handler_t::replace)).ok())
    ::rename(draft.c_str(), path.c_str());
}

}  // namespace

int interval_checkpoint(const Record& record) {
  auto directory = session_directory(record.name);
  if (!directory.ok()) return 1;
  const int64_t begun_ns = clock_ns(CLOCK_REALTIME);
  auto failed = [&](const Error& error) {
    write_log(*directory, error.message());
    // Somebody else is saving it: no harm is done.
    if (error.code == ErrorCode::kBusy) return 1;
    auto before = interval_failure(record.name);
    write_failure(*directory, {before ? before->since_ns : begun_ns, error.message()});
    return 1;
  };
  auto result = checkpoint_session({.name = record.name, .tag = kIntervalTag});
  if (!result.ok()) return failed(result.error());
  for (const std::string& warning : result->warnings) write_log(*directory, warning);
  if (auto pruned = prune(record); !pruned.ok()) return failed(pruned.error());
  ::unlink((*directory + "/" + kIntervalFailureFile).c_str());
  return 0;
}

std::optional<IntervalFailure> interval_failure(const std::string& name) {
  auto directory = session_directory(name);
  if (!directory.ok()) return std::nullopt;
  auto text = read_file(*directory + "/" + kIntervalFailureFile, kLargestFailure);
  if (!text.ok()) return std::nullopt;
  const json value = json::parse(*text, nullptr, /*allow_exceptions=*/false);
  try {
    return IntervalFailure{value.at("since_ns").get<int64_t>(), value.at("message").get<std::string>()};
  } catch (const json::exception&) {
    return std::nullopt;  // not whole: the disk was full
  }
}

}  // namespace stasis::session
