// Virtual machines of KVM, whatever monitor they have. docs/virtual-machines.md.
#include "stasis/plugin.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "kinds.h"
#include "kvm_api.h"
#include "processor.h"
#include "record_reader.h"
#include "rules.h"

namespace stasis::kvm {
namespace {

// Brings vCPUs to where they can be saved: not between an access to a device, which the monitor serves, and
// its completion, which comes when the vCPU is run again.
class Quiescence final : public plugin::Participant {
 public:
  Quiescence() = default;
  ~Quiescence() override { release(); }
  Quiescence(const Quiescence&) = delete;
  Quiescence& operator=(const Quiescence&) = delete;

  // From now on vCPUs wait when they come back from an access, for some tens of milliseconds at most.
  Result<void> prepare(std::span<const HostTid> processes) override {
    for (HostTid process : processes) {
      auto address = find_record(process);
      if (!address) continue;
      auto record = RecordReader::read(process, *address);
      if (!record.ok()) continue;  // whoever saves the machine says why
      const uint32_t hold = counter();
      monitors_.push_back({process, *address});
      if (!poke(process, *address + offsetof(Record, hold), bytes_of(hold)).ok()) monitors_.pop_back();
    }
    return {};
  }

  Result<void> inspect(std::span<const plugin::StoppedProcess> processes) override {
    for (const Monitor& monitor : monitors_) {
      auto process = std::find_if(processes.begin(), processes.end(),
                                  [&](const auto& one) { return one.task == monitor.process; });
      if (process == processes.end()) continue;
      STASIS_TRY(auto record, RecordReader::read(monitor.process, monitor.address));
      if (record.head().lock != 0) return not_now(*process, "it is asking KVM for something");
      STASIS_CHECK(let_interrupts_arrive(record));
      for (const Vcpu& vcpu : record.vcpus()) {
        if (stands_well(vcpu, *process)) continue;
        return not_now(*process,
                       fmt::format("the vCPU of its descriptor {} is in the middle of an access to a device",
                                   vcpu.number));
      }
    }
    return {};
  }

  void go_on() override { release(); }

 private:
  // A write to an event descriptor becomes an interrupt by a worker of the kernel's, which runs while
  // everything stands still.
  static Result<void> let_interrupts_arrive(const RecordReader& record) {
    STASIS_TRY(auto log, record.log());
    if (std::any_of(log.begin(), log.end(), [](const auto& one) { return one.entry.request == KVM_IRQFD; })) {
      timespec moment{0, 1'000'000};
      nanosleep(&moment, nullptr);
    }
    return {};
  }

  struct Monitor {
    HostTid process;
    RemotePtr address;
  };

  static Error not_now(const plugin::StoppedProcess& process, std::string cause) {
    return Error{"checkpoint", fmt::format("task {}", process.pid), std::move(cause), "try again in a moment",
                 ErrorCode::kRefusedNow};
  }

  // Never 0. Each attempt is another one for a vCPU that has waited in vain.
  static uint32_t counter() {
    static uint32_t attempts = (static_cast<uint32_t>(getpid()) << 8) | 1;
    return attempts += 2;
  }

  static std::string link_of(HostTid process, int number) {
    char target[128];
    const std::string path = fmt::format("/proc/{}/fd/{}", process, number);
    const ssize_t length = readlink(path.c_str(), target, sizeof target);
    return {target, static_cast<size_t>(std::max<ssize_t>(length, 0))};
  }

  static bool stands_well(const Vcpu& vcpu, const plugin::StoppedProcess& process) {
    if (vcpu.progress == kComplete && vcpu.interrupted == 0) return true;
    const std::string link = link_of(process.task, vcpu.number);
    if (!link.starts_with("anon_inode:kvm-vcpu:")) return true;  // it is closed
    bool inside = false;
    if ((vcpu.progress & kInside) != 0) {
      auto thread = std::find_if(process.threads.begin(), process.threads.end(),
                                 [&](const auto& one) { return one.tid.value == vcpu.tid; });
      inside = thread != process.threads.end() && thread->call == SYS_ioctl && thread->result < 0;
      if (!inside) return false;
      if (vcpu.interrupted == 0) return true;
    }
    kvm_run shared;
    if (!read_shared(process.task, link, shared)) return false;
    // It has been run, and what was given to it has reached it, unless it was to come back at once.
    if (vcpu.interrupted != 0) return inside && shared.immediate_exit == 0;
    // What it has come back for tells whether it waits for anything.
    return !is_access(shared.exit_reason);
  }

  static bool read_shared(HostTid process, const std::string& name, kvm_run& into) {
    auto maps = read_file(fmt::format("/proc/{}/maps", process));
    const size_t found = maps.ok() ? maps->find(name + "\n") : std::string::npos;
    if (found == std::string::npos) return false;
    const RemotePtr address{std::strtoull(maps->c_str() + maps->rfind('\n', found) + 1, nullptr, 16)};
    return peek(process, address, std::as_writable_bytes(std::span(&into, 1))).ok();
  }

  void release() {
    const uint32_t none = 0;
    for (const Monitor& monitor : monitors_)
      (void)poke(monitor.process, monitor.address + offsetof(Record, hold), bytes_of(none)).ok();
    monitors_.clear();
  }

  std::vector<Monitor> monitors_;
};

class KvmPlugin final : public plugin::Plugin {
 public:
  std::string_view name() const override { return "kvm"; }
  std::span<const resource::DescriptorKind* const> kinds() const override { return kvm::kinds(); }
  bool is_wanted() const override { return access("/dev/kvm", R_OK | W_OK) == 0; }
  std::string preload() const override { return "libstasis-kvm.so"; }
  std::unique_ptr<plugin::Participant> participate() const override { return std::make_unique<Quiescence>(); }
  std::vector<plugin::Finding> check() const override { return check_host(); }
};

}  // namespace

const plugin::Plugin& kvm_plugin() {
  static const KvmPlugin plugin;
  return plugin;
}

}  // namespace stasis::kvm
