// What the guests share. They are C++ without any run time, of general registers alone (what is interpreted
// knows no others), and each defines work(); see boot.S.
#pragma once
#include "layout.h"

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;

// As the stubs of boot.S leave it.
struct Frame {
  u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
  u64 vector, error, rip, cs, flags, rsp, ss;
};

extern "C" {
extern const u32 privilege;   // of work(): 3, or 0
extern const u64 flags;       // of work() in ring 3
void prepare(u64 processor);  // in ring 0, before work()
void work(u64 processor);
void interrupt(Frame* frame);
}

inline const volatile layout::Parameters& parameters() {
  return *reinterpret_cast<const volatile layout::Parameters*>(layout::kParameters);
}

inline void out8(u16 port, u8 value) { asm volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory"); }
inline void out32(u16 port, u32 value) { asm volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory"); }
inline u8 in8(u16 port) {
  u8 value;
  asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
  return value;
}
inline u32 in32(u16 port) {
  u32 value;
  asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
  return value;
}
// One instruction, whatever the compiler would make of it.
inline u32 read32(u64 at) {
  u32 value;
  asm volatile("movl (%1), %0" : "=r"(value) : "r"(at) : "memory");
  return value;
}
inline u64 read64(u64 at) {
  u64 value;
  asm volatile("movq (%1), %0" : "=r"(value) : "r"(at) : "memory");
  return value;
}
inline void write32(u64 at, u32 value) { asm volatile("movl %0, (%1)" : : "r"(value), "r"(at) : "memory"); }
inline void write64(u64 at, u64 value) { asm volatile("movq %0, (%1)" : : "r"(value), "r"(at) : "memory"); }
inline u64 read_msr(u32 number) {
  u32 low, high;
  asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(number) : "memory");
  return u64{high} << 32 | low;
}
inline void write_msr(u32 number, u64 value) {
  asm volatile("wrmsr" : : "c"(number), "a"(u32(value)), "d"(u32(value >> 32)) : "memory");
}
inline u64 tsc() {
  u32 low, high;
  asm volatile("lfence; rdtsc" : "=a"(low), "=d"(high) : : "memory");
  return u64{high} << 32 | low;
}
// For ring 0, where lfence may be interpreted by something that does not know it.
inline u64 tsc_plain() {
  u32 low, high;
  asm volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
  return u64{high} << 32 | low;
}
struct Cpuid {
  u32 a, b, c, d;
};
inline Cpuid cpuid(u32 leaf, u32 subleaf = 0) {
  Cpuid r;
  asm volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(subleaf));
  return r;
}

// A line for the console. The monitor puts it together for each processor by itself, so that they do not mix.
class Line {
 public:
  explicit Line(const char* text) { *this << text; }
  Line& operator<<(const char* text) {
    while (*text != 0) put(*text++);
    return *this;
  }
  Line& operator<<(u64 number) {
    char digits[20];
    int count = 0;
    do {
      digits[count++] = char('0' + number % 10);
      number /= 10;
    } while (number != 0);
    while (count > 0) put(digits[--count]);
    return *this;
  }
  Line& hex(u64 number) {
    *this << "0x";
    for (int shift = 60; shift >= 0; shift -= 4) {
      if (u64 rest = number >> shift; rest != 0 || shift == 0) put("0123456789abcdef"[rest & 15]);
    }
    return *this;
  }
  ~Line() {
    put('\n');
    for (u32 i = 0; i < length_; ++i) out8(layout::kConsole, u8(text_[i]));
  }

 private:
  void put(char c) {
    if (length_ < sizeof text_) text_[length_++] = c;
  }
  char text_[200];
  u32 length_ = 0;
};

// The monitor ends with this line, so nothing comes after it.
[[noreturn]] inline void stop() {
  for (;;) asm volatile("pause");
}
#define BAD(what)         \
  do {                    \
    Line("BAD ") << what; \
    stop();               \
  } while (false)
#define SKIP(what)         \
  do {                     \
    Line("SKIP ") << what; \
    stop();                \
  } while (false)

inline void expect(const char* what, u64 seen, u64 wanted) {
  if (seen == wanted) return;
  ((Line("BAD ") << what << " is ").hex(seen) << " instead of ").hex(wanted);
  stop();
}

// Says about sixteen times a second that it is time for a tick.
class Ticker {
 public:
  explicit Ticker(u64 milliseconds = 60)
      : period_(parameters().tsc_khz * milliseconds), next_(tsc_plain() + period_) {}
  bool due() {
    u64 now = tsc_plain();
    if (now < next_) return false;
    next_ = now + period_;
    return true;
  }
  u64 count = 0;

 private:
  u64 period_, next_;
};

inline constexpr u64 kLapic = 0xfee00000;

// INIT and SIPI for all processors but this one. After the first they wait for the second.
inline bool has_others() { return parameters().chip != 0 && parameters().processors > 1; }
inline void init_others() {
  if (!has_others()) return;
  write32(kLapic + 0xf0, 0x1ff);
  write32(kLapic + 0x300, 0xc4500);
}
inline void sipi_others() {
  if (has_others()) write32(kLapic + 0x300, 0xc4600 | u32(layout::kImage >> 12));
}
inline void start_others() {
  init_others();
  sipi_others();
}
