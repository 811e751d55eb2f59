#include "inspect/filters.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/ptrace.h>

#include <vector>

#include "remote/tracee.h"

namespace stasis::inspect {

namespace {

constexpr int kStrict = 1, kFilter = 2;  // as /proc/PID/status shows them

// linux/ptrace.h, which clashes with the C library's.
constexpr auto kGetFilter = static_cast<__ptrace_request>(0x420c);
constexpr auto kGetMetadata = static_cast<__ptrace_request>(0x420d);
struct Metadata {
  uint64_t filter_off;
  uint64_t flags;
};

// Filters that init, or this command, has, too, are not the program's: the memory guard of an earlier
// restart, or what the whole of stasis was started under (a container's).
int shared_filters(const freeze::FrozenTree& tree) {
  auto init = kernel::read_status(tree.surroundings());
  return init.ok() ? init->seccomp_filters : 0;
}

bool has_own(const kernel::TaskStatus& status, int shared) {
  return status.seccomp == kStrict || (status.seccomp == kFilter && status.seccomp_filters != shared);
}

Error refuse(const freeze::FrozenThread& thread, std::string cause, std::string hint) {
  return Error{"save", fmt::format("task {} ({})", thread.ns_tid, thread.status.name), std::move(cause),
               std::move(hint), ErrorCode::kRefused};
}

bool asks_somebody(const std::vector<sock_filter>& code) {
  for (const sock_filter& step : code) {
    if (step.code == (BPF_RET | BPF_K) && (step.k & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_USER_NOTIF)
      return true;
  }
  return false;
}

Result<std::vector<sock_filter>> read_filter(const freeze::FrozenThread& thread, int number) {
  auto get = [&](void* into) { return ::ptrace(kGetFilter, thread.tid.value, number, into); };
  const long size = get(nullptr);
  std::vector<sock_filter> code(size > 0 ? static_cast<size_t>(size) : 0);
  if (size <= 0 || get(code.data()) != size) {
    return refuse(thread, fmt::format("its seccomp filter cannot be read: {}", std::strerror(errno)),
                  "checkpoint it as root, or start it without its sandbox (for example --no-sandbox)");
  }
  if (asks_somebody(code)) {
    return refuse(thread, "its seccomp filter asks another process (SECCOMP_RET_USER_NOTIF)",
                  "end the sandbox supervisor");
  }
  return code;
}

uint32_t index_of(const schema::SeccompFilter& filter, schema::Manifest& manifest) {
  for (int i = 0; i < manifest.seccomp_filters_size(); ++i) {
    const auto& known = manifest.seccomp_filters(i);
    if (known.code() == filter.code() && known.flags() == filter.flags()) return static_cast<uint32_t>(i);
  }
  *manifest.add_seccomp_filters() = filter;
  return static_cast<uint32_t>(manifest.seccomp_filters_size() - 1);
}

}  // namespace

Result<void> suspend_filters(const freeze::FrozenTree& tree) {
  const int shared = shared_filters(tree);
  for (const auto& process : tree.processes()) {
    for (const auto& thread : process.threads) {
      if (!has_own(thread.status, shared)) continue;
      // Linux, kernel/ptrace.c: CAP_SYS_ADMIN, and no filter of our own.
      if (remote::Tracee(thread.tid).set_options(remote::kSuspendSeccomp).ok()) continue;
      return refuse(thread, "it has a seccomp filter, which only root can read and suspend",
                    "checkpoint it as root, or start it without its sandbox (for example --no-sandbox)");
    }
  }
  return {};
}

Result<void> observe_filters(const freeze::FrozenTree& tree, const freeze::FrozenProcess& process,
                             schema::Process& out, schema::Manifest& manifest) {
  const int shared = shared_filters(tree);
  for (const auto& thread : process.threads) {
    if (!has_own(thread.status, shared)) continue;
    schema::Thread* record = nullptr;
    for (auto& candidate : *out.mutable_threads()) {
      if (candidate.tid() == thread.ns_tid.value) record = &candidate;
    }
    if (record == nullptr) continue;
    if (thread.status.seccomp == kStrict) {
      record->set_strict(true);
      continue;
    }
    for (int number = shared; number < thread.status.seccomp_filters; ++number) {
      STASIS_TRY(auto code, read_filter(thread, number));
      schema::SeccompFilter filter;
      filter.set_code(
          std::string(reinterpret_cast<const char*>(code.data()), code.size() * sizeof(sock_filter)));
      Metadata metadata = {static_cast<uint64_t>(number), 0};
      if (::ptrace(kGetMetadata, thread.tid.value, sizeof metadata, &metadata) > 0)
        filter.set_flags(static_cast<uint32_t>(metadata.flags) & SECCOMP_FILTER_FLAG_LOG);
      record->add_filters(index_of(filter, manifest));
    }
  }
  return {};
}

}  // namespace stasis::inspect
