// Makes the threads of all rings stand still between two packets, so that their contexts can be looked at.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>

#include "renderer/renderer.h"

namespace stasis::gl {

class Meeting {
 public:
  // A thread serves that ring from now on, until it leaves.
  void join(Ring* ring);
  void leave(Ring* ring);
  // Called by these threads between packets.
  void between(Renderer& renderer, uint64_t position) {
    if (called_.load(std::memory_order_relaxed)) wait(renderer, position);
  }

  // Every thread gets at least as far as `positions` (RING:POSITION ...) say and stands still there, without
  // its context. "ok RING:POSITION ...", or "later" when one does not come.
  std::string call(const std::string& positions);
  void end();

 private:
  void wait(Renderer& renderer, uint64_t position);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<bool> called_ = false;
  std::map<uint32_t, Ring*> rings_;
  std::map<uint32_t, uint64_t> wanted_, there_;
};

}  // namespace stasis::gl
