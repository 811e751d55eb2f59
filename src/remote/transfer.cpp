#include "remote/transfer.h"

#include <limits.h>

#include <algorithm>
#include <cerrno>

namespace stasis::remote {

Result<void> Transfer::move(HostTid task, Call call, const char* step) const {
  for (size_t first = 0; first < local_.size(); first += IOV_MAX) {
    const size_t count = std::min<size_t>(local_.size() - first, IOV_MAX);
    ssize_t bytes = 0;
    for (size_t i = 0; i < count; ++i) bytes += static_cast<ssize_t>(local_[first + i].iov_len);
    const ssize_t done = call(task.value, local_.data() + first, count, remote_.data() + first, count, 0);
    if (done != bytes) return errno_error(step, fmt::format("task {}", task), done < 0 ? errno : EFAULT);
  }
  return {};
}

// What lies side by side needs one call.
Result<void> Transfer::write(HostTid task, int memory) const {
  for (size_t first = 0; first < local_.size();) {
    size_t last = first;
    auto end = reinterpret_cast<uint64_t>(remote_[first].iov_base);
    ssize_t bytes = 0;
    while (last < local_.size() && reinterpret_cast<uint64_t>(remote_[last].iov_base) == end &&
           last - first < IOV_MAX) {
      end += remote_[last].iov_len;
      bytes += static_cast<ssize_t>(remote_[last++].iov_len);
    }
    const auto place = reinterpret_cast<off_t>(remote_[first].iov_base);
    const ssize_t done = ::pwritev(memory, local_.data() + first, static_cast<int>(last - first), place);
    if (done != bytes)
      return errno_error("write code", fmt::format("task {} at {:#x}", task, place),
                         done < 0 ? errno : EFAULT);
    first = last;
  }
  return {};
}

}  // namespace stasis::remote
