// A ring as its readers map it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "wire/packet.h"
#include "wire/ring.h"

namespace stasis::gl {

// Null when the file is not a ring. The descriptor stays the caller's.
Ring* map_ring(int file);

// Of whom a ring is, and what changes when its program gets on. What is mapped for that is not kept.
struct RingPlace {
  bool valid = false;
  uint64_t program = 0, progress = 0;
};
RingPlace place_of_ring(int file);

// One message between the parts: a text, with or without the file of a ring.
struct Message {
  std::string text;
  int file = -1;  // the receiver's to close
};
constexpr size_t kLongestText = 4096;
// False at the end of the connection.
bool receive(int connection, Message& message);
bool send(int connection, const Message& message);

// The whole of a file; what is written takes the place of what was there.
bool read_all(int file, std::string& bytes);
bool write_all(int file, const std::string& bytes);

// What a keeper writes at a checkpoint, and renderer and keeper read at a restart.
struct LogFile {
  uint64_t program = 0;
  std::string replay;  // packets that make the state
  struct Thread {
    uint32_t ring;
    uint64_t position;    // everything before it is in the log
    std::string packets;  // that give the thread its context
  };
  std::vector<Thread> threads;

  // Empty on success, else what is wrong.
  std::string bytes() const;
  std::string write(int into) const;
  std::string read(const std::string& path);
  // `path` is for what is said.
  std::string parse(std::string bytes, const std::string& path);
  const Thread* thread(uint32_t ring) const;
};

// Calls `handle` for each packet of a text of packets.
void for_each_packet(const std::string& packets, const std::function<void(const Packet&)>& handle);

}  // namespace stasis::gl
