#include "machine.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <set>

#include "kvm_api.h"
#include "record_reader.h"
#include "requests.h"
#include "rules.h"
#include "vcpu_state.h"

namespace stasis::kvm {
namespace {

constexpr const char* kStep = "make a virtual machine";
constexpr int32_t kNobody = -2;  // an event descriptor that nobody has open

// Capabilities with which there is state that cannot be read.
constexpr std::pair<uint32_t, const char*> kRefusedCapabilities[] = {
    {KVM_CAP_DIRTY_LOG_RING, "rings of written pages (QEMU: dirty-ring-size)"},
    {KVM_CAP_DIRTY_LOG_RING_ACQ_REL, "rings of written pages (QEMU: dirty-ring-size)"},
    {KVM_CAP_VM_COPY_ENC_CONTEXT_FROM, "encrypted memory"},
    {KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM, "encrypted memory"},
    {KVM_CAP_XEN_HVM, "Xen's interface for guests"},
};

template <typename T>
T object_of(const std::string& data) {
  T object = {};
  std::memcpy(&object, data.data(), std::min(data.size(), sizeof object));
  return object;
}

template <typename T>
std::string data_of(const T& object) {
  return {reinterpret_cast<const char*>(&object), sizeof object};
}

class Saver {
 public:
  Saver(const resource::OpenFile& file, resource::Observation& tree, Process& monitor)
      : file_(file), tree_(tree), monitor_(monitor) {}

  Result<schema::Machine> save() {
    auto address = find_record(file_.task);
    if (!address) {
      return refuse(
          "its monitor was started without the part of stasis that remembers what KVM was asked for",
          "launch it by stasis, without --kvm=off; a statically linked monitor cannot be saved");
    }
    STASIS_TRY(auto record, RecordReader::read(file_.task, *address));
    const Record& head = record.head();
    if (head.owner != monitor_.pid().value) return refuse("it was made by another process", {});
    if (head.lost != 0) return refuse("more was asked of KVM than can be remembered", "please report it");
    if (head.unknown != 0) {
      return refuse(
          fmt::format("it was asked for something that is not known here: {}", request_name(head.unknown)),
          "please report it");
    }
    STASIS_TRY(log_, record.log());
    machine_.set_record(address->value);
    STASIS_CHECK(find_machine());
    STASIS_TRY(mappings_, monitor_.mappings());
    for (const auto& one : log_) STASIS_CHECK(take(one));
    for (auto& vcpu : *machine_.mutable_vcpus()) {
      STASIS_CHECK(save_vcpu(monitor_, banks_[vcpu.number()], vcpu));
      STASIS_CHECK(save_shared(vcpu));
    }
    STASIS_CHECK(save_states());
    return std::move(machine_);
  }

 private:
  Error refuse(std::string cause, std::string hint) const {
    return Error{"save", file_.describe(), std::move(cause), std::move(hint), ErrorCode::kRefused};
  }

  bool is_open(int number, std::string_view what) const {
    const auto* found = tree_.find(file_.task, number);
    return found != nullptr && found->link.starts_with(what);
  }

  Result<void> find_machine() {
    for (const auto& one : log_) {
      if (one.entry.request != KVM_CREATE_VM || tree_.find(file_.task, one.entry.made) != &file_) continue;
      machine_.set_number(one.entry.made);
      machine_.set_type(object_of<uint64_t>(one.data));
    }
    if (machine_.number() == 0)
      return refuse("it was made before its monitor was watched, or by another one", {});
    if (machine_.type() != 0)
      return refuse(fmt::format("it is of type {}", machine_.type()), "only ordinary machines can be saved");
    numbers_.insert(machine_.number());
    return {};
  }

  // Of those that are to this machine and its vCPUs.
  Result<void> take(const RecordReader::Remembered& one) {
    const Entry& entry = one.entry;
    const Rule* rule = find_rule(entry.request);
    if (!numbers_.contains(entry.number) || entry.request == KVM_CREATE_VM) return {};
    if (rule == nullptr) return refuse("what was remembered makes no sense", {});
    if (entry.request == KVM_CREATE_DEVICE)
      return refuse("it has a device of the host's in it (VFIO)",
                    "the state of such a device is in the hardware");
    if (entry.request == KVM_ENABLE_CAP) {
      const auto capability = object_of<kvm_enable_cap>(one.data).cap;
      for (const auto& [number, name] : kRefusedCapabilities) {
        if (capability == number) return refuse(fmt::format("it uses {}", name), "run it without");
      }
    }
    if (entry.request == kSetUserMemoryRegion2) {
      constexpr uint32_t kGuestMemory = 1 << 2;  // KVM_MEM_GUEST_MEMFD
      if ((object_of<kvm_userspace_memory_region>(one.data).flags & kGuestMemory) != 0)
        return refuse("it has memory that its monitor cannot see (guest_memfd)", "run it without");
    }
    if (entry.made >= 0) {
      // One that the monitor has closed is not made again.
      const bool is_vcpu = entry.request == KVM_CREATE_VCPU;
      if (!is_open(entry.made, "anon_inode:")) return {};
      if (is_vcpu) {
        auto* vcpu = machine_.add_vcpus();
        vcpu->set_number(entry.made);
        vcpu->set_id(static_cast<uint32_t>(object_of<uint64_t>(one.data)));
        STASIS_CHECK(find_mappings(*vcpu));
        numbers_.insert(entry.made);
      }
    }
    if (entry.request == KVM_X86_SETUP_MCE) banks_[entry.number] = object_of<uint64_t>(one.data) & 0xff;
    auto* request = machine_.add_requests();
    request->set_request(entry.request);
    request->set_number(entry.number);
    request->set_made(entry.made);
    request->set_data(one.data);
    request->set_entry(one.offset);
    for (int32_t event : entry.events) {
      STASIS_TRY(int32_t number, find_event(event));
      request->add_events(number);
    }
    // An interrupt whose event descriptor is closed was taken away by the kernel.
    if (entry.request == KVM_IRQFD && request->events(0) == kNobody)
      machine_.mutable_requests()->RemoveLast();
    return {};
  }

  Result<int32_t> find_event(int32_t id) const {
    if (id == kNoEvent) return kNoEvent;
    if (id < kNoEvent) return is_open(of_number(id), "anon_inode:[eventfd]") ? of_number(id) : kNobody;
    bool elsewhere = false;
    for (const auto& other : tree_.all()) {
      if (other->link != "anon_inode:[eventfd]" || other->info("eventfd-id") != std::to_string(id)) continue;
      for (const auto& [pid, number] : other->owners) {
        if (pid == monitor_.pid()) return number;
      }
      elsewhere = true;
    }
    if (elsewhere)
      return refuse("it is told of events by a descriptor that only another process has open",
                    "this is not supported yet");
    return kNobody;
  }

  Result<void> find_mappings(schema::Vcpu& vcpu) {
    const std::string name = fmt::format("anon_inode:kvm-vcpu:{}", vcpu.id());
    for (const auto& range : mappings_) {
      if (range.name != name) continue;
      auto* mapping = vcpu.add_mappings();
      mapping->set_start(range.start);
      mapping->set_size(range.end - range.start);
      mapping->set_offset(range.offset);
      mapping->set_protection(static_cast<uint32_t>(range.protection));
    }
    if (!ids_.insert(vcpu.id()).second || count_machines() > 1)
      return refuse("its process has several machines, whose vCPUs have the same numbers",
                    "run each by itself");
    return {};
  }

  size_t count_machines() const {
    return static_cast<size_t>(std::count_if(log_.begin(), log_.end(), [&](const auto& one) {
      return one.entry.request == KVM_CREATE_VM && is_open(one.entry.made, "anon_inode:kvm-vm");
    }));
  }

  Result<void> save_shared(schema::Vcpu& vcpu) {
    for (const auto& mapping : vcpu.mappings()) {
      if (mapping.offset() != 0) continue;
      vcpu.mutable_shared()->resize(mapping.size());
      return monitor_.read(RemotePtr{mapping.start()},
                           std::as_writable_bytes(std::span(*vcpu.mutable_shared())));
    }
    return {};
  }

  Result<void> save_states() {
    Requests requests(monitor_);
    std::vector<uint32_t> sets;
    auto add = [&](uint32_t get, uint32_t set, const std::string& room) -> Result<void> {
      STASIS_TRY([[maybe_unused]] size_t added, requests.add(machine_.number(), get, room));
      sets.push_back(set);
      return {};
    };
    for (uint32_t chip : {KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC}) {
      kvm_irqchip room = {};
      room.chip_id = chip;
      STASIS_CHECK(add(KVM_GET_IRQCHIP, KVM_SET_IRQCHIP, data_of(room)));
    }
    STASIS_CHECK(add(KVM_GET_PIT2, KVM_SET_PIT2, data_of(kvm_pit_state2{})));
    STASIS_CHECK(add(KVM_GET_CLOCK, KVM_SET_CLOCK, data_of(kvm_clock_data{})));
    STASIS_CHECK(requests.run());
    for (size_t i = 0; i < sets.size(); ++i) {
      // There are machines without interrupt controllers in the kernel, and with some.
      if (requests.result(i) < 0 && sets[i] != KVM_SET_CLOCK) continue;
      if (requests.result(i) < 0)
        return request_failed("save", monitor_, machine_.number(), KVM_GET_CLOCK, requests.result(i));
      STASIS_TRY(std::string data, requests.output(i));
      if (sets[i] == KVM_SET_CLOCK) {
        // Guest time goes on from where it stood.
        auto clock = object_of<kvm_clock_data>(data);
        clock.flags = 0;
        data = data_of(clock);
      }
      auto* state = machine_.add_states();
      state->set_request(sets[i]);
      state->set_data(std::move(data));
    }
    return {};
  }

  const resource::OpenFile& file_;
  resource::Observation& tree_;
  Process& monitor_;
  std::vector<RecordReader::Remembered> log_;
  std::vector<MappedRange> mappings_;
  std::set<int> numbers_;          // of the descriptors of the machine and its vCPUs
  std::set<uint32_t> ids_;         // of vCPUs
  std::map<int, uint32_t> banks_;  // of machine checks, by the number of a vCPU
  schema::Machine machine_;
};

class Restorer {
 public:
  Restorer(const schema::Machine& machine, resource::Finishing& monitor)
      : machine_(machine), monitor_(monitor) {}

  Result<void> restore() {
    STASIS_CHECK(make_machine());
    STASIS_CHECK(make_requests(Stage::kFirst));
    for (const auto& vcpu : machine_.vcpus()) {
      STASIS_CHECK(set_frequency(vcpu));
      STASIS_CHECK(restore_vcpu(monitor_, vcpu));
    }
    STASIS_CHECK(set_states());
    STASIS_CHECK(make_requests(Stage::kLast));
    for (const auto& vcpu : machine_.vcpus()) STASIS_CHECK(map_shared(vcpu));
    return mend_record();
  }

 private:
  Result<int64_t> call(std::string what, long number, std::initializer_list<uint64_t> arguments) {
    STASIS_TRY(int64_t result, monitor_.call(number, std::span(arguments.begin(), arguments.size())));
    if (result < 0)
      return errno_error(kStep, fmt::format("{} (task {})", what, monitor_.pid()), static_cast<int>(-result));
    return result;
  }

  // In the place of what the engine has put there.
  Result<void> place(int64_t made, int number) {
    const auto from = static_cast<uint64_t>(made), to = static_cast<uint64_t>(number);
    if (made == number) return {};
    STASIS_TRY(int64_t flags, call("F_GETFD", SYS_fcntl, {to, F_GETFD}));
    const uint64_t close_on_exec = (flags & FD_CLOEXEC) != 0 ? O_CLOEXEC : 0;
    STASIS_TRY([[maybe_unused]] int64_t placed, call("dup3", SYS_dup3, {from, to, close_on_exec}));
    STASIS_TRY([[maybe_unused]] int64_t closed, call("close", SYS_close, {from}));
    return {};
  }

  Result<void> make_machine() {
    monitor_.forget();
    STASIS_TRY(RemotePtr path, monitor_.put(bytes_of(std::string_view("/dev/kvm", sizeof "/dev/kvm"))));
    STASIS_TRY(int64_t kvm, call("/dev/kvm", SYS_openat,
                                 {static_cast<uint64_t>(AT_FDCWD), path.value, O_RDWR | O_CLOEXEC}));
    STASIS_TRY(int64_t made, Requests::make(monitor_, static_cast<int>(kvm), KVM_CREATE_VM, machine_.type()));
    STASIS_CHECK(place(made, machine_.number()));
    STASIS_TRY([[maybe_unused]] int64_t closed, call("close", SYS_close, {static_cast<uint64_t>(kvm)}));
    return {};
  }

  // As many in one go as do not need the result of one before them.
  Result<void> make_requests(Stage stage) {
    for (const auto& request : machine_.requests()) {
      const Rule* rule = find_rule(request.request());
      if (rule == nullptr) {
        return Error{kStep, request_name(request.request()), "this version does not know it",
                     "use the version of stasis that took the checkpoint", ErrorCode::kUnsupported};
      }
      if (rule->stage == stage) STASIS_CHECK(make(request, *rule));
    }
    return make_collected();
  }

  Result<void> make(const schema::Request& request, const Rule& rule) {
    const int number = request.number();
    switch (rule.effect) {
      case Effect::kCreate: {
        STASIS_CHECK(make_collected());
        STASIS_TRY(int64_t made,
                   Requests::make(monitor_, number, request.request(), object_of<uint64_t>(request.data())));
        return place(made, request.made());
      }
      case Effect::kFilter:
        STASIS_CHECK(make_collected());
        return make_filter(request);
      case Effect::kEvent: {
        auto event = object_of<kvm_ioeventfd>(request.data());
        event.fd = request.events(0);
        if (request.events(0) != kNobody) return collect(request, data_of(event));
        STASIS_CHECK(make_collected());
        STASIS_TRY(int64_t nobody, call("eventfd2", SYS_eventfd2, {0, 0}));
        event.fd = static_cast<int32_t>(nobody);
        STASIS_CHECK(collect(request, data_of(event)));
        STASIS_CHECK(make_collected());
        STASIS_TRY([[maybe_unused]] int64_t closed,
                   call("close", SYS_close, {static_cast<uint64_t>(nobody)}));
        return {};
      }
      case Effect::kInterrupt: {
        auto interrupt = object_of<kvm_irqfd>(request.data());
        interrupt.fd = static_cast<uint32_t>(request.events(0));
        if (request.events(1) >= 0) interrupt.resamplefd = static_cast<uint32_t>(request.events(1));
        return collect(request, data_of(interrupt));
      }
      default:
        return collect(request, request.data());
    }
  }

  Result<void> collect(const schema::Request& request, const std::string& data) {
    constexpr size_t kMost = 32 << 10;  // bytes
    if (collected_.empty() || collected_size_ + data.size() > kMost) {
      STASIS_CHECK(make_collected());
      requests_.emplace(monitor_);
    }
    collected_.push_back(&request);
    collected_size_ += data.size();
    if (find_rule(request.request())->effect == Effect::kValue) {
      requests_->add(request.number(), request.request(), object_of<uint64_t>(data));
      return {};
    }
    STASIS_TRY([[maybe_unused]] size_t index, requests_->add(request.number(), request.request(), data));
    return {};
  }

  Result<void> make_collected() {
    if (collected_.empty()) return {};
    STASIS_CHECK(requests_->run());
    for (size_t i = 0; i < collected_.size(); ++i) {
      if (requests_->result(i) >= 0) continue;
      const auto& request = *collected_[i];
      Error error =
          request_failed(kStep, monitor_, request.number(), request.request(), requests_->result(i));
      if (request.request() != KVM_ENABLE_CAP) return error;
      return std::move(error).within(
          fmt::format("enable capability {} of KVM", object_of<kvm_enable_cap>(request.data()).cap));
    }
    collected_.clear();
    collected_size_ = 0;
    return {};
  }

  // The bitmaps to which it points follow it.
  Result<void> make_filter(const schema::Request& request) {
    auto filter = object_of<kvm_msr_filter>(request.data());
    Requests requests(monitor_);
    size_t at = sizeof filter;
    for (auto& range : filter.ranges) {
      const size_t size = (size_t{range.nmsrs} + 63) / 64 * 8;
      if (size > request.data().size() - std::min(at, request.data().size()))
        return Error{
            kStep, request_name(request.request()), "its bitmaps are missing", {}, ErrorCode::kDamaged};
      STASIS_TRY(RemotePtr bits, monitor_.put(bytes_of(std::string_view(request.data()).substr(at, size))));
      range.bitmap = reinterpret_cast<uint8_t*>(bits.value);
      at += size;
    }
    STASIS_TRY(size_t index, requests.add(request.number(), request.request(), data_of(filter)));
    STASIS_CHECK(requests.run());
    if (requests.result(index) < 0)
      return request_failed(kStep, monitor_, request.number(), request.request(), requests.result(index));
    return {};
  }

  Result<void> set_states() {
    Requests requests(monitor_);
    for (const auto& state : machine_.states()) {
      STASIS_TRY([[maybe_unused]] size_t index,
                 requests.add(machine_.number(), state.request(), state.data()));
    }
    STASIS_CHECK(requests.run());
    for (int i = 0; i < machine_.states_size(); ++i) {
      const int64_t result = requests.result(static_cast<size_t>(i));
      if (result < 0)
        return request_failed(kStep, monitor_, machine_.number(), machine_.states(i).request(), result);
    }
    return {};
  }

  Result<void> set_frequency(const schema::Vcpu& vcpu) {
    if (vcpu.tsc_khz() == 0) return {};
    STASIS_TRY(int64_t here, Requests::make(monitor_, vcpu.number(), KVM_GET_TSC_KHZ, 0));
    if (here == vcpu.tsc_khz()) return {};
    Requests setting(monitor_);
    setting.add(vcpu.number(), KVM_SET_TSC_KHZ, vcpu.tsc_khz());
    STASIS_CHECK(setting.run());
    if (setting.result(0) >= 0) return {};
    return Error{kStep, fmt::format("vCPU {} of task {}", vcpu.id(), monitor_.pid()),
                 fmt::format("its clock (TSC) ran at {} kHz, this host's runs at {} kHz and cannot be scaled",
                             vcpu.tsc_khz(), here),
                 "restart it on a host with the same frequency, or with TSC scaling",
                 ErrorCode::kUnsupported};
  }

  Result<void> map_shared(const schema::Vcpu& vcpu) {
    for (const auto& mapping : vcpu.mappings()) {
      STASIS_TRY([[maybe_unused]] int64_t mapped,
                 call("mmap", SYS_mmap,
                      {mapping.start(), mapping.size(), mapping.protection(), MAP_SHARED | MAP_FIXED,
                       static_cast<uint64_t>(vcpu.number()), mapping.offset()}));
      if (mapping.offset() != 0 || (mapping.protection() & PROT_WRITE) == 0) continue;
      const size_t size = std::min<size_t>(mapping.size(), vcpu.shared().size());
      STASIS_CHECK(monitor_.write(RemotePtr{mapping.start()},
                                  bytes_of(std::string_view(vcpu.shared()).substr(0, size))));
    }
    return {};
  }

  // Nobody wants a checkpoint now; event descriptors have other identities; the kernel knows of no page that
  // was written before.
  Result<void> mend_record() {
    const uint32_t none = 0;
    STASIS_CHECK(
        poke(monitor_.task(), RemotePtr{machine_.record()} + offsetof(Record, hold), bytes_of(none)));
    for (const auto& request : machine_.requests()) {
      const RemotePtr address = RemotePtr{machine_.record()} + offsetof(Record, log) + request.entry();
      Entry entry;
      STASIS_CHECK(peek(monitor_.task(), address, std::as_writable_bytes(std::span(&entry, 1))));
      if (entry.request != request.request())
        return Error{kStep,
                     request_name(request.request()),
                     "what was remembered has changed",
                     {},
                     ErrorCode::kDamaged};
      if (find_rule(entry.request)->effect == Effect::kSlot &&
          (object_of<kvm_userspace_memory_region>(request.data()).flags & KVM_MEM_LOG_DIRTY_PAGES) != 0)
        entry.flags |= kReportAll;
      for (int i = 0; i < 2; ++i) {
        if (request.events(i) >= 0) {
          STASIS_TRY(entry.events[i], identify(request.events(i)));
        }
      }
      STASIS_CHECK(poke(monitor_.task(), address, bytes_of(entry)));
    }
    return {};
  }

  Result<int32_t> identify(int number) {
    auto info = read_file(fmt::format("/proc/{}/fdinfo/{}", monitor_.task(), number));
    if (!info.ok()) return of_number(number);
    const size_t found = info->find("eventfd-id:");
    if (found == std::string::npos) return of_number(number);
    return static_cast<int32_t>(std::strtol(info->c_str() + found + sizeof "eventfd-id:", nullptr, 10));
  }

  const schema::Machine& machine_;
  resource::Finishing& monitor_;
  std::optional<Requests> requests_;
  std::vector<const schema::Request*> collected_;  // in requests_
  size_t collected_size_ = 0;                      // bytes
};

}  // namespace

Result<schema::Machine> save_machine(const resource::OpenFile& file, resource::Observation& tree,
                                     Process& monitor) {
  return Saver(file, tree, monitor).save();
}

Result<void> restore_machine(const schema::Machine& machine, resource::Finishing& monitor) {
  return Restorer(machine, monitor).restore();
}

}  // namespace stasis::kvm
