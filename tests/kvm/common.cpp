// What a guest gets that does not define it by itself.
#include "guest.h"

extern "C" {
[[gnu::weak]] extern const u32 privilege = 3;
[[gnu::weak]] extern const u64 flags = 0x3002;

[[gnu::weak]] void prepare(u64 processor) {
  if (processor == 0) start_others();
}

[[gnu::weak]] void interrupt(Frame* frame) {
  (Line("BAD interrupt ") << frame->vector << " error " << frame->error << " at ").hex(frame->rip);
  stop();
}

// The compiler calls these even where nothing is hosted.
void* memset(void* to, int value, u64 size) {
  for (u64 i = 0; i < size; ++i) static_cast<volatile u8*>(to)[i] = u8(value);
  return to;
}
void* memcpy(void* to, const void* from, u64 size) {
  for (u64 i = 0; i < size; ++i) static_cast<volatile u8*>(to)[i] = static_cast<const u8*>(from)[i];
  return to;
}
}
