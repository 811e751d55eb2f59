// Messages of netlink(7), as rtnetlink(7) and its neighbours speak it.
#pragma once

#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::kernel {

class NetlinkRequest {
 public:
  // `flags`: beside NLM_F_REQUEST. `head`: the structure with which the message begins.
  template <typename Head>
  NetlinkRequest(uint16_t type, uint16_t flags, const Head& head)
      : NetlinkRequest(type, flags, std::string_view(reinterpret_cast<const char*>(&head), sizeof head)) {}
  NetlinkRequest(uint16_t type, uint16_t flags, std::string_view head);

  void add(uint16_t type, std::string_view value);
  template <typename Value>
  void add_value(uint16_t type, const Value& value) {
    add(type, {reinterpret_cast<const char*>(&value), sizeof value});
  }
  void add_name(uint16_t type, const std::string& name) { add(type, {name.c_str(), name.size() + 1}); }
  // What is added until end() is in an attribute of this type.
  size_t begin(uint16_t type);
  void end(size_t begun);
  // In the middle of a nest: a structure that stands before attributes.
  void add_raw(std::string_view bytes);

  std::string& bytes() { return bytes_; }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

struct NetlinkMessage {
  uint16_t type = 0;
  std::string payload;

  // The structure with which it begins; zeros when it is shorter.
  template <typename Head>
  Head head() const {
    Head value = {};
    memcpy(&value, payload.data(), std::min(payload.size(), sizeof value));
    return value;
  }
};

// The attributes behind a structure of `head` bytes, or in a nest; in their order.
struct NetlinkAttributeView {
  uint16_t type = 0;
  std::string_view value;
};
std::vector<NetlinkAttributeView> netlink_attributes(std::string_view bytes, size_t head = 0);
// The same by type; the last one of a type counts.
std::map<uint16_t, std::string_view> netlink_attribute_map(std::string_view bytes, size_t head = 0);

template <typename Value>
Value netlink_value(std::string_view bytes) {
  Value value = {};
  memcpy(&value, bytes.data(), std::min(bytes.size(), sizeof value));
  return value;
}
// Without the NUL at its end.
std::string netlink_name(std::string_view bytes);

// A socket of the network namespace in which it was opened, wherever this process is afterwards.
class Netlink {
 public:
  static Result<Netlink> open(int protocol);
  explicit Netlink(Fd fd) : fd_(std::move(fd)) {}

  // 0 when it was done; else the error number. `reply`: gets a message that comes before the acknowledgement.
  int ask(const NetlinkRequest& request, NetlinkMessage* reply = nullptr);
  // All of these or nothing, as nfnetlink takes them: the first and the last ones mark the batch. 0 when it
  // was done; else an error number, and which request the kernel did not like.
  int transact(const std::vector<NetlinkRequest>& requests, size_t& refused);
  // What the kernel said about the last error beside its number; may be empty.
  const std::string& explanation() const { return explanation_; }
  // "No such device (the lower device does not exist)"
  std::string story_of(int error) const;
  // All that the request lists. An error number when the kernel does not know the request.
  struct Dump {
    int error = 0;
    std::vector<NetlinkMessage> messages;
  };
  Dump dump(const NetlinkRequest& request);

 private:
  Dump dump_once(const NetlinkRequest& request, bool& interrupted);
  int send(const NetlinkRequest& request);
  // The messages of one datagram; false when there was none.
  bool receive(std::string& bytes);

  Fd fd_;
  uint32_t sequence_ = 0;
  std::string explanation_;
};

}  // namespace stasis::kernel
