#include "resource/epoll.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>

#include "resource/payload.h"
#include "resource/refusal.h"
#include "resource/registry.h"
#include "resource/signalfd.h"
#include "schema/kinds/epoll.pb.h"

namespace stasis::resource {
namespace {

// As for descriptors of processes: see image/validate_process.cpp.
constexpr int kNumberLimit = 1 << 26;

struct Line {
  int number = 0;
  uint32_t events = 0;
  uint64_t data = 0;
  uint64_t inode = 0;
  uint32_t order = 0;  // among the entries of the same number
};

// "tfd:        5 events:       19 data:         2a00000005  pos:0 ino:35 sdev:c"
std::vector<Line> parse(const std::string& fdinfo) {
  std::vector<Line> lines;
  std::map<int, uint32_t> seen;
  for (size_t at = fdinfo.find("tfd:"); at != std::string::npos; at = fdinfo.find("\ntfd:", at + 1)) {
    Line line;
    unsigned long long data = 0, inode = 0;
    const char* text = fdinfo.c_str() + at + (fdinfo[at] == '\n' ? 1 : 0);
    int fields = sscanf(text, "tfd: %d events: %x data: %llx pos:%*d ino:%llx", &line.number, &line.events,
                        &data, &inode);
    if (fields < 3) continue;
    line.data = data;
    line.inode = inode;
    line.order = seen[line.number]++;
    lines.push_back(line);
  }
  return lines;
}

// An epoll set keeps (file, number) pairs. The number may since have been closed or reused while the file
// lives on under another one, so the number alone does not tell the file: kcmp compares the file itself.
bool is_target(const OpenFile& candidate, const OpenFile& set, const Line& line) {
  kcmp_epoll_slot slot = {static_cast<uint32_t>(set.number), static_cast<uint32_t>(line.number), line.order};
  long result =
      syscall(SYS_kcmp, candidate.task.value, set.task.value, KCMP_EPOLL_TFD, candidate.number, &slot);
  if (result >= 0) return result == 0;
  return candidate.status.st_ino == line.inode && candidate.task == set.task &&
         candidate.number == line.number;
}

const OpenFile* find_target(const OpenFile& set, const Line& line, const Observation& tree) {
  const OpenFile* likely = tree.find(set.task, line.number);
  if (likely && is_target(*likely, set, line)) return likely;
  const auto& by_inode =
      tree.index("epoll: inode", [](const OpenFile& file) { return std::to_string(file.status.st_ino); });
  auto [first, last] = by_inode.equal_range(std::to_string(line.inode));
  for (auto entry = first; entry != last; ++entry) {
    if (is_target(*entry->second, set, line)) return entry->second;
  }
  return nullptr;
}

uint64_t argument(int64_t value) { return static_cast<uint64_t>(value); }

// Who makes the calls: the owner, or, of a set that nobody has, we.
class Caller {
 public:
  virtual ~Caller() = default;
  virtual Result<int64_t> call(long number, std::span<const uint64_t> arguments) = 0;
  virtual Result<uint64_t> put(const epoll_event& event) = 0;
};

class OwnerCalls final : public Caller {
 public:
  explicit OwnerCalls(Finishing& owner) : owner_(owner) {}
  Result<int64_t> call(long number, std::span<const uint64_t> arguments) override {
    return owner_.call(number, arguments);
  }
  Result<uint64_t> put(const epoll_event& event) override {
    STASIS_TRY(RemotePtr address, owner_.put(bytes_of(event)));
    return address.value;
  }

 private:
  Finishing& owner_;
};

class OurCalls final : public Caller {
 public:
  Result<int64_t> call(long number, std::span<const uint64_t> arguments) override {
    std::array<uint64_t, 6> all = {};
    std::copy(arguments.begin(), arguments.end(), all.begin());
    const int64_t result = syscall(number, all[0], all[1], all[2], all[3], all[4], all[5]);
    return result < 0 ? -int64_t{errno} : result;
  }
  Result<uint64_t> put(const epoll_event& event) override {
    event_ = event;
    return reinterpret_cast<uint64_t>(&event_);
  }

 private:
  epoll_event event_ = {};
};

// One EPOLL_CTL_ADD by whoever has the target open as `held_as` and is to add it as `number`.
class Adding {
 public:
  Adding(const Record& record, int set, Caller& caller) : record_(record), set_(set), caller_(caller) {}

  Result<void> add(const schema::Epoll::Target& target) {
    if (target.held_as() == target.number()) return control(target);
    // Borrow the number for a moment: what is there is put aside and put back, its close-on-exec flag too.
    STASIS_TRY(int64_t flags,
               caller_.call(SYS_fcntl, std::array{argument(target.number()), argument(F_GETFD)}));
    int64_t aside = -1;
    if (flags >= 0) {
      STASIS_TRY(aside, call("dup", SYS_fcntl,
                             std::array{argument(target.number()), argument(F_DUPFD_CLOEXEC), argument(0)}));
    }
    STASIS_CHECK(
        call("dup3", SYS_dup3,
             std::array{argument(target.held_as()), argument(target.number()), argument(O_CLOEXEC)}));
    auto added = control(target);
    if (aside >= 0) {
      int64_t close_on_exec = flags & FD_CLOEXEC ? O_CLOEXEC : 0;
      STASIS_CHECK(call("dup3", SYS_dup3,
                        std::array{argument(aside), argument(target.number()), argument(close_on_exec)}));
      STASIS_CHECK(call("close", SYS_close, std::array{argument(aside)}));
    } else {
      STASIS_CHECK(call("close", SYS_close, std::array{argument(target.number())}));
    }
    return added;
  }

 private:
  Result<void> control(const schema::Epoll::Target& target) {
    epoll_event event = {};
    event.events = target.events();
    event.data.u64 = target.data();
    STASIS_TRY(const uint64_t address, caller_.put(event));
    auto added =
        call("epoll_ctl", SYS_epoll_ctl,
             std::array{argument(set_), argument(EPOLL_CTL_ADD), argument(target.number()), address});
    if (!added.ok()) return std::move(added).error();
    return {};
  }

  Result<int64_t> call(const char* name, long number, std::span<const uint64_t> arguments) {
    STASIS_TRY(int64_t result, caller_.call(number, arguments));
    if (result < 0) return cannot_make(record_, name, static_cast<int>(-result));
    return result;
  }

  const Record& record_;
  int set_;
  Caller& caller_;
};

// Whether a file can be in a set only by the doing of a process: that opens it, or whose signals it tells.
bool needs_owner(const OpenFile& file, const Observation& tree) {
  for (const DescriptorKind* kind : descriptor_kinds()) {
    if (kind->recognises(file, tree))
      return kind->is_opened_by_owner() || kind->info().name == SignalfdKind().info().name;
  }
  return false;
}

}  // namespace

KindInfo EpollKind::info() const {
  return {"epoll", "Descriptors", "epoll set: every target with its events and data"};
}

bool EpollKind::recognises(const OpenFile& file, const Observation&) const {
  return file.link == "anon_inode:[eventpoll]" && !file.owners.empty();
}

KindInfo EpollInFlightKind::info() const {
  return {"epoll-in-flight", "Descriptors", "epoll set in flight in a unix socket", Support::kPartial,
          "one that watches a signalfd, or what refers to a process, is refused"};
}

bool EpollInFlightKind::recognises(const OpenFile& file, const Observation&) const {
  return file.link == "anon_inode:[eventpoll]" && file.owners.empty();
}

Result<std::string> EpollKind::observe(const OpenFile& file, Observation& tree) const {
  schema::Epoll message;
  for (const Line& line : parse(file.fdinfo)) {
    const OpenFile* target = find_target(file, line, tree);
    if (!target) {
      return refusal(
          file,
          fmt::format("it watches a file (added as descriptor {}, inode {}) that no process has open by a "
                      "descriptor any more",
                      line.number, line.inode),
          "the file is kept by a message in a socket or by a mapping only; try again later");
    }
    STASIS_TRY(const int held, held_as(*target, file, line.number, tree));
    auto* entry = message.add_targets();
    entry->set_number(line.number);
    entry->set_events(line.events);
    entry->set_data(line.data);
    entry->set_description(target->id);
    entry->set_held_as(held);
  }
  return pack(message);
}

Result<int> EpollKind::held_as(const OpenFile& target, const OpenFile& set, int added_as,
                               const Observation&) const {
  int held = -1;
  for (const auto& [pid, number] : target.owners) {
    if (pid == set.pid && (held < 0 || number == added_as)) held = number;
  }
  if (held >= 0) return held;
  return refusal(set,
                 fmt::format("it watches {}, which task {} has not open itself", target.describe(), set.pid),
                 "the descriptor has to be open in a process that has the epoll set");
}

// Nobody has to have it.
Result<int> EpollInFlightKind::held_as(const OpenFile& target, const OpenFile& set, int,
                                       const Observation& tree) const {
  if (!needs_owner(target, tree)) return -1;
  return refusal(set,
                 fmt::format("it is in a message that nobody has received, and watches {}, which belongs to "
                             "a process",
                             target.describe()),
                 "try again when it has been received");
}

Result<Fd> EpollKind::make(const Record& record, Making&) const {
  // A set that cannot be filled later is to fail now, before any process exists.
  STASIS_TRY([[maybe_unused]] auto message, unpack<schema::Epoll>(record));
  Fd fd(epoll_create1(EPOLL_CLOEXEC));
  if (!fd) return cannot_make(record, "epoll_create1");
  if (record.flags & O_NONBLOCK && fcntl(fd.get(), F_SETFL, O_NONBLOCK) < 0)
    return cannot_make(record, "F_SETFL");
  return fd;
}

// Targets are added by the owner itself: the number is part of the key, and a signalfd in the set is bound to
// the signals of the process that adds it.
Result<void> EpollKind::finish(const Record& record, Finishing& owner) const {
  STASIS_TRY(auto message, unpack<schema::Epoll>(record));
  OwnerCalls calls(owner);
  Adding adding(record, owner.number(), calls);
  for (const auto& target : message.targets()) STASIS_CHECK(adding.add(target));
  return {};
}

// Here, when all targets are what they will be.
Result<void> EpollInFlightKind::settle(const Record& record, int fd, Making& context, Round round) const {
  if (round != Round::kEnd) return {};
  STASIS_TRY(auto message, unpack<schema::Epoll>(record));
  // Our own number of the set must be none that is borrowed.
  int above = 0;
  for (const auto& target : message.targets()) {
    if (target.number() < 0 || target.number() >= kNumberLimit) return cannot_make(record, "a target", EBADF);
    above = std::max(above, target.number() + 1);
  }
  Fd set(fcntl(fd, F_DUPFD_CLOEXEC, above));
  if (!set) return cannot_make(record, "F_DUPFD");
  OurCalls calls;
  Adding adding(record, set.get(), calls);
  for (auto& target : *message.mutable_targets()) {
    STASIS_TRY(int number, context.description(target.description()));
    target.set_held_as(number);
    STASIS_CHECK(adding.add(target));
  }
  return {};
}

std::string EpollKind::summary(const Record& record) const {
  auto message = unpack<schema::Epoll>(record);
  if (!message.ok()) return {};
  return fmt::format("{} targets", message->targets_size());
}

}  // namespace stasis::resource
