// Everything that a processor holds: general registers, the flags, x87, SSE, AVX and AVX-512 state as far as
// there is (by XSAVE), FS and GS, and in ring 0, by an exception from time to time, debug registers, control
// registers, MSRs, the local APIC and the IOAPIC. All of them hold values that are known, other ones on each
// processor.
#include "interrupts.h"

namespace {

// How ring 3 asks ring 0 to look at what only it sees: by an instruction that is none. (`int $n` is not
// carried out by a KVM that interprets it: tried with Linux 6.18 without VMX, where it becomes the same
// exception.)
constexpr u64 kInvalidInstruction = 6;
constexpr u32 kUsefulState = 0xe7;  // x87, SSE, AVX, AVX-512; not what the protection of pages depends on

struct alignas(64) Area {
  u8 bytes[4096];
};
struct Processor {
  Area wanted, seen;
  u64 general[16];
  u64 base[2];  // where FS and GS point to
  u32 state;    // components of XSAVE; 0: none
  u32 offset[8], size[8];
  u64 looked;
};
Processor processors[8];

u64 pattern(u64 processor, u64 generation, u64 what) {
  u64 x = (processor + 1) * 0x9e3779b97f4a7c15 ^ (generation + 1) * 0xc2b2ae3d27d4eb4f ^
          (what + 1) * 0x165667b19e3779f9;
  x ^= x << 13;
  x ^= x >> 7;
  return x ^ x << 17;
}

// --- what XSAVE saves

void find_state(Processor& me) {
  Cpuid features = cpuid(1);
  if ((features.c & 1U << 26) == 0) return;
  u64 control;
  asm volatile("movq %%cr4, %0" : "=r"(control));
  asm volatile("movq %0, %%cr4" : : "r"(control | 1 << 18));
  me.state = cpuid(0xd).a & kUsefulState;
  for (u32 i = 2; i < 8; ++i) {
    if ((me.state >> i & 1) == 0) continue;
    Cpuid component = cpuid(0xd, i);
    me.offset[i] = component.b;
    me.size[i] = component.a;
    if (component.a + component.b > sizeof(Area)) BAD("the XSAVE area is too large");
  }
  asm volatile("xsetbv" : : "c"(0), "a"(me.state), "d"(0));
}

void put64(Area& area, u32 at, u64 value) { *reinterpret_cast<u64*>(area.bytes + at) = value; }

void load_state(Processor& me, u64 processor, u64 generation) {
  Area& area = me.wanted;
  for (u32 i = 0; i < sizeof area; i += 8) put64(area, i, 0);
  put64(area, 0, 0x00ff'0000'027f);      // all exceptions masked, double precision; all registers in use
  put64(area, 24, 0x0002ffff'00001fa0);  // MXCSR: exceptions masked, and a flag that is set
  for (u32 i = 0; i < 8; ++i) {
    put64(area, 32 + 16 * i, pattern(processor, generation, i) | u64{1} << 63);  // a number, not what is none
    put64(area, 40 + 16 * i, 0x3fff + i);
  }
  for (u32 i = 0; i < 32; ++i) put64(area, 160 + 8 * i, pattern(processor, generation, 100 + i));
  put64(area, 512, me.state);
  for (u32 i = 2; i < 8; ++i) {
    if ((me.state >> i & 1) == 0) continue;
    for (u32 at = 0; at < me.size[i]; at += 8)
      put64(area, me.offset[i] + at, pattern(processor, generation, 200 + at));
  }
  if (me.state != 0) {
    asm volatile("xrstor64 %0" : : "m"(area), "a"(me.state), "d"(0));
  } else {
    asm volatile("fxrstor64 %0" : : "m"(area));
  }
}

void check_state(Processor& me) {
  for (u32 i = 0; i < sizeof(Area); i += 8) put64(me.seen, i, 0);
  if (me.state != 0) {
    asm volatile("xsave64 %0" : "+m"(me.seen) : "a"(me.state), "d"(0));
  } else {
    asm volatile("fxsave64 %0" : "+m"(me.seen));
  }
  for (u32 i = 0; i < sizeof(Area); i += 8) {
    // The last instruction of the x87, and what software may use.
    if (i == 8 || i == 16 || (i >= 464 && i < 512)) continue;
    if (i == 24) continue;
    u64 seen = *reinterpret_cast<u64*>(me.seen.bytes + i),
        wanted = *reinterpret_cast<u64*>(me.wanted.bytes + i);
    if (seen != wanted) BAD("byte " << i << " of the XSAVE area is " << seen << " instead of " << wanted);
  }
  expect("MXCSR", *reinterpret_cast<u32*>(me.seen.bytes + 24), 0x1fa0);
}

// --- general registers

// All but the stack's, in a loop that does nothing else; and the direction flag. Returns 0 if all stay as
// they are.
u64 check_general(u64* values) {
  u64 wrong;
  asm volatile(
      "pushq %%rbp\n"
      "pushq %%rbx\n"
      "pushq $200000\n"
      "pushq %[values]\n"
      "std\n"
      // values are below the stack pointer's own: the table's address is the one that is compared at (%rsp)
      "movq 8(%[values]), %%rbx\n movq 16(%[values]), %%rcx\n movq 24(%[values]), %%rdx\n"
      "movq 32(%[values]), %%rsi\n movq 40(%[values]), %%rdi\n movq 48(%[values]), %%rbp\n"
      "movq 56(%[values]), %%r8\n movq 64(%[values]), %%r9\n movq 72(%[values]), %%r10\n"
      "movq 80(%[values]), %%r11\n movq 88(%[values]), %%r12\n movq 96(%[values]), %%r13\n"
      "movq 104(%[values]), %%r14\n movq 112(%[values]), %%r15\n"
      "1: movq (%%rsp), %%rax\n"
      "cmpq 8(%%rax), %%rbx\n jne 2f\n cmpq 16(%%rax), %%rcx\n jne 2f\n cmpq 24(%%rax), %%rdx\n jne 2f\n"
      "cmpq 32(%%rax), %%rsi\n jne 2f\n cmpq 40(%%rax), %%rdi\n jne 2f\n cmpq 48(%%rax), %%rbp\n jne 2f\n"
      "cmpq 56(%%rax), %%r8\n jne 2f\n cmpq 64(%%rax), %%r9\n jne 2f\n cmpq 72(%%rax), %%r10\n jne 2f\n"
      "cmpq 80(%%rax), %%r11\n jne 2f\n cmpq 88(%%rax), %%r12\n jne 2f\n cmpq 96(%%rax), %%r13\n jne 2f\n"
      "cmpq 104(%%rax), %%r14\n jne 2f\n cmpq 112(%%rax), %%r15\n jne 2f\n"
      "decq 8(%%rsp)\n"
      "jnz 1b\n"
      "pushfq\n popq %%rax\n notq %%rax\n andq $0x400, %%rax\n"
      "jmp 3f\n"
      "2: movq $1, %%rax\n"
      "3: cld\n"
      "addq $16, %%rsp\n"
      "popq %%rbx\n"
      "popq %%rbp\n"
      : "=a"(wrong)
      : [values] "0"(values)
      : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
  return wrong;
}

// --- what only ring 0 sees

struct Msr {
  const char* name;
  u32 number;
  u64 value;  // of the first processor
  u64 step;   // from one to the next
};
// Addresses must be canonical, types of memory must exist.
constexpr Msr kMsrs[] = {
    {"STAR", 0xc0000081, 0x0018'0008'0000'0000, u64{1} << 40},
    {"LSTAR", 0xc0000082, 0xffff'8000'1234'5678, 0x100},
    {"CSTAR", 0xc0000083, 0xffff'8000'8765'4321, 0x100},
    {"SFMASK", 0xc0000084, 0x47700, 1},
    {"FS_BASE", 0xc0000100, 0, 0},  // filled in
    {"GS_BASE", 0xc0000101, 0, 0},
    {"KERNEL_GS_BASE", 0xc0000102, 0xffff'8880'0000'1000, 0x1000},
    {"SYSENTER_CS", 0x174, 8, 0x10},
    {"SYSENTER_ESP", 0x175, 0xffff'8000'0000'a000, 0x1000},
    {"SYSENTER_EIP", 0x176, 0xffff'8000'0000'b000, 0x1000},
    {"PAT", 0x277, 0x0007'0106'0007'0406, 0},
    {"MTRR base", 0x200, 0xc0000000, 0x100000},
    {"MTRR mask", 0x201, 0xffffc0000800, 0},
};
constexpr u32 kTscAux = 0xc0000103;

u64 msr_value(const Msr& msr, u64 processor) {
  if (msr.number == 0xc0000100) return reinterpret_cast<u64>(&processors[processor].base[0]);
  if (msr.number == 0xc0000101) return reinterpret_cast<u64>(&processors[processor].base[1]);
  return msr.value + msr.step * processor;
}

bool has_tsc_aux;

#define FOR_DEBUG_REGISTERS(does) does(0) does(1) does(2) does(3)

void set_inside(u64 processor) {
  for (const Msr& msr : kMsrs) write_msr(msr.number, msr_value(msr, processor));
  if (has_tsc_aux) write_msr(kTscAux, 0x1234 + processor);
  u64 address = 0x7fff'0000'0000 + 0x10000 * processor;
#define SET(n) asm volatile("movq %0, %%dr" #n : : "r"(address + 0x100 * n));
  FOR_DEBUG_REGISTERS(SET)
#undef SET
  // Stop on execution at all four, where nothing is ever executed.
  asm volatile("movq %0, %%dr7" : : "r"(u64{0x455}));
  asm volatile("movq %0, %%cr8" : : "r"(u64{2}));
  if (parameters().chip == 0) return;
  write32(kLapic + 0xd0, 1U << (24 + u32(processor)));
  write32(kLapic + lapic::kTimer, lapic::kMasked | 0x70 | u32(processor));
  write32(kLapic + 0x370, lapic::kMasked | 0x78 | u32(processor));
}

void check_inside(u64 processor) {
  for (const Msr& msr : kMsrs) expect(msr.name, read_msr(msr.number), msr_value(msr, processor));
  if (has_tsc_aux) expect("TSC_AUX", read_msr(kTscAux), 0x1234 + processor);
  u64 address = 0x7fff'0000'0000 + 0x10000 * processor, value;
#define CHECK(n)                                     \
  asm volatile("movq %%dr" #n ", %0" : "=r"(value)); \
  expect("DR" #n, value, address + 0x100 * n);
  FOR_DEBUG_REGISTERS(CHECK)
#undef CHECK
  asm volatile("movq %%dr7, %0" : "=r"(value));
  expect("DR7", value, 0x455);
  asm volatile("movq %%cr8, %0" : "=r"(value));
  expect("CR8", value, 2);
  asm volatile("movq %%cr3, %0" : "=r"(value));
  expect("CR3", value, layout::kPageTables);
  asm volatile("movq %%cr4, %0" : "=r"(value));
  expect("CR4", value, processors[processor].state != 0 ? 0x40620 : 0x620);
  asm volatile("movq %%cr0, %0" : "=r"(value));
  expect("CR0", value, 0x80000033);
  expect("EFER", read_msr(0xc0000080), 0x501);
  if (parameters().chip == 0) return;
  expect("the APIC's id", read32(kLapic + 0x20) >> 24, processor);
  expect("the APIC's logical destination", read32(kLapic + 0xd0), 1U << (24 + processor));
  expect("the APIC's timer entry", read32(kLapic + lapic::kTimer), lapic::kMasked | 0x70 | processor);
  expect("the APIC's error entry", read32(kLapic + 0x370), lapic::kMasked | 0x78 | processor);
  expect("the APIC's spurious vector", read32(kLapic + lapic::kSpurious), 0x1ff);
  if (parameters().pic == 0 || processor != 0) return;
  constexpr u64 kIoapic = 0xfec00000;
  write32(kIoapic, 0x10 + 2 * 5);
  expect("an entry of the IOAPIC", read32(kIoapic + 0x10), 0x10077);
}

}  // namespace

extern "C" {
void prepare(u64 processor) {
  Processor& me = processors[processor];
  find_state(me);
  has_tsc_aux = (cpuid(0x80000001).d & 1 << 27) != 0;
  me.base[0] = pattern(processor, 1, 1);
  me.base[1] = pattern(processor, 2, 2);
  if (parameters().chip != 0) lapic::enable();
  set_inside(processor);
  if (parameters().pic != 0 && processor == 0) {
    write32(0xfec00000, 0x10 + 2 * 5);
    write32(0xfec00010, 0x10077);
  }
  check_inside(processor);
  if (processor == 0) start_others();
}

void interrupt(Frame* frame) {
  constexpr u64 kUd2Size = 2;
  if (frame->vector != kInvalidInstruction || *reinterpret_cast<u16*>(frame->rip) != 0x0b0f) {
    (Line("BAD interrupt ") << frame->vector << " error " << frame->error << " at ").hex(frame->rip);
    stop();
  }
  check_inside(frame->rdi);
  frame->rip += kUd2Size;
}

void work(u64 processor) {
  Processor& me = processors[processor];
  u64 generation = 0;
  load_state(me, processor, generation);
  check_state(me);
  Ticker ticker;
  for (;;) {
    for (u64 i = 0; i < 16; ++i) me.general[i] = pattern(processor, generation, 1000 + i);
    if (u64 wrong = check_general(me.general); wrong != 0)
      BAD("a general register or flag is wrong: " << wrong);
    check_state(me);
    u64 value;
    asm volatile("movq %%fs:0, %0" : "=r"(value));
    expect("what FS points to", value, me.base[0]);
    asm volatile("movq %%gs:0, %0" : "=r"(value));
    expect("what GS points to", value, me.base[1]);
    if (!ticker.due()) continue;
    asm volatile("ud2" : : "D"(processor) : "memory");
    me.looked = me.looked + 1;
    if (processor == 0) {
      Line line("TICK ");
      line << ticker.count++ << " state " << me.state << " looks";
      for (u64 i = 0; i < parameters().processors; ++i) line << " " << processors[i].looked;
    }
    load_state(me, processor, ++generation);
  }
}
}
