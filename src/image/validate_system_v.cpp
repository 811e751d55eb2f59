#include "image/validate_internal.h"
#include "kernel/huge_pages.h"

namespace stasis::image::validation {
namespace {

// The kernel's bounds; what a sysctl may lower is not of interest here.
constexpr int kSemaphoresLimit = 32000;  // SEMMSL
constexpr uint32_t kValueLimit = 32767;  // SEMVMX
constexpr uint64_t kQueueLimit = 1 << 30;

// Ids and keys name one object each, of a kind.
class Names {
 public:
  explicit Names(const char* kind) : kind_(kind) {}

  Result<void> check(const schema::IpcObject& object, bool removed = false) {
    const std::string where = fmt::format("{} {}", kind_, object.id());
    if (object.id() < 0) return bad(where, "its id is none");
    if (!ids_.insert(object.id()).second) return bad(where, "its id is used twice");
    if (object.key() != 0 && !removed && !keys_.insert(object.key()).second)
      return bad(where, fmt::format("its key {:#x} is used twice", object.key()));
    if (object.mode() > 0777) return bad(where, fmt::format("mode {:o}", object.mode()));
    return {};
  }

 private:
  const char* kind_;
  std::unordered_set<int32_t> ids_, keys_;
};

}  // namespace

Result<void> check_system_v(Known& known) {
  const auto& objects = known.manifest->system_v();
  Names segments("segment"), sets("semaphore set"), queues("message queue");
  for (const auto& segment : objects.segments()) {
    STASIS_CHECK(segments.check(segment.object(), segment.removed()));
    const std::string where = fmt::format("segment {}", segment.object().id());
    if (segment.size() == 0 || segment.size() > kSizeLimit)
      return bad(where, fmt::format("{} bytes are impossible", segment.size()));
    STASIS_TRY(const PageFileSizes files, page_file_sizes(segment, where, known));
    STASIS_CHECK(check_huge_page_shift(segment.huge_page_shift(), where));
    const uint64_t size = kernel::in_whole_pages(segment.size(), segment.huge_page_shift());
    STASIS_CHECK(check_runs(segment.runs(), size, files, where));
    known.segments[segment.object().id()] = size;
  }
  for (const auto& set : objects.semaphore_sets()) {
    STASIS_CHECK(sets.check(set.object()));
    const std::string where = fmt::format("semaphore set {}", set.object().id());
    if (set.values_size() < 1 || set.values_size() > kSemaphoresLimit)
      return bad(where, fmt::format("it has {} semaphores", set.values_size()));
    if (set.last_pids_size() != set.values_size()) return bad(where, "it has not one last user for each");
    for (uint32_t value : set.values()) {
      if (value > kValueLimit) return bad(where, fmt::format("a semaphore of {}", value));
    }
    known.semaphore_sets[set.object().id()] = static_cast<uint32_t>(set.values_size());
  }
  for (const auto& queue : objects.queues()) {
    STASIS_CHECK(queues.check(queue.object()));
    const std::string where = fmt::format("message queue {}", queue.object().id());
    if (queue.max_bytes() > kQueueLimit)
      return bad(where, fmt::format("{} bytes at most", queue.max_bytes()));
    for (const auto& message : queue.messages()) {
      if (message.type() < 1) return bad(where, fmt::format("a message of type {}", message.type()));
      if (message.text().size() > kQueueLimit) return bad(where, "a message is too long");
    }
  }
  return {};
}

}  // namespace stasis::image::validation
