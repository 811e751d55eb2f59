// A virtual machine monitor of our own, as small as it can be while it uses what others use of KVM: several
// vCPUs, each with a thread that is kicked out of KVM_RUN by signals, interrupt controllers in the kernel
// (whole, split, none), routes, ioeventfds, irqfds, coalesced writes, a dirty log. Its guests (*.guest.cpp)
// check themselves, and its devices check the guests: every access must come once, in sequence.
//
// Exit status: 0 after --seconds, 1 after a line "BAD ...", 77 after "SKIP ..." (what this KVM cannot do).
#include <getopt.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "devices.h"
#include "machine.h"

void say(const std::string& line) {
  std::string whole = line + "\n";
  for (size_t done = 0; done < whole.size();) {
    ssize_t written = write(1, whole.data() + done, whole.size() - done);
    if (written < 0 && errno != EINTR && errno != EAGAIN) _exit(1);
    if (written > 0) done += size_t(written);
  }
}

void bad(const std::string& what) {
  say("BAD " + what);
  _exit(1);
}

void skip(const std::string& why) {
  say("SKIP " + why);
  _exit(77);
}

namespace {

// The one that this thread runs.
thread_local kvm_run* t_run = nullptr;

// A signal that comes before KVM_RUN is entered must end it as well: only this flag can do that where the
// signal is not blocked.
void on_kick(int) {
  if (t_run != nullptr) t_run->immediate_exit = 1;
}

std::atomic<bool> disturbance = false;

// Where the threads of the vCPUs wait while the machine is made anew.
class Rest {
 public:
  bool wanted() const { return wanted_; }
  void want() { wanted_ = true; }

  void take() {
    std::unique_lock lock(mutex_);
    ++resting_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return !wanted_; });
    --resting_;
    changed_.notify_all();
  }
  // False if some need another kick.
  bool wait_for(size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::milliseconds(20), [&] { return resting_ == count; });
  }
  void end() {
    std::unique_lock lock(mutex_);
    wanted_ = false;
    changed_.notify_all();
    changed_.wait(lock, [this] { return resting_ == 0; });
  }

 private:
  std::atomic<bool> wanted_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t resting_ = 0;
} rest;

[[noreturn]] void run_vcpu(const Machine::Vcpu& vcpu, Machine& machine, Devices& devices,
                           const Options& options) {
  t_run = vcpu.run;
  sigset_t kick;
  sigemptyset(&kick);
  sigaddset(&kick, SIGUSR1);
  pthread_sigmask(options.kick == Kick::kSignalMask ? SIG_BLOCK : SIG_UNBLOCK, &kick, nullptr);
  for (;;) {
    // Until it is EINTR: what ends an access may begin the next (a string of them).
    if (rest.wanted()) vcpu.run->immediate_exit = 1;
    if (ioctl(vcpu.fd, KVM_RUN, 0) < 0) {
      // EAGAIN: the vCPU has just been started, or is not yet.
      if (errno != EINTR && errno != EAGAIN) bad(std::string("KVM_RUN: ") + strerror(errno));
      bool interrupted = errno == EINTR;
      vcpu.run->immediate_exit = 0;
      if (options.kick == Kick::kSignalMask) {
        // It is still pending: nothing but KVM_RUN was interrupted by it.
        timespec none = {};
        while (sigtimedwait(&kick, nullptr, &none) > 0) {
        }
      }
      if (interrupted && rest.wanted()) {
        t_run = nullptr;
        rest.take();
        t_run = vcpu.run;
      }
      if (vcpu.number == 0 && disturbance.exchange(false)) machine.disturb(vcpu, options.disturb);
      continue;
    }
    if (devices.handle(vcpu)) continue;
    switch (vcpu.run->exit_reason) {
      case KVM_EXIT_INTR:
      case KVM_EXIT_IRQ_WINDOW_OPEN:
      case KVM_EXIT_IOAPIC_EOI:
        continue;
      case KVM_EXIT_INTERNAL_ERROR:
        bad("KVM's internal error " + std::to_string(vcpu.run->internal.suberror));
      case KVM_EXIT_FAIL_ENTRY:
        bad("the processor refuses the guest's state");
      case KVM_EXIT_SHUTDOWN:
        bad("a triple fault of processor " + std::to_string(vcpu.number));
      default:
        bad("an exit for reason " + std::to_string(vcpu.run->exit_reason));
    }
  }
}

[[noreturn]] void usage() {
  static const char kText[] =
      "usage: kvm_monitor --guest NAME [OPTION...]\n"
      "  NAME: pio, mmio, msr, smp, sipi-wait, init-wait, timer, deadline, pit, msi, registers, clock, "
      "memory\n"
      "  --vcpus N, --memory MIB, --seconds N (then exit with 0)\n"
      "  --split | --no-irqchip    interrupt controllers other than PIC, IOAPIC, LAPICs and PIT in the "
      "kernel\n"
      "  --memfd                   the guest's memory is a shared file\n"
      "  --dirty-log               the guest's memory has a dirty log, which is checked\n"
      "  --sync-regs               KVM_RUN shows the registers in kvm_run\n"
      "  --dirty PAGES             what the guest \"memory\" writes between two ticks\n"
      "  --pin                     interrupts of the monitor come through the IOAPIC, not as messages\n"
      "  --jump SECONDS            what the guest \"clock\" takes for a jump of its clocks\n"
      "  --kick-ms N               kick all vCPUs out of KVM_RUN so often\n"
      "  --signal-mask             by KVM_SET_SIGNAL_MASK instead of kvm_run.immediate_exit\n"
      "  --reborn MS               make the machine anew, with the state it has, so often\n"
      "  --input FILE              what is typed at the console; standard input without it\n"
      "  --guests DIR              where NAME.bin is; kvm/ beside the program without it\n"
      "  --break-sequence          leave a number out, which the guest must find\n"
      "  --disturb WHAT            change it every second, which the guest must find: general, vector, "
      "debug, "
      "lapic,\n"
      "                            msr, timer, pic, clock, memory (disturb.cpp)\n";
  if (write(2, kText, sizeof kText - 1) < 0) _exit(2);
  _exit(2);
}

Options parse(int argc, char** argv) {
  Options options;
  char self[4096];
  ssize_t length = readlink("/proc/self/exe", self, sizeof self);
  options.guests = std::string(self, length > 0 ? size_t(length) : 0);
  options.guests = options.guests.substr(0, options.guests.rfind('/')) + "/kvm";

  static const option kOptions[] = {{"guest", 1, nullptr, 'g'},       {"vcpus", 1, nullptr, 'c'},
                                    {"memory", 1, nullptr, 'm'},      {"seconds", 1, nullptr, 's'},
                                    {"split", 0, nullptr, 'S'},       {"no-irqchip", 0, nullptr, 'N'},
                                    {"memfd", 0, nullptr, 'M'},       {"dirty-log", 0, nullptr, 'L'},
                                    {"dirty", 1, nullptr, 'd'},       {"pin", 0, nullptr, 'p'},
                                    {"jump", 1, nullptr, 'j'},        {"kick-ms", 1, nullptr, 'k'},
                                    {"sync-regs", 0, nullptr, 'y'},   {"reborn", 1, nullptr, 'r'},
                                    {"signal-mask", 0, nullptr, 'K'}, {"input", 1, nullptr, 'i'},
                                    {"guests", 1, nullptr, 'G'},      {"break-sequence", 0, nullptr, 'b'},
                                    {"disturb", 1, nullptr, 'D'},     {}};
  for (int found; (found = getopt_long(argc, argv, "", kOptions, nullptr)) != -1;) {
    auto number = [] { return unsigned(strtoul(optarg, nullptr, 10)); };
    switch (found) {
      case 'g':
        options.guest = optarg;
        break;
      case 'c':
        options.processors = number();
        break;
      case 'm':
        options.memory_mib = number();
        break;
      case 's':
        options.seconds = number();
        break;
      case 'S':
        options.chip = Chip::kSplit;
        break;
      case 'N':
        options.chip = Chip::kNone;
        break;
      case 'M':
        options.memfd = true;
        break;
      case 'L':
        options.dirty_log = true;
        break;
      case 'd':
        options.dirty_pages = number();
        break;
      case 'j':
        options.jump_seconds = number();
        break;
      case 'p':
        options.pin = true;
        break;
      case 'k':
        options.kick_ms = number();
        break;
      case 'r':
        options.reborn_ms = number();
        break;
      case 'y':
        options.sync_registers = true;
        break;
      case 'K':
        options.kick = Kick::kSignalMask;
        break;
      case 'i':
        options.input = optarg;
        break;
      case 'G':
        options.guests = optarg;
        break;
      case 'b':
        options.break_sequence = true;
        break;
      case 'D':
        options.disturb = optarg;
        break;
      default:
        usage();
    }
  }
  // The same guest under other names: the second processor waits to be started, before and after an INIT.
  if (options.guest == "sipi-wait" || options.guest == "init-wait") {
    options.wait_for_input = options.guest == "sipi-wait" ? 1 : 2;
    options.guest = "smp";
    options.processors = options.processors < 2 ? 2 : options.processors;
  }
  if (options.guest.empty() || options.processors < 1 || options.processors > 8 || options.memory_mib < 32)
    usage();
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  Options options = parse(argc, argv);
  struct sigaction kick = {};
  kick.sa_handler = on_kick;  // without SA_RESTART: KVM_RUN must come back
  sigaction(SIGUSR1, &kick, nullptr);
  // For the threads of the vCPUs alone.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  Machine machine(options);
  Devices devices(machine, options);
  std::vector<Machine::Vcpu> vcpus;
  for (unsigned i = 0; i < options.processors; ++i) vcpus.push_back(machine.make_vcpu(i));
  std::vector<pthread_t> threads;
  for (const Machine::Vcpu& vcpu : vcpus) {
    std::thread thread([&] {
      pthread_setname_np(pthread_self(), ("vcpu" + std::to_string(vcpu.number)).c_str());
      run_vcpu(vcpu, machine, devices, options);
    });
    threads.push_back(thread.native_handle());
    thread.detach();
  }
  std::thread([&] { devices.count_kicks(); }).detach();
  if (options.guest == "msi") std::thread([&] { devices.raise_interrupts(); }).detach();

  auto seconds = [] {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
  };
  time_t begin = seconds();
  time_t disturbed = begin;
  auto kick_all = [&] {
    for (pthread_t thread : threads) pthread_kill(thread, SIGUSR1);
  };
  for (;;) {
    unsigned pause_ms = options.reborn_ms != 0 ? options.reborn_ms : options.kick_ms;
    usleep(pause_ms != 0 ? pause_ms * 1000 : 20000);
    // Again and again: what the guest is about to overwrite anyway is nothing that it could find.
    if (!options.disturb.empty() && seconds() > disturbed) {
      disturbed = seconds();
      disturbance = true;
      kick_all();
    }
    if (options.kick_ms != 0) kick_all();
    if (options.reborn_ms != 0) {
      rest.want();
      do {
        kick_all();
      } while (!rest.wait_for(vcpus.size()));
      {
        // An interrupt that is raised while the state is read would be lost with the old machine.
        auto halt = devices.halt(vcpus[0]);
        machine.bear_again(vcpus);
      }
      rest.end();
    }
    if (options.seconds != 0 && seconds() >= begin + time_t(options.seconds)) _exit(0);
  }
}
