#include "kinds.h"

#include <fcntl.h>
#include <sys/sysmacros.h>

#include <array>

#include "machine.h"
#include "processor.h"

namespace stasis::kvm {
namespace {

using resource::DescriptorKind;
using resource::KindInfo;
using resource::Support;

constexpr std::string_view kMachinePrefix = "anon_inode:kvm-vm";
constexpr std::string_view kVcpuPrefix = "anon_inode:kvm-vcpu:";

bool is_statistics(std::string_view link) {
  return link == "anon_inode:kvm-vm-stats" || (link.starts_with(kVcpuPrefix) && link.ends_with("-stats")) ||
         link.starts_with("anon_inode:kvm-vcpu-stats");
}

class DeviceKind final : public DescriptorKind {
 public:
  KindInfo info() const override { return {"kvm", "Virtual machines", "/dev/kvm"}; }
  bool recognises(const resource::OpenFile& file, const resource::Observation&) const override {
    return S_ISCHR(file.status.st_mode) && major(file.status.st_rdev) == 10 &&
           minor(file.status.st_rdev) == 232;
  }
  Result<std::string> observe(const resource::OpenFile&, resource::Observation&) const override {
    return std::string();
  }
  Result<Fd> make(const resource::Record&, resource::Making&) const override { return open_kvm(); }
};

class MachineKind final : public DescriptorKind {
 public:
  KindInfo info() const override {
    return {
        "kvm-vm", "Virtual machines", "KVM: machines with their vCPUs and interrupt controllers",
        Support::kPartial,
        "with `stasis launch`; refused: devices of the host in them (VFIO), encrypted memory, guest_memfd, "
        "Xen's interface, dirty rings"};
  }
  bool recognises(const resource::OpenFile& file, const resource::Observation&) const override {
    return file.link == kMachinePrefix;
  }
  Result<std::string> observe(const resource::OpenFile& file, resource::Observation& tree) const override {
    STASIS_TRY(Process * monitor, tree.owner(file));
    STASIS_TRY(auto machine, save_machine(file, tree, *monitor));
    return machine.SerializeAsString();
  }
  // What the host lacks is said before there is any process.
  Result<Fd> make(const resource::Record& record, resource::Making&) const override {
    STASIS_TRY(auto machine, parse(record));
    STASIS_CHECK(check_features(machine));
    return open_file("/dev/null", O_RDONLY);
  }
  Result<void> finish(const resource::Record& record, resource::Finishing& owner) const override {
    STASIS_TRY(auto machine, parse(record));
    return restore_machine(machine, owner);
  }
  bool is_opened_by_owner() const override { return true; }
  std::string summary(const resource::Record& record) const override {
    auto machine = parse(record);
    if (!machine.ok()) return {};
    return fmt::format("{} vCPU{}", machine->vcpus_size(), machine->vcpus_size() == 1 ? "" : "s");
  }

 private:
  static Result<schema::Machine> parse(const resource::Record& record) {
    schema::Machine machine;
    bool sane = machine.ParseFromString(record.payload);
    for (const auto& request : machine.requests()) sane = sane && request.events_size() == 2;
    if (!sane)
      return Error{
          "read the image", record.describe(), "the machine does not parse", {}, ErrorCode::kDamaged};
    return machine;
  }
};

// What its machine makes, with its number.
class PartKind final : public DescriptorKind {
 public:
  KindInfo info() const override { return {"kvm-vcpu", "Virtual machines", "KVM: vCPUs, statistics"}; }
  bool recognises(const resource::OpenFile& file, const resource::Observation&) const override {
    return file.link.starts_with(kVcpuPrefix) || is_statistics(file.link);
  }
  Result<std::string> observe(const resource::OpenFile& file, resource::Observation& tree) const override {
    const auto& all = tree.all();
    const bool has_machine = std::any_of(all.begin(), all.end(), [&](const auto& other) {
      return other->task == file.task && other->link == kMachinePrefix;
    });
    if (!has_machine) {
      return Error{"save", file.describe(), "its monitor has closed the machine that it belongs to",
                   "this is not supported", ErrorCode::kRefused};
    }
    return std::string();
  }
  Result<Fd> make(const resource::Record&, resource::Making&) const override {
    return open_file("/dev/null", O_RDONLY);
  }
  bool is_opened_by_owner() const override { return true; }
  bool maps(std::string_view name) const override { return name.starts_with(kVcpuPrefix); }
};

class OtherKind final : public DescriptorKind {
 public:
  KindInfo info() const override {
    return {"kvm-other", "Virtual machines", "KVM: devices of the host (VFIO), guest_memfd",
            Support::kRefused, "their state is in the hardware, or hidden from the monitor"};
  }
  bool recognises(const resource::OpenFile& file, const resource::Observation&) const override {
    return file.link.starts_with("anon_inode:kvm") || file.link.starts_with("anon_inode:[kvm");
  }
  Result<std::string> observe(const resource::OpenFile& file, resource::Observation&) const override {
    return Error{"save", file.describe(), std::string(info().note), "run the machine without it",
                 ErrorCode::kRefused};
  }
  Result<Fd> make(const resource::Record& record, resource::Making&) const override {
    return Error{"restore " + record.describe(), "KVM", std::string(info().note), {}, ErrorCode::kRefused};
  }
};

}  // namespace

std::span<const DescriptorKind* const> kinds() {
  static const DeviceKind device;
  static const MachineKind machine;
  static const PartKind part;
  static const OtherKind other;
  static const std::array<const DescriptorKind*, 4> all = {&device, &machine, &part, &other};
  return all;
}

}  // namespace stasis::kvm
