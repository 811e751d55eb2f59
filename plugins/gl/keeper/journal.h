// The log outlives its keeper: in a memory file that the server holds, too, is a log as it was at some
// moment, and behind it all that has been taken since. It is whole at every instant, so a keeper may be
// killed at any; the next one begins with what is there.
//
//   [header: one page] [slot 0: sparse] [slot 1: sparse]
//
// One slot is the journal; when that has become long, the log is written into the other one, which then is.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "wire/packet.h"

namespace stasis::gl {

class Journal {
 public:
  // Maps the file, which is new or that of a keeper before.
  explicit Journal(int file);

  bool is_mapped() const { return header_ != nullptr; }
  bool is_empty() const { return header_->generation.load() == 0; }

  // Everything before is in this log (the bytes of a LogFile, and packets that follow it).
  void begin(const std::string& log, const std::string& more);
  // A packet of that ring, which ends at that position. What is not kept needs no entry of its own; the
  // position of the next entry tells that it has been dealt with.
  void add(uint32_t ring, uint64_t position, const Packet& packet);
  bool is_long() const;

  struct Entry {
    uint32_t ring;
    uint64_t position;
    const Packet* packet;
  };
  // What begin() was given, and then each entry. False: it is damaged.
  bool read(std::string& log, std::string& more, const std::function<void(const Entry&)>& handle) const;

  std::atomic<uint64_t>& recorded() { return header_->recorded; }

 private:
  struct Header {
    std::atomic<uint64_t> generation;  // its last bit is the slot; 0: nothing is there yet
    std::atomic<uint64_t> length[2];
    std::atomic<uint64_t> recorded;  // calls
  };
  struct EntryHeader {
    uint32_t ring, pad;
    uint64_t position;
  };
  char* slot(uint64_t generation) const;

  Header* header_ = nullptr;
  uint64_t length_ = 0, entries_at_ = 0;
};

}  // namespace stasis::gl
