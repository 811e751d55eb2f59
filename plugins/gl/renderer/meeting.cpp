#include "renderer/meeting.h"

#include <chrono>
#include <sstream>

namespace stasis::gl {

void Meeting::join(Ring* ring) {
  std::lock_guard lock(mutex_);
  rings_[ring->id] = ring;
}

void Meeting::leave(Ring* ring) {
  std::lock_guard lock(mutex_);
  rings_.erase(ring->id);
  changed_.notify_all();
}

void Meeting::wait(Renderer& renderer, uint64_t position) {
  std::unique_lock lock(mutex_);
  const uint32_t number = renderer.ring->id;
  const auto wanted = wanted_.find(number);
  if (!called_ || (wanted != wanted_.end() && position < wanted->second)) return;
  renderer.release_context();
  there_[number] = position;
  changed_.notify_all();
  changed_.wait(lock, [&] { return !called_; });
  renderer.take_context();
}

std::string Meeting::call(const std::string& positions) {
  // The driver may be at work on something long (softpipe draws for seconds), or a primitive be half said.
  // The program runs meanwhile.
  constexpr auto kPatience = std::chrono::seconds(15);
  std::unique_lock lock(mutex_);
  wanted_.clear();
  there_.clear();
  std::istringstream stream(positions);
  char colon = 0;
  uint32_t number = 0;
  for (uint64_t position = 0; stream >> number >> colon >> position;) wanted_[number] = position;
  called_ = true;
  for (const auto& [id, ring] : rings_) RingReader::interrupt(*ring, kRenderer);
  const bool all = changed_.wait_for(lock, kPatience, [&] { return there_.size() == rings_.size(); });
  if (!all) {
    called_ = false;
    changed_.notify_all();
    return "later";
  }
  std::string text = "ok";
  for (const auto& [id, position] : there_) text += " " + std::to_string(id) + ":" + std::to_string(position);
  return text;
}

void Meeting::end() {
  std::lock_guard lock(mutex_);
  called_ = false;
  changed_.notify_all();
}

}  // namespace stasis::gl
