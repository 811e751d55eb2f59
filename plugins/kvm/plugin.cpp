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
      const uint32_t hold =
          (record->head().hold == 0 ? record->head().lock : record->head().hold) + 1 + counter();
      monitors_.push_back({process, *address});
      if (!poke(process, *address + offsetof(Record, hold), bytes_of(hold | 1)).ok()) monitors_.pop_back();
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
  struct Monitor {
    HostTid process;
    RemotePtr address;
  };

  static Error not_now(const plugin::StoppedProcess& process, std::string cause) {
    return Error{"checkpoint", fmt::format("task {}", process.pid), std::move(cause), "try again in a moment",
                 ErrorCode::kRefusedNow};
  }

  // Each attempt is another one for a vCPU that has waited in vain.
  static uint32_t counter() {
    static uint32_t attempts = static_cast<uint32_t>(getpid()) << 8;
    return attempts += 2;
  }

  static std::string link_of(HostTid process, int number) {
    char target[128];
    const std::string path = fmt::format("/proc/{}/fd/{}", process, number);
    const ssize_t length = readlink(path.c_str(), target, sizeof target);
    return {target, static_cast<size_t>(std::max<ssize_t>(length, 0))};
  }

  static bool stands_well(const Vcpu& vcpu, const plugin::StoppedProcess& process) {
    if (vcpu.progress == kComplete) return true;
    if ((vcpu.progress & kInside) != 0) {
      auto thread = std::find_if(process.threads.begin(), process.threads.end(),
                                 [&](const auto& one) { return one.tid.value == vcpu.tid; });
      if (thread != process.threads.end()) return thread->call == SYS_ioctl && thread->result < 0;
    }
    // What it has come back for tells whether it waits for anything. One that is closed does not.
    const std::string link = link_of(process.task, vcpu.number);
    if (!link.starts_with("anon_inode:kvm-vcpu:")) return true;
    if ((vcpu.progress & kInside) != 0) return false;
    auto maps = read_file(fmt::format("/proc/{}/maps", process.task));
    if (!maps.ok()) return false;
    const size_t found = maps->find(link + "\n");
    if (found == std::string::npos) return false;
    const size_t line = maps->rfind('\n', found) + 1;
    uint32_t reason = 0;
    const RemotePtr shared{std::strtoull(maps->c_str() + line, nullptr, 16)};
    if (!peek(process.task, shared + offsetof(kvm_run, exit_reason),
              std::as_writable_bytes(std::span(&reason, 1)))
             .ok())
      return false;
    return !is_access(reason);
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
