// What the kernel tells about a unix socket from outside, by the sock_diag(7) netlink interface.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "stasis/result.h"

namespace stasis::resource {

struct UnixDiag {
  bool listening = false;
  std::optional<uint32_t> peer;  // inode of the other end; 0: closed, or not accepted yet
  uint32_t backlog = 0;          // of a listener
  uint32_t waiting = 0;          // connections that a listener has not accepted
  // The other ends of those, by inode, the first first; 0: it has been closed.
  std::vector<uint32_t> waiting_clients;
  bool cannot_read = false;
  bool cannot_write = false;
  std::optional<uint32_t> file;  // low half of the inode number of the socket's file
};

// The socket with this inode in our network namespace; needs no privilege.
Result<UnixDiag> unix_diag(ino_t inode);
// All of our network namespace, by inode. The kernel searches all that it has for each single question: who
// has many asks once.
using UnixDiags = std::unordered_map<uint32_t, UnixDiag>;
Result<UnixDiags> all_unix_diags();

}  // namespace stasis::resource
