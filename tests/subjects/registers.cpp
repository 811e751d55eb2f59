// Registers of a task that is stopped in the middle of its own instructions. The loops make no system call
// and touch no memory but one flag, so what they compare at the end has lived in the registers all the time.
#include <asm/prctl.h>
#include <cpuid.h>
#include <fenv.h>
#include <immintrin.h>

#include "subject.h"

namespace {

volatile int g_stop;

// Runs `spin` in a thread while the main thread holds; `spin` returns when g_stop is set.
template <typename F>
void while_held(F spin) {
  static int spinning;
  pthread_t t = subject::thread([=] {
    __atomic_store_n(&spinning, 1, __ATOMIC_SEQ_CST);
    spin();
  });
  while (__atomic_load_n(&spinning, __ATOMIC_SEQ_CST) == 0) subject::pass(1);
  subject::pass(5);
  subject::hold();
  g_stop = 1;
  pthread_join(t, nullptr);
}

bool cpu_has(unsigned leaf, unsigned subleaf, int reg, int bit) {
  unsigned r[4];
  if (__get_cpuid_count(leaf, subleaf, &r[0], &r[1], &r[2], &r[3]) == 0) return false;
  return (r[reg] >> bit & 1) != 0;
}

}  // namespace

CASE_WITH(general, subject::kBusy) {
  while_held([] {
    uint64_t in[8], out[8];
    subject::fill(in, sizeof in, 1);
    const uint64_t* source = in;
    uint64_t* target = out;
    asm volatile(
        "mov 0(%[in]), %%r8\n mov 8(%[in]), %%r9\n mov 16(%[in]), %%r10\n mov 24(%[in]), %%r11\n"
        "mov 32(%[in]), %%r12\n mov 40(%[in]), %%r13\n mov 48(%[in]), %%r14\n mov 56(%[in]), %%r15\n"
        "1: cmpl $0, (%[stop])\n je 1b\n"
        "mov %%r8, 0(%[out])\n mov %%r9, 8(%[out])\n mov %%r10, 16(%[out])\n mov %%r11, 24(%[out])\n"
        "mov %%r12, 32(%[out])\n mov %%r13, 40(%[out])\n mov %%r14, 48(%[out])\n mov %%r15, 56(%[out])\n"
        :
        : [in] "r"(source), [out] "r"(target), [stop] "r"(&g_stop)
        : "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
    for (int i = 0; i < 8; ++i) CHECK_EQ(out[i], in[i]);
  });
}

// The red zone: 128 bytes below the stack pointer belong to the program.
CASE_WITH(red_zone, subject::kBusy) {
  while_held([] {
    uint64_t wrong = 1;
    asm volatile(
        "movq $0x11111111, -8(%%rsp)\n movq $0x22222222, -64(%%rsp)\n movq $0x33333333, -128(%%rsp)\n"
        "1: cmpl $0, (%[stop])\n je 1b\n"
        "xor %[wrong], %[wrong]\n"
        "cmpq $0x11111111, -8(%%rsp)\n jne 2f\n cmpq $0x22222222, -64(%%rsp)\n jne 2f\n"
        "cmpq $0x33333333, -128(%%rsp)\n je 3f\n"
        "2: mov $1, %[wrong]\n3:\n"
        : [wrong] "=&r"(wrong)
        : [stop] "r"(&g_stop)
        : "memory", "cc");
    CHECK_EQ(wrong, 0u);
  });
}

CASE_WITH(sse_and_flags, subject::kBusy) {
  while_held([] {
    alignas(16) uint8_t in[256], out[256];
    subject::fill(in, sizeof in, 2);
    uint64_t flags = 0;
    asm volatile(
        "movdqa 0(%[in]), %%xmm0\n movdqa 16(%[in]), %%xmm1\n movdqa 32(%[in]), %%xmm2\n movdqa 48(%[in]), "
        "%%xmm3\n"
        "movdqa 224(%[in]), %%xmm14\n movdqa 240(%[in]), %%xmm15\n std\n"
        "1: cmpl $0, (%[stop])\n je 1b\n"
        "pushfq\n popq %[flags]\n cld\n"
        "movdqa %%xmm0, 0(%[out])\n movdqa %%xmm1, 16(%[out])\n movdqa %%xmm2, 32(%[out])\n movdqa %%xmm3, "
        "48(%[out])\n"
        "movdqa %%xmm14, 224(%[out])\n movdqa %%xmm15, 240(%[out])\n"
        : [flags] "=&r"(flags)
        : [in] "r"(in), [out] "r"(out), [stop] "r"(&g_stop)
        : "xmm0", "xmm1", "xmm2", "xmm3", "xmm14", "xmm15", "memory", "cc");
    CHECK_EQ(memcmp(in, out, 64), 0);
    CHECK_EQ(memcmp(in + 224, out + 224, 32), 0);
    CHECK_EQ(flags & 0x400, 0x400u);  // the direction flag
  });
}

__attribute__((target("avx2"))) static void spin_avx() {
  alignas(32) uint8_t in[512], out[512];
  subject::fill(in, sizeof in, 3);
#define LOAD(i) "vmovdqa " #i "*32(%[in]), %%ymm" #i "\n"
#define STORE(i) "vmovdqa %%ymm" #i ", " #i "*32(%[out])\n"
#define ALL16(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
  asm volatile(ALL16(LOAD) "1: cmpl $0, (%[stop])\n je 1b\n" ALL16(STORE)
               :
               : [in] "r"(in), [out] "r"(out), [stop] "r"(&g_stop)
               : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
                 "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "memory", "cc");
  CHECK_EQ(memcmp(in, out, sizeof in), 0);
}
CASE_WITH(avx, subject::kBusy) {
  if (!__builtin_cpu_supports("avx2")) SKIP("this processor has no AVX2");
  while_held(spin_avx);
}

__attribute__((target("avx512f,avx512bw"))) static void spin_avx512() {
  alignas(64) uint8_t in[2048], out[2048];
  subject::fill(in, sizeof in, 4);
  uint64_t mask_in = 0x0123456789abcdef, mask_out = 0;
#define LOADZ(i) "vmovdqa64 " #i "*64(%[in]), %%zmm" #i "\n"
#define STOREZ(i) "vmovdqa64 %%zmm" #i ", " #i "*64(%[out])\n"
#define UPPER16(X) \
  X(16) X(17) X(18) X(19) X(20) X(21) X(22) X(23) X(24) X(25) X(26) X(27) X(28) X(29) X(30) X(31)
  asm volatile(ALL16(LOADZ) UPPER16(LOADZ) "kmovq (%[mask]), %%k5\n"
               "1: cmpl $0, (%[stop])\n je 1b\n"
               "kmovq %%k5, (%[mask_out])\n" ALL16(STOREZ) UPPER16(STOREZ)
               :
               : [in] "r"(in), [out] "r"(out), [stop] "r"(&g_stop), [mask] "r"(&mask_in), [mask_out] "r"(&mask_out)
               : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
                 "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22",
                 "xmm23", "xmm24", "xmm25", "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31", "k5", "memory", "cc");
  CHECK_EQ(memcmp(in, out, sizeof in), 0);
  CHECK_EQ(mask_out, mask_in);
}
CASE_WITH(avx512, subject::kBusy) {
  if (!__builtin_cpu_supports("avx512bw")) SKIP("this processor has no AVX-512");
  while_held(spin_avx512);
}

// Tiles are there only after the kernel has been asked; that permission belongs to the process.
CASE_WITH(amx, subject::kBusy | subject::kMayRefuse) {
  if (!cpu_has(7, 0, 3, 24) || syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18) != 0) {
    SKIP("this processor or kernel has no AMX tiles");
  }
  while_held([] {
    struct alignas(64) {
      uint8_t palette = 1, start = 0, reserved[14] = {};
      uint16_t columns[16] = {64};
      uint8_t rows[16] = {16};
    } configuration;
    alignas(64) uint8_t in[1024], out[1024];
    subject::fill(in, sizeof in, 5);
    memset(out, 0, sizeof out);
    asm volatile(
        ".byte 0xc4,0xe2,0x78,0x49,0x00\n"       // ldtilecfg (%rax)
        ".byte 0xc4,0xe2,0x7b,0x4b,0x04,0x13\n"  // tileloadd (%rbx,%rdx), tmm0
        "1: cmpl $0, (%[stop])\n je 1b\n"
        ".byte 0xc4,0xe2,0x7a,0x4b,0x04,0x11\n"  // tilestored tmm0, (%rcx,%rdx)
        ".byte 0xc4,0xe2,0x78,0x49,0xc0\n"       // tilerelease
        :
        : "a"(&configuration), "b"(in), "c"(out), "d"(64ul), [stop] "r"(&g_stop)
        : "memory", "cc");
    CHECK_EQ(memcmp(in, out, sizeof in), 0);
  });
}

CASE_WITH(x87_stack, subject::kBusy) {
  while_held([] {
    double out[3] = {};
    uint16_t control = 0x0e7f, control_out = 0;  // round towards zero, double precision
    asm volatile(
        "fninit\n fldcw (%[control])\n fldpi\n fld1\n fldl2e\n"
        "1: cmpl $0, (%[stop])\n je 1b\n"
        "fstpl 0(%[out])\n fstpl 8(%[out])\n fstpl 16(%[out])\n fnstcw (%[control_out])\n fninit\n"
        :
        : [out] "r"(out), [stop] "r"(&g_stop), [control] "r"(&control), [control_out] "r"(&control_out)
        : "memory", "cc");
    CHECK_BETWEEN(out[0], 1.4426950408, 1.4426950409);
    CHECK_EQ(out[1], 1.0);
    CHECK_BETWEEN(out[2], 3.1415926535, 3.1415926536);
    CHECK_EQ(control_out, control);
  });
}

CASE(rounding_modes) {
  MUST(fesetround(FE_UPWARD) == 0);
  _mm_setcsr((_mm_getcsr() & ~_MM_FLUSH_ZERO_MASK) | _MM_FLUSH_ZERO_ON);
  unsigned mxcsr = _mm_getcsr();
  fenv_t before;
  fegetenv(&before);
  pthread_t t = subject::thread([] {
    fesetround(FE_DOWNWARD);
    subject::mark("set");
    subject::await("go");
    CHECK_EQ(fegetround(), FE_DOWNWARD);
  });
  subject::await("set");
  subject::hold();
  CHECK_EQ(fegetround(), FE_UPWARD);
  CHECK_EQ(_mm_getcsr() & 0xffc0, mxcsr & 0xffc0);
  pthread_join(t, nullptr);
}

CASE(segment_bases) {
  auto* area = subject::map(4096);
  *reinterpret_cast<uint64_t*>(area + 8) = 0xfeedface;
  MUST(syscall(SYS_arch_prctl, ARCH_SET_GS, area) == 0);
  uint64_t fs_before = 0, now = 0;
  MUST(syscall(SYS_arch_prctl, ARCH_GET_FS, &fs_before) == 0);
  subject::hold();
  uint64_t through_gs = 0;
  asm volatile("movq %%gs:8, %0" : "=r"(through_gs));
  CHECK_EQ(through_gs, 0xfeedfaceu);
  CHECK_EQ(syscall(SYS_arch_prctl, ARCH_GET_GS, &now), 0);
  CHECK_EQ(now, reinterpret_cast<uint64_t>(area));
  CHECK_EQ(syscall(SYS_arch_prctl, ARCH_GET_FS, &now), 0);
  CHECK_EQ(now, fs_before);
}

// A number in rax that looks like a system call's "restart me", but is the program's own.
CASE_WITH(looks_like_a_restart, subject::kBusy) {
  while_held([] {
    int64_t out[4] = {};
    asm volatile(
        "mov $-512, %%rax\n mov $-516, %%rdx\n mov $-514, %%r10\n"
        "1: cmpl $0, (%[stop])\n je 1b\n"
        "mov %%rax, 0(%[out])\n mov %%rdx, 8(%[out])\n mov %%r10, 16(%[out])\n"
        :
        : [out] "r"(out), [stop] "r"(&g_stop)
        : "rax", "rdx", "r10", "memory", "cc");
    CHECK_EQ(out[0], -512);
    CHECK_EQ(out[1], -516);
    CHECK_EQ(out[2], -514);
  });
}

// Everything at once, for as long as it takes: arithmetic that would go wrong with one lost bit.
CASE_WITH(arithmetic_goes_on, subject::kBusy) {
  uint64_t word = 1, again = 1;
  double sum = 0, sum_again = 0;
  long rounds = 0;
  subject::busy([&] {
    for (int i = 0; i < 1000; ++i) {
      word = word * 6364136223846793005ull + 1442695040888963407ull;
      sum += static_cast<double>(word >> 40) * 1e-3;
    }
    for (int i = 0; i < 1000; ++i) {
      again = again * 6364136223846793005ull + 1442695040888963407ull;
      sum_again += static_cast<double>(again >> 40) * 1e-3;
    }
    CHECK_EQ(word, again);
    CHECK_EQ(sum, sum_again);
    ++rounds;
  });
  CHECK(rounds > 0);
}
