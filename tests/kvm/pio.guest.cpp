// Ports: every number that is read is the one after the last, every one that is written must be. A tight loop
// of single accesses and of strings, so that most checkpoints come in the middle of one.
#include "guest.h"

namespace {

volatile u64 rounds[8];

void once(u16 read, u16 write, u32& expected, u32& written) {
  for (int i = 0; i < 8; ++i) {
    if (u32 seen = in32(read); seen != expected) {
      BAD("port read " << seen << " instead of " << expected);
    }
    ++expected;
    out32(write, written++);
  }
}

// Several numbers with one instruction, which KVM hands over together or one by one.
void string(u16 read, u16 write, u32& expected, u32& written) {
  u32 numbers[16];
  void* to = numbers;
  u64 count = 16;
  asm volatile("rep insl" : "+D"(to), "+c"(count) : "d"(read) : "memory");
  for (u32 number : numbers) {
    if (number != expected) BAD("string read " << number << " instead of " << expected);
    ++expected;
  }
  for (u32& number : numbers) number = written++;
  const void* from = numbers;
  count = 16;
  asm volatile("rep outsl" : "+S"(from), "+c"(count) : "d"(write) : "memory");
}

}  // namespace

extern "C" void work(u64 processor) {
  u16 read = u16(layout::kPortRead + processor * layout::kPortStride);
  u16 write = u16(layout::kPortWrite + processor * layout::kPortStride);
  u32 expected = 0, written = 0;
  Ticker ticker;
  for (;;) {
    once(read, write, expected, written);
    string(read, write, expected, written);
    rounds[processor] = rounds[processor] + 1;
    if (processor == 0 && ticker.due()) {
      Line line("TICK ");
      line << ticker.count++ << " rounds";
      for (u64 i = 0; i < parameters().processors; ++i) line << " " << rounds[i];
    }
  }
}
