#include "resource/epoll.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdio>

#include "resource/payload.h"
#include "resource/refusal.h"
#include "schema/kinds/epoll.pb.h"

namespace stasis::resource {
namespace {

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

// One EPOLL_CTL_ADD by the owner, which has the target open as `held_as` and is to add it as `number`.
class Adding {
 public:
  Adding(const Record& record, Finishing& owner) : record_(record), owner_(owner) {}

  Result<void> add(const schema::Epoll::Target& target) {
    if (target.held_as() == target.number()) return control(target);
    // Borrow the number for a moment: what is there is put aside and put back, its close-on-exec flag too.
    STASIS_TRY(int64_t flags,
               owner_.call(SYS_fcntl, std::array{argument(target.number()), argument(F_GETFD)}));
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
    STASIS_TRY(RemotePtr address, owner_.put(std::as_bytes(std::span(&event, 1))));
    auto added = call("epoll_ctl", SYS_epoll_ctl,
                      std::array{argument(owner_.number()), argument(EPOLL_CTL_ADD),
                                 argument(target.number()), address.value});
    if (!added.ok()) return std::move(added).error();
    return {};
  }

  Result<int64_t> call(const char* name, long number, std::span<const uint64_t> arguments) {
    STASIS_TRY(int64_t result, owner_.call(number, arguments));
    if (result < 0) return cannot_make(record_, name, static_cast<int>(-result));
    return result;
  }

  const Record& record_;
  Finishing& owner_;
};

}  // namespace

KindInfo EpollKind::info() const {
  return {"epoll", "Descriptors", "epoll set: every target with its events and data"};
}

bool EpollKind::recognises(const OpenFile& file, const Observation&) const {
  return file.link == "anon_inode:[eventpoll]";
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
    int held_as = -1;
    for (const auto& [pid, number] : target->owners) {
      if (pid == file.pid && (held_as < 0 || number == line.number)) held_as = number;
    }
    if (held_as < 0) {
      return refusal(
          file, fmt::format("it watches {}, which task {} has not open itself", target->describe(), file.pid),
          "the descriptor has to be open in a process that has the epoll set");
    }
    auto* entry = message.add_targets();
    entry->set_number(line.number);
    entry->set_events(line.events);
    entry->set_data(line.data);
    entry->set_description(target->id);
    entry->set_held_as(held_as);
  }
  return pack(message);
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
  Adding adding(record, owner);
  for (const auto& target : message.targets()) STASIS_CHECK(adding.add(target));
  return {};
}

std::string EpollKind::summary(const Record& record) const {
  auto message = unpack<schema::Epoll>(record);
  if (!message.ok()) return {};
  return fmt::format("{} targets", message->targets_size());
}

}  // namespace stasis::resource
