#include "restore/user_namespaces.h"

#include <fcntl.h>
#include <linux/securebits.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "kernel/beside.h"
#include "kernel/proc.h"

namespace stasis::restore {
namespace {

constexpr const char* kStep = "restart: make a user namespace";

// A process of ours does `make`, says how that went, and ends when `take` has had a look at it.
Result<void> beside(const std::function<Result<void>()>& make,
                    const std::function<Result<void>(HostTid child)>& take) {
  int said[2], leave[2];
  if (::pipe2(said, O_CLOEXEC) != 0) return errno_error(kStep, {});
  Fd said_from(said[0]), said_to(said[1]);
  if (::pipe2(leave, O_CLOEXEC) != 0) return errno_error(kStep, {});
  Fd leave_from(leave[0]), leave_to(leave[1]);
  const pid_t child = ::fork();
  if (child < 0) return errno_error(kStep, {});
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    leave_to.reset();
    said_from.reset();
    auto made = make();
    (void)write_all(said_to.get(), made.ok() ? std::string("+") : packed(made.error())).ok();
    said_to.reset();
    (void)read_all(leave_from.get()).ok();
    ::_exit(0);
  }
  said_to.reset();
  leave_from.reset();
  auto text = read_all(said_from.get());
  Result<void> done;
  if (!text.ok()) {
    done = std::move(text).error();
  } else if (text->empty()) {
    done = Error{kStep, {}, "a helper was killed", "try again"};
  } else {
    done = *text == "+" ? take(HostTid{child}) : Result<void>(unpacked(*text));
  }
  leave_to.reset();
  while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  return done;
}

// The kernel makes a change of credentials hide the process from its own user.
Result<void> enter(int users) {
  if (users >= 0 && ::setns(users, CLONE_NEWUSER) != 0)
    return errno_error("restart: enter a user namespace", {});
  ::prctl(PR_SET_DUMPABLE, 1);
  return {};
}

// In the numbers of the namespace above, which is what the kernel wants.
Result<std::string> map_of(const google::protobuf::RepeatedPtrField<schema::IdRange>& wanted,
                           const google::protobuf::RepeatedPtrField<schema::IdRange>* above) {
  std::string text;
  for (const auto& range : wanted) {
    const uint32_t outside = above != nullptr ? id_inside(*above, range.outside()) : range.outside();
    if (outside == kNoId) {
      return Error{kStep,
                   fmt::format("id {}", range.outside()),
                   "the user namespace above it does not have this id",
                   {},
                   ErrorCode::kUnsupported};
    }
    text += fmt::format("{} {} {}\n", range.inside(), outside, range.count());
  }
  return text;
}

Result<void> write_map(HostTid task, const char* name, const std::string& text) {
  if (text.empty()) return {};
  STASIS_TRY(Fd file, kernel::open_proc(task, name, O_WRONLY));
  if (::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return errno_error(kStep, name, errno, "only the ids of whoever restarts it can be mapped");
  return {};
}

}  // namespace

uint32_t id_inside(const google::protobuf::RepeatedPtrField<schema::IdRange>& ranges, uint32_t id) {
  for (const auto& range : ranges) {
    if (id >= range.outside() && id - range.outside() < range.count())
      return range.inside() + (id - range.outside());
  }
  return kNoId;
}

namespace {

// That which is root in it, if it has one.
uint32_t first_id(const google::protobuf::RepeatedPtrField<schema::IdRange>& ranges) {
  uint32_t first = kNoId;
  for (const auto& range : ranges) first = std::min(first, range.inside());
  return first;
}

// Options of a file system that say whose its root is, in the numbers of a user namespace.
std::string options_inside(const std::string& data, const schema::Namespace& users) {
  std::istringstream words(data);
  std::string inside;
  for (std::string word; std::getline(words, word, ',');) {
    const bool user = word.starts_with("uid="), group = word.starts_with("gid=");
    if (user || group) {
      const auto id = static_cast<uint32_t>(std::strtoul(word.c_str() + 4, nullptr, 10));
      const uint32_t number = id_inside(user ? users.users() : users.groups(), id);
      if (number == kNoId) continue;
      word = word.substr(0, 4) + std::to_string(number);
    }
    inside += (inside.empty() ? "" : ",") + word;
  }
  return inside;
}

}  // namespace

// What is made there belongs to whoever makes it, so that one has to have a number there.
Result<void> enter_users(int users, const schema::Namespace& record) {
  STASIS_CHECK(enter(users));
  ::prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP);
  const uint32_t user = first_id(record.users()), group = first_id(record.groups());
  // Not by the C library, which asks all threads that share our memory to do the same.
  if ((group != kNoId && ::syscall(SYS_setresgid, group, group, group) != 0) ||
      (user != kNoId && ::syscall(SYS_setresuid, user, user, user) != 0))
    return errno_error("restart: enter a user namespace", fmt::format("as user {}", user));
  return {};
}

Result<void> in_users(int users, const schema::Namespace& record, const std::function<Result<void>()>& act) {
  return kernel::run_beside([&]() -> Result<void> {
    if (users >= 0) STASIS_CHECK(enter_users(users, record));
    return act();
  });
}

schema::FileSystem as_seen_inside(const schema::FileSystem& system, const schema::Namespace& users) {
  schema::FileSystem inside = system;
  inside.set_options(options_inside(system.options(), users));
  const uint32_t first_user = first_id(users.users()), first_group = first_id(users.groups());
  for (auto& file : *inside.mutable_files()) {
    const uint32_t user = id_inside(users.users(), file.user());
    const uint32_t group = id_inside(users.groups(), file.group());
    file.set_user(user != kNoId ? user : first_user);
    file.set_group(group != kNoId ? group : first_group);
  }
  return inside;
}

// 1. Its creator has all rights in it, so it must be the one who had been. 2. Maps are written from the
// namespace above.
Result<Fd> make_users(const schema::Namespace& wanted, int above, const schema::Namespace* above_record) {
  Fd made;
  const bool nested = above_record != nullptr;
  STASIS_TRY(const std::string users, map_of(wanted.users(), nested ? &above_record->users() : nullptr));
  STASIS_TRY(const std::string groups, map_of(wanted.groups(), nested ? &above_record->groups() : nullptr));
  auto make_it = [&]() -> Result<void> {
    if (::unshare(CLONE_NEWUSER) != 0) return errno_error(kStep, {}, errno, "see user.max_user_namespaces");
    ::prctl(PR_SET_DUMPABLE, 1);
    return {};
  };
  Fd* result = &made;
  // The one between is in the namespace above.
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return errno_error(kStep, {});
  Fd number_from(ends[0]), number_to(ends[1]);
  auto done = beside(
      [&]() -> Result<void> {
        if (wanted.creator() != ::geteuid()) {
          ::prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP);
          if (::syscall(SYS_setresuid, wanted.creator(), wanted.creator(), wanted.creator()) != 0)
            return errno_error(kStep, fmt::format("of user {}", wanted.creator()), errno, "restart as root");
        }
        // The group of whoever makes one has to have a number above it.
        if (nested && above_record->groups_size() > 0)
          ::syscall(SYS_setresgid, -1, above_record->groups(0).outside(), -1);
        STASIS_CHECK(enter(above));
        // The descriptor goes on to the builder when the one in between is looked at.
        return beside(make_it, [&](HostTid child) -> Result<void> {
          if (wanted.setgroups_denied() && !(nested && above_record->setgroups_denied()))
            STASIS_CHECK(write_map(child, "setgroups", "deny"));
          STASIS_CHECK(write_map(child, "uid_map", users));
          STASIS_CHECK(write_map(child, "gid_map", groups));
          STASIS_TRY(Fd place, kernel::open_proc(child, "ns/user", O_RDONLY));
          const int number = place.release();
          return write_all(number_to.get(), {reinterpret_cast<const char*>(&number), sizeof number});
        });
      },
      [&](HostTid between) -> Result<void> {
        int number = -1;
        if (::read(number_from.get(), &number, sizeof number) != sizeof number)
          return Error{kStep, {}, "a helper said nothing", "try again"};
        Fd handle(static_cast<int>(::syscall(SYS_pidfd_open, between.value, 0)));
        result->reset(static_cast<int>(::syscall(SYS_pidfd_getfd, handle.get(), number, 0)));
        return *result ? Result<void>() : errno_error(kStep, {});
      });
  if (!done.ok()) return std::move(done).error();
  return made;
}

}  // namespace stasis::restore
