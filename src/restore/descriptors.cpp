#include "restore/descriptors.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <algorithm>
#include <utility>

#include "remote/borrowed_process.h"
#include "resource/file/locks.h"
#include "resource/registry.h"

namespace stasis::restore {

using remote::Batch;

DescriptorTable::DescriptorTable(const image::Image& image) : image_(image), numbers_(image.manifest()) {
  for (const auto& process : image.manifest().processes()) {
    for (uint32_t id : process.namespaces()) {
      for (const auto& one : image.manifest().namespaces()) {
        if (one.id() == id && one.type() == CLONE_NEWNS)
          mounts_of_memories_[static_cast<int>(process.memory())] = {{id}, 0, false};
      }
    }
    for (const auto& slot : process.descriptors()) {
      base_ = std::max(base_, slot.number() + 1);
      if (process.state() == schema::Process::ZOMBIE) continue;
      first_owners_.emplace(slot.description(), process.pid());
      owners_.emplace(slot.description(), process.pid());
    }
  }
  for (const auto& description : image.manifest().descriptions()) {
    records_.push_back({description.id(), description.kind(), description.payload(), description.flags(),
                        description.position(), description.shown()});
    if (description.namespaces_size() > 0 || description.mount() != 0)
      where_[description.id()] = {{description.namespaces().begin(), description.namespaces().end()},
                                  description.mount(),
                                  description.beneath_mount()};
    if (!description.host_path().empty()) host_paths_[description.id()] = description.host_path();
    const auto& owner = description.signal_owner();
    if (owner.id() != 0 || owner.signal() != 0 || (description.flags() & O_ASYNC) != 0)
      signalling_.push_back(&description);
    const auto& locks = description.locks();
    if (std::any_of(locks.begin(), locks.end(),
                    [](const auto& lock) { return lock.kind() == schema::FileLock::LEASE; }))
      leased_.push_back(&description);
  }
  // The soft limit is restored in each process; here we need room above the program's own numbers.
  rlimit limit;
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
}

const Namespaces::Where& DescriptorTable::where(uint32_t id) const {
  static const Namespaces::Where session;
  auto found = where_.find(id);
  return found == where_.end() ? session : found->second;
}

void DescriptorTable::as(const resource::Actor& actor, std::function<Result<void>()> act) {
  if (settling_in_ == Namespaces::Where()) {
    deeds_.push_back({actor, std::move(act)});
    return;
  }
  deeds_.push_back(
      {actor, [this, there = settling_in_, act = std::move(act)] { return namespaces_.within(there, act); }});
}

Result<void> DescriptorTable::within(uint32_t id, const std::function<Result<void>()>& act) {
  return namespaces_.within(where(id), act);
}

Result<int> DescriptorTable::add(Fd fd) {
  STASIS_TRY(Fd high, duplicate(fd.get(), base_));
  owned_.push_back(std::move(high));
  return owned_.back().get();
}

void DescriptorTable::provide(uint32_t id, Fd fd) {
  auto number = add(std::move(fd));
  if (number.ok()) {
    made_[id] = *number;
  } else if (pending_error_.ok()) {
    pending_error_ = std::move(number).error();
  }
}

Result<int> DescriptorTable::description(uint32_t id) {
  if (auto found = made_.find(id); found != made_.end()) return found->second;
  const resource::Record* wanted = record(id);
  if (wanted == nullptr) {
    return Error{"restart: make descriptors",
                 fmt::format("description {}", id),
                 "the image has none",
                 {},
                 ErrorCode::kDamaged};
  }
  const auto* kind = resource::find_descriptor_kind(wanted->kind);
  if (kind == nullptr) {
    return Error{"restart: make descriptors", wanted->describe(), "this version does not know its kind",
                 "use the version of stasis that took the checkpoint", ErrorCode::kUnsupported};
  }
  if (!being_made_.insert(id).second) {
    return Error{"restart: make descriptors", wanted->describe(), "it needs itself", {}, ErrorCode::kDamaged};
  }
  // A copy of its file is at the same place for everybody.
  auto host_path = host_paths_.find(id);
  auto copy = host_path == host_paths_.end() ? copies_.end() : copies_.find(host_path->second);
  const bool copied = copy != copies_.end();
  Fd fd;
  auto made = namespaces_.within(copied ? Namespaces::Where() : where(id), [&]() -> Result<void> {
    copy_ = copied ? copy->second : "";
    STASIS_TRY(fd, kind->make(*wanted, *this));
    copy_.clear();
    return {};
  });
  STASIS_CHECK(made);
  STASIS_TRY(int number, add(std::move(fd)));
  made_[id] = number;
  return number;
}

Result<void> DescriptorTable::make(const std::string& terminal_path) {
  terminal_path_ = terminal_path;
  for (const auto& record : records_) {
    STASIS_TRY([[maybe_unused]] int number, description(record.id));
  }
  STASIS_CHECK(std::move(pending_error_));
  pending_error_ = {};
  for (const auto& record : records_) {
    STASIS_CHECK(namespaces_.within(where(record.id), [&] {
      return resource::find_descriptor_kind(record.kind)->fill(record, made_.at(record.id), *this);
    }));
  }
  shared_objects_.clear();
  for (const auto& description : image_.manifest().descriptions()) {
    STASIS_CHECK(resource::lock_description(description, made_.at(description.id())));
  }
  return {};
}

std::string DescriptorTable::place_of(const std::string& path) const {
  if (!copy_.empty()) return copy_;
  auto copy = copies_.find(path);
  return copy == copies_.end() ? path : copy->second;
}

Result<void> DescriptorTable::settle() {
  using Round = resource::DescriptorKind::Round;
  for (Round round : {Round::kListen, Round::kConnect, Round::kWait, Round::kSend, Round::kEnd}) {
    for (const auto& record : records_) {
      const auto* kind = resource::find_descriptor_kind(record.kind);
      settling_in_ = where(record.id);
      STASIS_CHECK(namespaces_.within(
          settling_in_, [&] { return kind->settle(record, made_.at(record.id), *this, round); }));
    }
    // Who waits in a queue has a place in it, and so has a message; the rest is in no order.
    if (round == Round::kListen || round == Round::kConnect) {
      std::stable_sort(deeds_.begin(), deeds_.end(),
                       [](const Deed& a, const Deed& b) { return a.actor < b.actor; });
    }
    STASIS_CHECK(perform(deeds_, unused_number(image_.manifest())));
    deeds_.clear();
  }
  shared_objects_.clear();
  kept_objects_.clear();
  return {};
}

Result<int> DescriptorTable::open_for_mapping(int memory, const std::string& path, bool writable) {
  const bool is_open = path.starts_with("/proc/self/fd/");  // one of our own
  const Namespaces::Where mounts = is_open ? Namespaces::Where() : mounts_of_memories_[memory];
  std::string key = (writable ? "w" : "r") + path;
  if (!mounts.ids.empty()) key += fmt::format(" of {}", mounts.ids.front());
  if (auto found = mapped_files_.find(key); found != mapped_files_.end()) return found->second;
  STASIS_TRY(auto inside, Namespaces::Inside::enter(namespaces_, mounts));
  STASIS_TRY(Fd fd, open_file(place_of(path), writable ? O_RDWR : O_RDONLY));
  STASIS_TRY(int number, add(std::move(fd)));
  mapped_files_[key] = number;
  return number;
}

Result<void> DescriptorTable::place(Skeleton& skeleton, const schema::Process& process) const {
  std::vector<const schema::DescriptorSlot*> slots;
  for (const auto& slot : process.descriptors()) slots.push_back(&slot);
  std::sort(slots.begin(), slots.end(),
            [](const auto* a, const auto* b) { return a->number() < b->number(); });
  Batch batch = skeleton.batch();
  std::string step = "place the descriptors";
  auto flush_when_full = [&]() -> Result<void> {
    if (batch.fits(2, 0)) return {};
    STASIS_CHECK(skeleton.run_checked(batch, step));
    batch.clear();
    return {};
  };
  int next = 0;
  for (const auto* slot : slots) {
    STASIS_CHECK(flush_when_full());
    // What the skeleton inherited in between is the builder's own.
    if (slot->number() > next) {
      batch.call(SYS_close_range,
                 {static_cast<uint64_t>(next), static_cast<uint64_t>(slot->number() - 1), 0});
    }
    batch.call(SYS_dup3,
               {static_cast<uint64_t>(made_.at(slot->description())), static_cast<uint64_t>(slot->number()),
                slot->close_on_exec() ? static_cast<uint64_t>(O_CLOEXEC) : 0});
    next = slot->number() + 1;
  }
  if (next < base_) {
    batch.call(SYS_close_range, {static_cast<uint64_t>(next), static_cast<uint64_t>(base_ - 1), 0});
  }
  return skeleton.run_checked(batch, step);
}

namespace {

// A process that is not the owner gets its descriptor as the kernel lets a debugger have it.
Result<void> fetch(Skeleton& skeleton, const schema::DescriptorSlot& slot, NsTid owner, int number) {
  const auto target = static_cast<uint64_t>(slot.number());
  const uint64_t close_on_exec = slot.close_on_exec() ? O_CLOEXEC : 0;
  Batch batch = skeleton.batch();
  const size_t handle = batch.call(SYS_pidfd_open, {static_cast<uint64_t>(owner.value), 0});
  const size_t fetched = batch.call_with_last(SYS_pidfd_getfd, {static_cast<uint64_t>(number), 0});
  batch.call_with_last(SYS_dup3, {target, close_on_exec});
  STASIS_CHECK(skeleton.run_checked(batch, "share a descriptor"));
  Batch closing = skeleton.batch();
  closing.call(SYS_close, {static_cast<uint64_t>(batch.result(fetched))});
  closing.call(SYS_close, {static_cast<uint64_t>(batch.result(handle))});
  return skeleton.run_checked(closing, "share a descriptor");
}

class RemoteFinishing final : public remote::BorrowedProcess<resource::Finishing> {
 public:
  // `ready`: whether the owner is prepared for calls, which most kinds do not need.
  RemoteFinishing(Skeleton& owner, int number, bool& ready, const DescriptorTable& table)
      : BorrowedProcess(owner.pid(), owner.own_pid(), owner.batch(),
                        [&owner, &ready](Batch& batch) -> Result<void> {
                          if (!std::exchange(ready, true)) STASIS_CHECK(owner.prepare());
                          return owner.run(batch);
                        }),
        owner_(owner.ns_pid()),
        number_(number),
        table_(table) {}
  int number() const override { return number_; }
  NsTid as_seen(NsTid task) const override {
    return NsTid{table_.number_as_seen_by(owner_.value, task.value)};
  }

 private:
  NsTid owner_;  // in the session
  int number_;
  const DescriptorTable& table_;
};

}  // namespace

Result<void> DescriptorTable::finish(std::map<int, Skeleton>& skeletons,
                                     const schema::Manifest& manifest) const {
  std::map<uint32_t, const schema::DescriptorSlot*> done;
  // What refers to processes first: sets of descriptors refer to that.
  for (const bool by_owner : {true, false}) {
    for (const auto& process : manifest.processes()) {
      auto owner = skeletons.find(process.pid());
      if (owner == skeletons.end() || process.state() == schema::Process::ZOMBIE) continue;
      bool ready = false;
      for (const auto& slot : process.descriptors()) {
        const resource::Record* wanted = record(slot.description());
        const auto* kind = resource::find_descriptor_kind(wanted->kind);
        if (kind->is_opened_by_owner() != by_owner || kind->finishes_last()) continue;
        const int first = first_owners_.at(slot.description());
        auto [entry, is_new] = done.try_emplace(slot.description(), &slot);
        if (is_new && first == process.pid()) {
          RemoteFinishing context(owner->second, slot.number(), ready, *this);
          STASIS_CHECK(kind->finish(*wanted, context));
        } else if (by_owner && process.descriptors_of() == 0) {
          if (!std::exchange(ready, true)) STASIS_CHECK(owner->second.prepare());
          STASIS_CHECK(fetch(owner->second, slot, NsTid{number_as_seen_by(process.pid(), first)},
                             entry->second->number()));
        }
      }
    }
  }
  return {};
}

Result<void> DescriptorTable::finish_last(Skeleton& skeleton, const schema::Process& process) const {
  std::set<uint32_t> done;
  bool ready = true;
  for (const auto& slot : process.descriptors()) {
    if (first_owners_.at(slot.description()) != process.pid()) continue;
    const resource::Record* wanted = record(slot.description());
    const auto* kind = resource::find_descriptor_kind(wanted->kind);
    if (!kind->finishes_last() || !done.insert(slot.description()).second) continue;
    RemoteFinishing context(skeleton, slot.number(), ready, *this);
    STASIS_CHECK(kind->finish(*wanted, context));
  }
  return {};
}

// Whoever has such a lock may have closed the file since, and left it to a child.
Result<void> DescriptorTable::take_locks_of_descriptions(std::map<int, Skeleton>& skeletons) const {
  for (const auto& description : image_.manifest().descriptions()) {
    for (const auto& lock : description.locks()) {
      if (!resource::shows_holder(lock)) continue;
      const int file = made_.at(description.id());
      const int operation = resource::flock_operation(lock);
      int error = 0;
      if (auto holder = skeletons.find(lock.holder()); holder != skeletons.end()) {
        STASIS_CHECK(holder->second.prepare());
        Batch batch = holder->second.batch();
        batch.call(SYS_flock, {static_cast<uint64_t>(file), static_cast<uint64_t>(operation)});
        STASIS_CHECK(holder->second.run(batch));
        if (batch.result(0) < 0) error = static_cast<int>(-batch.result(0));
      } else if (::flock(file, operation) != 0) {
        error = errno;  // the number of one who is gone, which a thread has got since
      }
      if (error != 0)
        return resource::lock_refused(description.shown(), file, resource::as_flock(lock), error);
    }
  }
  return {};
}

Result<void> DescriptorTable::take_record_locks(Skeleton& skeleton, const schema::Process& process) const {
  for (const auto& lock : process.record_locks()) {
    Batch batch = skeleton.batch();
    struct flock wanted = resource::as_flock(lock);
    batch.call(SYS_fcntl, {static_cast<uint64_t>(lock.number()), F_SETLK, batch.put_object(wanted)});
    STASIS_CHECK(skeleton.run(batch));
    if (batch.result(0) >= 0) continue;
    auto slot = std::find_if(process.descriptors().begin(), process.descriptors().end(),
                             [&](const auto& candidate) { return candidate.number() == lock.number(); });
    const resource::Record* file =
        slot != process.descriptors().end() ? record(slot->description()) : nullptr;
    if (file == nullptr) {
      return Error{"restart: lock a file",
                   fmt::format("descriptor {} of task {}", lock.number(), process.pid()),
                   "the image has none",
                   {},
                   ErrorCode::kDamaged};
    }
    return resource::lock_refused(file->shown, made_.at(file->id), wanted,
                                  static_cast<int>(-batch.result(0)));
  }
  return {};
}

// 1. The kernel notes who asks and by which number. 2. Nobody is to be told of what happened before the
// checkpoint; set_signal_owners() comes later. 3. Whoever wanted the file is gone, or asks again: what counts
// is that its owner still has to give the lease up.
Result<void> DescriptorTable::take_leases(Skeleton& skeleton, const schema::Process& process) const {
  for (const schema::Description* description : leased_) {
    auto first = first_owners_.find(description->id());
    if (first == first_owners_.end()) continue;
    auto slot =
        std::find_if(process.descriptors().begin(), process.descriptors().end(),
                     [&](const auto& candidate) { return candidate.description() == description->id(); });
    if (slot == process.descriptors().end()) continue;
    const auto number = static_cast<uint64_t>(slot->number());
    for (const auto& lock : description->locks()) {
      if (lock.kind() != schema::FileLock::LEASE) continue;
      const bool can = owners_.contains({description->id(), lock.holder()});
      if (process.pid() != (can ? lock.holder() : first->second)) continue;
      Batch batch = skeleton.batch();
      const auto type = static_cast<uint64_t>(resource::lease_type(lock, description->flags()));
      const size_t taken = batch.call(SYS_fcntl, {number, F_SETLEASE, type});
      batch.call(SYS_fcntl, {number, F_SETOWN, 0});
      size_t broken = 0;
      if (lock.breaking()) {
        const std::string path = fmt::format("/proc/self/fd/{}", slot->number());
        const int flags = (lock.released() ? O_WRONLY : O_RDONLY) | O_NONBLOCK;
        broken = batch.call(SYS_openat,
                            {static_cast<uint64_t>(AT_FDCWD), batch.put({path.c_str(), path.size() + 1}),
                             static_cast<uint64_t>(flags)});
      }
      STASIS_CHECK(skeleton.run(batch));
      if (batch.result(taken) < 0) {
        const int error = static_cast<int>(-batch.result(taken));
        return errno_error(
            "restart: take a lease", description->shown(), error,
            error == EAGAIN ? "another program has the file open, or this one has mapped it" : "");
      }
      if (lock.breaking() && batch.result(broken) != -EWOULDBLOCK) {
        return errno_error("restart: have a lease broken", description->shown(),
                           static_cast<int>(-std::min<int64_t>(batch.result(broken), 0)));
      }
    }
  }
  return {};
}

Result<void> DescriptorTable::set_signal_owners(Skeleton& skeleton, const schema::Process& process) const {
  for (const schema::Description* description : signalling_) {
    auto first = first_owners_.find(description->id());
    if (first == first_owners_.end() || first->second != process.pid()) continue;
    auto slot =
        std::find_if(process.descriptors().begin(), process.descriptors().end(),
                     [&](const auto& candidate) { return candidate.description() == description->id(); });
    const auto& owner = description->signal_owner();
    auto number = static_cast<uint64_t>(slot->number());
    Batch batch = skeleton.batch();
    const int id = number_as_seen_by(process.pid(), owner.id());
    if (id == 0 && owner.id() != 0) {
      return Error{"restart: say whom a descriptor signals",
                   description->shown(),
                   fmt::format("task {} cannot name {}, which is outside of its pid namespace", process.pid(),
                               owner.id()),
                   {},
                   ErrorCode::kUnsupported};
    }
    f_owner_ex value = {static_cast<__pid_type>(owner.type()), id};
    if (owner.id() != 0) batch.call(SYS_fcntl, {number, F_SETOWN_EX, batch.put_object(value)});
    if (owner.signal() != 0) batch.call(SYS_fcntl, {number, F_SETSIG, owner.signal()});
    // After the owner: a terminal chooses one for itself when it has none.
    if ((description->flags() & O_ASYNC) != 0) batch.call(SYS_fcntl, {number, F_SETFL, description->flags()});
    STASIS_CHECK(skeleton.run_checked(batch, fmt::format("say whom {} signals", description->shown())));
  }
  return {};
}

}  // namespace stasis::restore
