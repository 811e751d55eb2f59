#include "resource/socket/inet.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <sstream>

#include "stasis/fd.h"

namespace stasis::resource {
namespace {

struct Parsed {
  in6_addr address = {};
  uint16_t port = 0;
  bool valid = false;
};

Parsed parse(const std::string& bytes) {
  Parsed result;
  sockaddr_storage storage = {};
  memcpy(&storage, bytes.data(), std::min(bytes.size(), sizeof storage));
  if (storage.ss_family == AF_INET && bytes.size() >= sizeof(sockaddr_in)) {
    auto* in = reinterpret_cast<const sockaddr_in*>(&storage);
    result.address.s6_addr[10] = result.address.s6_addr[11] = 0xff;
    memcpy(&result.address.s6_addr[12], &in->sin_addr, sizeof in->sin_addr);
    result.port = ntohs(in->sin_port);
    result.valid = true;
  } else if (storage.ss_family == AF_INET6 && bytes.size() >= offsetof(sockaddr_in6, sin6_scope_id)) {
    auto* in6 = reinterpret_cast<const sockaddr_in6*>(&storage);
    result.address = in6->sin6_addr;
    result.port = ntohs(in6->sin6_port);
    result.valid = true;
  }
  return result;
}

constexpr const char* kListening = "0A";

struct Holder {
  std::string inode;
  std::string user;
};

// "  0: 0100007F:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 ..."
Holder find_listener(uint16_t port) {
  std::string ending = fmt::format(":{:04X}", port);
  for (const char* table : {"/proc/self/net/tcp", "/proc/self/net/tcp6"}) {
    auto text = read_file(table);
    if (!text.ok()) continue;
    std::istringstream lines(*text);
    for (std::string line; std::getline(lines, line);) {
      std::istringstream words(line);
      std::string slot, local, remote, state, queues, timer, retransmits, timeout;
      Holder holder;
      words >> slot >> local >> remote >> state >> queues >> timer >> retransmits >> holder.user >> timeout >>
          holder.inode;
      if (state == kListening && local.ends_with(ending)) return holder;
    }
  }
  return {};
}

bool has_socket(const std::string& process, const std::string& link) {
  std::string directory = "/proc/" + process + "/fd";
  std::unique_ptr<DIR, int (*)(DIR*)> descriptors(opendir(directory.c_str()), closedir);
  if (!descriptors) return false;
  while (dirent* entry = readdir(descriptors.get())) {
    std::array<char, 64> target;
    ssize_t length = readlinkat(dirfd(descriptors.get()), entry->d_name, target.data(), target.size());
    if (length > 0 && std::string_view(target.data(), static_cast<size_t>(length)) == link) return true;
  }
  return false;
}

}  // namespace

std::string endpoint(const std::string& address) {
  Parsed parsed = parse(address);
  if (!parsed.valid) return {};
  std::string key(reinterpret_cast<const char*>(&parsed.address), sizeof parsed.address);
  return key + fmt::format(":{}", parsed.port);
}

std::string shown(const std::string& address) {
  Parsed parsed = parse(address);
  if (!parsed.valid) return "an unknown address";
  std::array<char, INET6_ADDRSTRLEN> text = {};
  if (IN6_IS_ADDR_V4MAPPED(&parsed.address)) {
    inet_ntop(AF_INET, &parsed.address.s6_addr[12], text.data(), text.size());
    return fmt::format("{}:{}", text.data(), parsed.port);
  }
  inet_ntop(AF_INET6, &parsed.address, text.data(), text.size());
  return fmt::format("[{}]:{}", text.data(), parsed.port);
}

uint16_t port_of(const std::string& address) { return parse(address).port; }

bool is_any(const std::string& address) {
  Parsed parsed = parse(address);
  in_addr v4 = {};
  memcpy(&v4, &parsed.address.s6_addr[12], sizeof v4);
  if (IN6_IS_ADDR_V4MAPPED(&parsed.address)) return v4.s_addr == INADDR_ANY;
  return IN6_IS_ADDR_UNSPECIFIED(&parsed.address);
}

bool is_loopback(const std::string& address) {
  Parsed parsed = parse(address);
  if (IN6_IS_ADDR_V4MAPPED(&parsed.address)) return parsed.address.s6_addr[12] == IN_LOOPBACKNET;
  return IN6_IS_ADDR_LOOPBACK(&parsed.address);
}

std::string with_port(std::string address, uint16_t port) {
  // sin_port and sin6_port are at the same place.
  static_assert(offsetof(sockaddr_in, sin_port) == offsetof(sockaddr_in6, sin6_port));
  uint16_t value = htons(port);
  if (address.size() >= sizeof(sockaddr_in))
    memcpy(&address[offsetof(sockaddr_in, sin_port)], &value, sizeof value);
  return address;
}

std::string loopback(int family) {
  if (family == AF_INET6) {
    sockaddr_in6 in6 = {};
    in6.sin6_family = AF_INET6;
    in6.sin6_addr = in6addr_loopback;
    return {reinterpret_cast<char*>(&in6), sizeof in6};
  }
  sockaddr_in in = {};
  in.sin_family = AF_INET;
  in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return {reinterpret_cast<char*>(&in), sizeof in};
}

std::string any_address(int family) {
  if (family == AF_INET6) {
    sockaddr_in6 in6 = {};
    in6.sin6_family = AF_INET6;
    return {reinterpret_cast<char*>(&in6), sizeof in6};
  }
  sockaddr_in in = {};
  in.sin_family = AF_INET;
  return {reinterpret_cast<char*>(&in), sizeof in};
}

std::string holder_of_tcp_port(uint16_t port) {
  Holder holder = find_listener(port);
  if (holder.inode.empty()) return {};
  std::string link = "socket:[" + holder.inode + "]";
  std::unique_ptr<DIR, int (*)(DIR*)> processes(opendir("/proc"), closedir);
  while (dirent* entry = processes ? readdir(processes.get()) : nullptr) {
    if (entry->d_name[0] < '1' || entry->d_name[0] > '9' || !has_socket(entry->d_name, link)) continue;
    auto name = read_file(fmt::format("/proc/{}/comm", entry->d_name));
    std::string comm = name.ok() ? name->substr(0, name->find('\n')) : "?";
    return fmt::format("process {} ({})", entry->d_name, comm);
  }
  return "a program of user " + holder.user;
}

}  // namespace stasis::resource
