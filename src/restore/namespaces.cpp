#include "restore/namespaces.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "kernel/beside.h"
#include "kernel/ipc_settings.h"
#include "kernel/network.h"
#include "kernel/proc.h"
#include "restore/control_groups.h"
#include "restore/network.h"
#include "restore/network_filters.h"
#include "restore/user_namespaces.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

namespace stasis::restore {
namespace {

constexpr const char* kStep = "restart: make a namespace";

const char* name_of(uint64_t type) {
  switch (type) {
    case CLONE_NEWUTS:
      return "uts";
    case CLONE_NEWIPC:
      return "ipc";
    case CLONE_NEWNET:
      return "net";
    case CLONE_NEWNS:
      return "mnt";
    case CLONE_NEWCGROUP:
      return "cgroup";
    case CLONE_NEWTIME:
      return "time";
    default:
      return nullptr;
  }
}

Result<Fd> open_own(uint64_t type) {
  return open_file(fmt::format("/proc/self/ns/{}", name_of(type)), O_RDONLY);
}

Result<void> furnish(const schema::Namespace& wanted, Mounts& mounts) {
  switch (wanted.type()) {
    case CLONE_NEWUTS:
      if (::sethostname(wanted.host_name().data(), wanted.host_name().size()) != 0 ||
          ::setdomainname(wanted.domain_name().data(), wanted.domain_name().size()) != 0)
        return errno_error(kStep, wanted.host_name());
      return {};
    case CLONE_NEWNET:
      return wanted.loopback_up() && !wanted.has_network() ? kernel::raise_loopback() : Result<void>();
    case CLONE_NEWIPC:
      return kernel::apply_ipc_settings(wanted.ipc_settings(), kernel::IpcStage::kExact);
    case CLONE_NEWNS:
      return mounts.make_own(wanted);
    default:
      return {};
  }
}

}  // namespace

Result<void> Namespaces::make(const image::Image& image, int base, std::map<std::string, Fd>& held) {
  const auto& manifest = image.manifest();
  STASIS_CHECK(mounts_of_image_.begin(image, base));
  STASIS_CHECK(mounts_of_image_.make_session());
  if (manifest.namespaces_size() == 0 && mounts_of_image_.empty() && !manifest.has_session_network())
    return {};
  STASIS_TRY(Fd network, open_own(CLONE_NEWNET));
  STASIS_TRY(network_, duplicate(network.get(), base));
  STASIS_TRY(Fd mounts, open_own(CLONE_NEWNS));
  STASIS_TRY(mounts_, duplicate(mounts.get(), base));
  STASIS_TRY(Fd directory, open_file(".", O_PATH | O_DIRECTORY));
  STASIS_TRY(directory_, duplicate(directory.get(), base));
  // What is mounted may show something of the others.
  for (const bool of_mounts : {false, true}) {
    for (const auto& wanted : manifest.namespaces()) {
      // Of pids: their first processes make them.
      if (wanted.type() != CLONE_NEWPID && (wanted.type() == CLONE_NEWNS) == of_mounts)
        STASIS_CHECK(make_one(wanted, base));
    }
  }
  // Now that all of them are there: interfaces lead from one to another.
  std::vector<NetworkToMake> networks;
  if (manifest.has_session_network()) networks.push_back({0, network_.get(), &manifest.session_network()});
  for (const auto& wanted : manifest.namespaces()) {
    if (wanted.has_network()) networks.push_back({wanted.id(), descriptor(wanted.id()), &wanted.network()});
  }
  if (!networks.empty()) {
    auto done = kernel::run_beside([&] { return make_networks(networks, held); });
    STASIS_CHECK(done);
  }
  return mounts_of_image_.make_rest();
}

// One that belongs to a user namespace is made by somebody in that. We are in it afterwards.
Result<Fd> Namespaces::unshare(const schema::Namespace& wanted) {
  const int type = static_cast<int>(wanted.type());
  const auto leave = [type] {
    return ::unshare(type) == 0
               ? Result<void>()
               : errno_error(kStep, name_of(static_cast<uint64_t>(type)), errno, "restart as root");
  };
  if (wanted.owner() == 0) {
    STASIS_CHECK(leave());
    // In what is mounted there may be no /proc.
    return open_own(wanted.type());
  }
  Fd made;
  auto done = in_users(descriptor(wanted.owner()), *users(wanted.owner()), [&]() -> Result<void> {
    STASIS_CHECK(leave());
    STASIS_TRY(made, open_own(wanted.type()));
    return {};
  });
  STASIS_CHECK(done);
  if (::setns(made.get(), type) != 0) return errno_error(kStep, name_of(wanted.type()));
  return made;
}

Result<void> Namespaces::make_one(const schema::Namespace& wanted, int base) {
  if (wanted.type() == CLONE_NEWUSER) {
    STASIS_TRY(Fd users, make_users(wanted, wanted.parent() != 0 ? descriptor(wanted.parent()) : -1,
                                    this->users(wanted.parent())));
    return keep(wanted, std::move(users), base);
  }
  if (wanted.type() == CLONE_NEWTIME) return make_time(wanted, base);
  const int type = static_cast<int>(wanted.type());
  if (name_of(wanted.type()) == nullptr) return errno_error(kStep, fmt::format("type {:#x}", type), EINVAL);
  Fd made;
  const auto make_it = [&]() -> Result<void> {
    // The groups of who makes one are its roots.
    STASIS_CHECK(join_control_groups(wanted.control_group_roots()));
    STASIS_TRY(made, unshare(wanted));
    return furnish(wanted, mounts_of_image_);
  };
  // An ordinary user cannot return to those of the host that the session has.
  if (type != CLONE_NEWNS) {
    auto done = kernel::run_beside(make_it);
    STASIS_CHECK(done);
    return keep(wanted, std::move(made), base);
  }
  auto done = make_it();
  if (::setns(mounts_.get(), type) != 0) return errno_error(kStep, name_of(wanted.type()));
  if (::fchdir(directory_.get()) != 0) return errno_error(kStep, ".");
  STASIS_CHECK(done);
  return keep(wanted, std::move(made), base);
}

Result<void> Namespaces::keep(const schema::Namespace& wanted, Fd fd, int base) {
  Made& entry = made_[wanted.id()];
  entry.type = wanted.type();
  entry.record = &wanted;
  STASIS_TRY(entry.fd, duplicate(fd.get(), base));
  if (wanted.type() != CLONE_NEWNS) mounts_of_image_.add_namespace(wanted, entry.fd.get());
  return {};
}

Result<void> Namespaces::complete() { return mounts_of_image_.complete(); }

Result<void> Namespaces::make_filters(const schema::Manifest& manifest) {
  if (manifest.has_session_network()) STASIS_CHECK(make_network_filters(manifest.session_network()));
  for (const auto& wanted : manifest.namespaces()) {
    if (wanted.network().filters_size() == 0) continue;
    STASIS_CHECK(within({{wanted.id()}, 0}, [&] { return make_network_filters(wanted.network()); }));
  }
  return {};
}

Result<void> Namespaces::complete_inner(const Mounts::MountProcesses& mount) {
  return mounts_of_image_.complete_inner(mount);
}

// By somebody who stays outside: nobody may have entered it when its clocks are set.
Result<void> Namespaces::make_time(const schema::Namespace& wanted, int base) {
  kernel::ClockOffsets offsets = clocks_;
  offsets.monotonic_ns += wanted.monotonic_offset_ns();
  offsets.boottime_ns += wanted.boottime_offset_ns();
  Fd made;
  const schema::Namespace* owner = users(wanted.owner());
  auto done = in_users(owner != nullptr ? descriptor(wanted.owner()) : -1, owner != nullptr ? *owner : wanted,
                       [&]() -> Result<void> {
                         if (::unshare(CLONE_NEWTIME) != 0) return errno_error(kStep, "time");
                         STASIS_TRY(Fd file, open_file("/proc/self/timens_offsets", O_WRONLY));
                         STASIS_CHECK(write_all(file.get(), kernel::clock_offsets_text(offsets)));
                         STASIS_TRY(made, open_file("/proc/self/ns/time_for_children", O_RDONLY));
                         return {};
                       });
  STASIS_CHECK(done);
  return keep(wanted, std::move(made), base);
}

const schema::Namespace* Namespaces::users(uint32_t id) const {
  auto found = made_.find(id);
  return found == made_.end() || found->second.type != CLONE_NEWUSER ? nullptr : found->second.record;
}

int Namespaces::descriptor(uint32_t id) const {
  auto found = made_.find(id);
  return found == made_.end() ? -1 : found->second.fd.get();
}

uint64_t Namespaces::type(uint32_t id) const {
  auto found = made_.find(id);
  return found == made_.end() ? 0 : found->second.type;
}

Result<void> Namespaces::go(const Where& where) {
  if (where == now_) return {};
  constexpr const char* kEnter = "restart: enter a namespace";
  struct {
    int flag, session;
  } const all[] = {{CLONE_NEWNET, network_.get()}, {CLONE_NEWNS, mounts_.get()}};
  for (const auto& one : all) {
    auto of_type = [&](const std::vector<uint32_t>& list) {
      auto found = std::find_if(list.begin(), list.end(),
                                [&](uint32_t id) { return type(id) == static_cast<uint64_t>(one.flag); });
      return found == list.end() ? one.session : descriptor(*found);
    };
    const int wanted = of_type(where.ids);
    // It leads to the root of the namespace, also whoever has another root directory.
    const bool again = one.flag == CLONE_NEWNS && now_.mount != 0;
    if (wanted == of_type(now_.ids) && !again) continue;
    if (::setns(wanted, one.flag) != 0) return errno_error(kEnter, name_of(static_cast<uint64_t>(one.flag)));
    if (one.flag == CLONE_NEWNS && wanted == one.session && ::fchdir(directory_.get()) != 0)
      return errno_error(kEnter, ".");
  }
  now_ = {where.ids, 0, false};
  const bool of_program =
      where.mount != 0 || std::any_of(where.ids.begin(), where.ids.end(),
                                      [this](uint32_t id) { return type(id) == CLONE_NEWNS; });
  kernel::set_root_of_program(of_program);
  const int root =
      where.beneath ? mounts_of_image_.point_of(where.mount) : mounts_of_image_.root_of(where.mount);
  if (where.mount != 0 && (::fchdir(root) != 0 || ::chroot(".") != 0))
    return errno_error(kEnter, fmt::format("mount {}", where.mount));
  if (of_program && ::fchdir(kernel::host_proc()) != 0) return errno_error(kEnter, "/proc");
  now_ = where;
  return {};
}

// Whether it is in a network from which there is no way back to where we are: to that of the host, for an
// ordinary user.
bool Namespaces::leaves_for_good(const Where& where) {
  const auto network = [this](const Where& one) -> uint32_t {
    auto found = std::find_if(one.ids.begin(), one.ids.end(),
                              [this](uint32_t id) { return type(id) == CLONE_NEWNET; });
    return found == one.ids.end() ? 0 : *found;
  };
  if (network(where) == network(now_) || network(now_) != 0) return false;
  if (!may_return_) may_return_ = ::setns(network_.get(), CLONE_NEWNET) == 0;
  return !*may_return_;
}

Result<void> Namespaces::within(const Where& where, const std::function<Result<void>()>& act) {
  if (!leaves_for_good(where)) {
    STASIS_TRY(auto inside, Inside::enter(*this, where));
    return act();
  }
  const Where before = now_;
  auto done = kernel::run_beside([&]() -> Result<void> {
    STASIS_CHECK(go(where));
    return act();
  });
  // It shares our memory, so that this is about us again.
  note_place(before);
  return done;
}

void Namespaces::note_place(const Where& where) {
  now_ = where;
  kernel::set_root_of_program(where.mount != 0 ||
                              std::any_of(where.ids.begin(), where.ids.end(),
                                          [this](uint32_t id) { return type(id) == CLONE_NEWNS; }));
}

Result<Namespaces::Inside> Namespaces::Inside::enter(Namespaces& all, const Where& where) {
  Inside inside;
  inside.before_ = all.now_;
  inside.all_ = &all;
  STASIS_CHECK(all.go(where));
  return inside;
}

Namespaces::Inside::Inside(Inside&& other) noexcept
    : all_(std::exchange(other.all_, nullptr)), before_(std::move(other.before_)) {}

Namespaces::Inside::~Inside() {
  if (all_ != nullptr) (void)all_->go(before_).ok();
}

}  // namespace stasis::restore
