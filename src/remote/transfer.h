// Many pieces of a task's memory in one system call: to find a page of another process takes longer than to
// copy it, and a call each for a thousand pieces longer than both.
#pragma once

#include <sys/uio.h>

#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::remote {

// All pieces go in the same direction.
class Transfer {
 public:
  // To be written; `bytes` live until then, unless they are given away.
  void put(RemotePtr address, std::string_view bytes) {
    add(address, const_cast<char*>(bytes.data()), bytes.size());
  }
  void put(RemotePtr address, std::string&& bytes) {
    put(address, std::string_view(kept_.emplace_back(std::move(bytes))));
  }
  // To be read.
  void get(RemotePtr address, std::span<char> room) { add(address, room.data(), room.size()); }

  size_t size() const { return local_.size(); }
  // Also into what is not writable, by a descriptor of /proc/PID/mem.
  Result<void> write(HostTid task, int memory) const;
  Result<void> write(HostTid task) const { return move(task, ::process_vm_writev, "write memory"); }
  Result<void> read(HostTid task) const { return move(task, ::process_vm_readv, "read memory"); }

 private:
  void add(RemotePtr address, char* data, size_t size) {
    if (size == 0) return;
    local_.push_back({data, size});
    remote_.push_back({reinterpret_cast<void*>(address.value), size});
  }
  using Call = ssize_t (*)(pid_t, const iovec*, unsigned long, const iovec*, unsigned long, unsigned long);
  Result<void> move(HostTid task, Call call, const char* step) const;

  std::deque<std::string> kept_;
  std::vector<iovec> local_, remote_;
};

}  // namespace stasis::remote
