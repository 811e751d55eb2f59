// Looking at a network that this process is not in. Sockets belong to the network in which they were opened
// and files of /proc/net show it, so a helper that is there opens them for us.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>

#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::kernel {

// A process in a network, until this is destroyed.
class NetworkHelper {
 public:
  // `user`: the user namespace to enter before, which gives the right to enter the network; may be empty.
  static Result<std::unique_ptr<NetworkHelper>> start(const Fd& network, const Fd& user);
  NetworkHelper(const NetworkHelper&) = delete;
  NetworkHelper& operator=(const NetworkHelper&) = delete;
  ~NetworkHelper();

  // As socket() would; errno tells why there is none.
  Fd socket(int domain, int type, int protocol);
  Fd open(const std::string& path);

 private:
  NetworkHelper(Fd channel, pid_t process) : channel_(std::move(channel)), process_(process) {}
  friend uint64_t network_view();
  Fd ask(const void* request, size_t size);
  static inline uint64_t last_number_ = 0;
  const uint64_t number_ = ++last_number_;
  Fd channel_;
  pid_t process_;
};

// As long as it lives, the functions below look into that network and not into our own.
class LookingInto {
 public:
  explicit LookingInto(NetworkHelper* helper = nullptr);
  LookingInto(LookingInto&& other) noexcept;
  LookingInto& operator=(LookingInto&& other) noexcept;
  ~LookingInto();

 private:
  NetworkHelper* helper_;
};

// Which network that is: 0 for our own, else a number for each helper.
uint64_t network_view();
Fd network_socket(int domain, int type, int protocol);
// The name of an interface, or its number; empty, or 0: there is none.
std::string network_interface_name(unsigned index);
unsigned network_interface_index(const std::string& name);
// A file of /proc/self/net.
Result<std::string> read_network_file(const std::string& name);

}  // namespace stasis::kernel
