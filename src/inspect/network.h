// What is in a network namespace: interfaces, addresses, routes, rules, neighbours, settings.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "schema/manifest.pb.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::inspect {

// A network of the session.
struct NetworkPlace {
  uint32_t id = 0;        // schema::Namespace::id; 0: the session's own
  uint64_t identity = 0;  // the inode of `network`
  Fd network;
  Fd user;  // the user namespace that has the right to enter it; empty: this process has it
};

// A process that has entered a network and looks at it, while this one does something else. Its destructor
// ends it.
class NetworkObserver {
 public:
  // `all`: which other networks an interface may lead to.
  static Result<NetworkObserver> begin(const NetworkPlace& place, const std::vector<NetworkPlace>& all);
  NetworkObserver(NetworkObserver&& other) noexcept;
  NetworkObserver& operator=(NetworkObserver&&) = delete;
  ~NetworkObserver();

  // Waits for what it has seen. An Error refuses what cannot be made again.
  Result<schema::Network> finish();

 private:
  NetworkObserver(pid_t process, Fd answer) : process_(process), answer_(std::move(answer)) {}
  void reap();
  pid_t process_;
  Fd answer_;
};

// Refuses a tun or tap device to which a process outside of the session is attached.
Result<void> check_tun_devices(const schema::Manifest& manifest);

}  // namespace stasis::inspect
