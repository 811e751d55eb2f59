#include "restore/guard_filter.h"

#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstddef>

namespace stasis::restore {

namespace {

constexpr uint32_t kDontNeedLocked = 24;  // Linux 5.18
constexpr uint32_t kGuardInstall = 102;   // Linux 6.13: leaves zeros behind when it is removed
constexpr uint32_t kAdvice[] = {MADV_DONTNEED,   MADV_FREE,       MADV_REMOVE,
                                kDontNeedLocked, MADV_WIPEONFORK, kGuardInstall};

constexpr uint32_t low_half(int argument) {
  return static_cast<uint32_t>(offsetof(seccomp_data, args) +
                               sizeof(uint64_t) * static_cast<size_t>(argument));
}
constexpr uint32_t high_half(int argument) { return low_half(argument) + 4; }

// Emits instructions; conditional jumps are of the form "when true skip one": whatever is behind them is one
// instruction, so that no offset has to be computed.
class Program {
 public:
  void load(uint32_t offset) { emit(BPF_LD | BPF_W | BPF_ABS, offset); }
  void result(uint32_t action) { emit(BPF_RET | BPF_K, action); }
  // The next instruction is executed only if A is (is not) `value`.
  void when_equal(uint32_t value) { code_.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1)); }
  void unless_equal(uint32_t value) { code_.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 1, 0)); }
  // A 64-bit argument in units of 64 KiB; 48 bits of address are 32 bits then.
  void load_unit(int argument, uint32_t cell) {
    load(low_half(argument));
    emit(BPF_ALU | BPF_RSH | BPF_K, 16);
    emit(BPF_MISC | BPF_TAX, 0);
    load(high_half(argument));
    emit(BPF_ALU | BPF_LSH | BPF_K, 16);
    emit(BPF_ALU | BPF_OR | BPF_X, 0);
    emit(BPF_ST, cell);
  }
  void emit(uint16_t operation, uint32_t operand) { code_.push_back(BPF_STMT(operation, operand)); }
  void jump_over(sock_filter test, uint8_t if_true, uint8_t if_false) {
    test.jt = if_true;
    test.jf = if_false;
    code_.push_back(test);
  }
  // An unconditional jump whose target is set later.
  size_t jump() {
    emit(BPF_JMP | BPF_JA, 0);
    return code_.size() - 1;
  }
  void land(size_t jump) { code_[jump].k = static_cast<uint32_t>(code_.size() - jump - 1); }
  std::vector<sock_filter> take() { return std::move(code_); }

 private:
  std::vector<sock_filter> code_;
};

}  // namespace

bool is_guarded_advice(uint64_t advice) {
  return std::find(std::begin(kAdvice), std::end(kAdvice), advice) != std::end(kAdvice);
}

std::vector<AddressRange> coarsened(std::vector<AddressRange> ranges, size_t limit) {
  std::sort(ranges.begin(), ranges.end(), [](auto& a, auto& b) { return a.start < b.start; });
  std::vector<AddressRange> joined;
  for (const auto& range : ranges) {
    if (!joined.empty() && range.start <= joined.back().end) {
      joined.back().end = std::max(joined.back().end, range.end);
    } else {
      joined.push_back(range);
    }
  }
  if (joined.size() <= limit) return joined;
  // Keep the limit - 1 widest gaps.
  std::vector<uint64_t> gaps;
  for (size_t i = 1; i < joined.size(); ++i) gaps.push_back(joined[i].start - joined[i - 1].end);
  std::sort(gaps.begin(), gaps.end(), std::greater<>());
  uint64_t smallest_kept = gaps[limit - 1];
  std::vector<AddressRange> coarse = {joined.front()};
  for (size_t i = 1; i < joined.size(); ++i) {
    if (joined[i].start - coarse.back().end > smallest_kept) {
      coarse.push_back(joined[i]);
    } else {
      coarse.back().end = joined[i].end;
    }
  }
  return coarse;
}

std::vector<sock_filter> guard_filter(const std::vector<AddressRange>& ranges, uint64_t pass) {
  Program program;
  program.load(offsetof(seccomp_data, arch));
  program.unless_equal(AUDIT_ARCH_X86_64);
  program.result(SECCOMP_RET_ALLOW);
  program.load(offsetof(seccomp_data, nr));
  program.when_equal(SYS_madvise);
  size_t to_madvise = program.jump();
  program.when_equal(SYS_mremap);
  size_t to_mremap = program.jump();
  program.when_equal(SYS_process_madvise);
  size_t to_process_madvise = program.jump();
  program.result(SECCOMP_RET_ALLOW);

  // Its ranges are in memory, where a filter cannot look.
  program.land(to_process_madvise);
  program.load(low_half(3));
  for (uint32_t advice : kAdvice) {
    program.when_equal(advice);
    program.result(SECCOMP_RET_USER_NOTIF);
  }
  program.result(SECCOMP_RET_ALLOW);

  program.land(to_madvise);
  program.load(low_half(2));
  std::vector<size_t> found;
  for (uint32_t advice : kAdvice) {
    program.when_equal(advice);
    found.push_back(program.jump());
  }
  program.result(SECCOMP_RET_ALLOW);
  for (size_t jump : found) program.land(jump);
  program.land(to_mremap);

  program.load(low_half(5));
  program.when_equal(static_cast<uint32_t>(pass));
  size_t maybe_ours = program.jump();
  size_t not_ours = program.jump();
  program.land(maybe_ours);
  program.load(high_half(5));
  program.when_equal(static_cast<uint32_t>(pass >> 32));
  program.result(SECCOMP_RET_ALLOW);
  program.land(not_ours);

  // First and last unit of the range; that one may be one too many.
  constexpr uint32_t kFirst = 0, kLast = 1;
  program.load_unit(0, kFirst);
  program.load_unit(1, kLast);
  program.emit(BPF_LD | BPF_MEM, kFirst);
  program.emit(BPF_MISC | BPF_TAX, 0);
  program.emit(BPF_LD | BPF_MEM, kLast);
  program.emit(BPF_ALU | BPF_ADD | BPF_X, 0);
  program.emit(BPF_ALU | BPF_ADD | BPF_K, 1);
  program.emit(BPF_ST, kLast);
  for (const auto& range : ranges) {
    auto first = static_cast<uint32_t>(range.start >> 16);
    auto last = static_cast<uint32_t>((range.end - 1) >> 16);
    program.emit(BPF_LD | BPF_MEM, kLast);
    program.jump_over(BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, first, 0, 0), 0, 3);
    program.emit(BPF_LD | BPF_MEM, kFirst);
    program.jump_over(BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, last, 0, 0), 1, 0);
    program.result(SECCOMP_RET_USER_NOTIF);
  }
  program.result(SECCOMP_RET_ALLOW);
  return program.take();
}

}  // namespace stasis::restore
