// The least that the kernel of this machine needs for what stasis does with many tasks: a program that does
// nothing else, so that a bar below it can be told from a slow engine.
//
//   floor stop PID...
//       Stops all threads of these processes, reads their registers, lets every process fork itself once (the
//       snapshot), and lets them go. The pause is what the program itself sees of that.
//   floor start --threads T --children P
//       New pid and mount namespaces with a /proc, and in them that many bare threads and forked processes,
//       none of which has memory, descriptors or anything else to get back. When the last one runs
//       (CLOCK_REALTIME, nanoseconds) on stdout.
#include <elf.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace {

[[noreturn]] void die(const char* step) {
  fprintf(stderr, "floor: %s: %s\n", step, strerror(errno));
  _exit(1);
}

template <typename T>
T check(T result, const char* step) {
  if (result < 0) die(step);
  return result;
}

int64_t clock_ns() {
  timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return t.tv_sec * 1'000'000'000L + t.tv_nsec;
}

struct Task {
  pid_t tid;
  bool leader;
  user_regs_struct registers;
};

void request(long what, const Task& task, void* address = nullptr, void* data = nullptr) {
  check(ptrace(static_cast<__ptrace_request>(what), task.tid, address, data), "ptrace");
}

void wait_for_stop(const Task& task) {
  int status = 0;
  if (waitpid(task.tid, &status, __WALL) != task.tid || !WIFSTOPPED(status)) die("wait for a stop");
}

void set_registers(const Task& task, user_regs_struct registers) {
  iovec vector{&registers, sizeof registers};
  request(PTRACE_SETREGSET, task, reinterpret_cast<void*>(NT_PRSTATUS), &vector);
}

// Repeats the call in which the task was stopped, as another one.
user_regs_struct instead(const Task& task, uint64_t call) {
  user_regs_struct registers = task.registers;
  registers.rip -= 2;
  registers.orig_rax = ~0ULL;
  registers.rax = call;
  return registers;
}

int stop(char** pids, int count) {
  std::vector<Task> tasks;
  for (int i = 0; i < count; ++i) {
    for (const auto& entry : std::filesystem::directory_iterator(std::string("/proc/") + pids[i] + "/task")) {
      std::string tid = entry.path().filename();
      tasks.push_back({static_cast<pid_t>(std::stol(tid)), tid == pids[i], {}});
    }
  }
  for (const Task& task : tasks) {
    request(PTRACE_SEIZE, task, nullptr, reinterpret_cast<void*>(PTRACE_O_TRACECLONE));
    request(PTRACE_INTERRUPT, task);
  }
  for (Task& task : tasks) {
    wait_for_stop(task);
    iovec vector{&task.registers, sizeof task.registers};
    request(PTRACE_GETREGSET, task, reinterpret_cast<void*>(NT_PRSTATUS), &vector);
  }
  std::vector<pid_t> copies;
  auto can_fork = [](const Task& task) {
    return task.leader && static_cast<int64_t>(task.registers.orig_rax) >= 0;
  };
  for (const Task& task : tasks) {
    if (!can_fork(task)) continue;
    user_regs_struct registers = instead(task, SYS_clone);
    registers.rdi = CLONE_PARENT;
    registers.rsi = registers.rdx = registers.r10 = registers.r8 = 0;
    set_registers(task, registers);
    request(PTRACE_CONT, task);
  }
  for (const Task& task : tasks) {
    if (!can_fork(task)) continue;
    wait_for_stop(task);
    unsigned long copy = 0;
    request(PTRACE_GETEVENTMSG, task, nullptr, &copy);
    copies.push_back(static_cast<pid_t>(copy));
    request(PTRACE_SYSCALL, task);
  }
  for (const Task& task : tasks) {
    if (can_fork(task)) wait_for_stop(task);
    bool slept = static_cast<int64_t>(task.registers.rax) == -516;  // ERESTART_RESTARTBLOCK
    set_registers(task, slept ? instead(task, SYS_restart_syscall) : task.registers);
    request(PTRACE_DETACH, task);
  }
  for (pid_t copy : copies) kill(copy, SIGKILL);
  return 0;
}

std::atomic<size_t>* running;

[[noreturn]] int run_bare(void*) {
  ++*running;
  for (;;) pause();
}

int start(size_t threads, size_t children) {
  running = static_cast<std::atomic<size_t>*>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  constexpr size_t kStack = 16384;
  int spaces = CLONE_NEWPID | CLONE_NEWNS | (geteuid() == 0 ? 0 : CLONE_NEWUSER);
  auto init = static_cast<pid_t>(check(syscall(SYS_clone, spaces | SIGCHLD, 0, 0, 0, 0), "clone"));
  if (init == 0) {
    check(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "make the mounts private");
    check(mount("proc", "/proc", "proc", 0, nullptr), "mount /proc");
    for (size_t i = 0; i < children; ++i) {
      if (check(fork(), "fork") == 0) run_bare(nullptr);
    }
    std::unique_ptr<char[]> stacks(new char[threads * kStack]);
    constexpr int kThread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
    for (size_t i = 1; i < threads; ++i)
      check(clone(run_bare, stacks.get() + i * kStack, kThread, nullptr), "clone");
    run_bare(nullptr);
  }
  while (*running < threads + children) usleep(50);
  int64_t end = clock_ns();
  kill(init, SIGKILL);
  waitpid(init, nullptr, __WALL);
  printf("%" PRId64 "\n", end);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::string_view verb = argc > 1 ? argv[1] : "";
  if (verb == "stop" && argc > 2) return stop(argv + 2, argc - 2);
  if (verb == "start" && argc == 6)
    return start(strtoul(argv[3], nullptr, 10), strtoul(argv[5], nullptr, 10));
  fprintf(stderr, "usage: floor stop PID... | floor start --threads T --children P\n");
  return 2;
}
