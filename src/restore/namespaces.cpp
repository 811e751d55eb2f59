#include "restore/namespaces.h"

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <utility>

#include "kernel/proc.h"
#include "restore/mounts.h"
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

Result<void> raise_loopback() {
  Fd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request = {};
  std::strcpy(request.ifr_name, "lo");
  if (!fd || ::ioctl(fd.get(), SIOCGIFFLAGS, &request) != 0) return errno_error(kStep, "loopback");
  request.ifr_flags |= IFF_UP;
  if (::ioctl(fd.get(), SIOCSIFFLAGS, &request) != 0) return errno_error(kStep, "loopback");
  return {};
}

Result<void> furnish(const schema::Namespace& wanted, const image::Image& image) {
  switch (wanted.type()) {
    case CLONE_NEWUTS:
      if (::sethostname(wanted.host_name().data(), wanted.host_name().size()) != 0 ||
          ::setdomainname(wanted.domain_name().data(), wanted.domain_name().size()) != 0)
        return errno_error(kStep, wanted.host_name());
      return {};
    case CLONE_NEWNET:
      return wanted.loopback_up() ? raise_loopback() : Result<void>();
    case CLONE_NEWNS:
      return mount_again(wanted, image);
    default:
      return {};
  }
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

Result<void> Namespaces::make(const image::Image& image, int base) {
  const auto& manifest = image.manifest();
  STASIS_CHECK(mount_again(manifest.session_mounts(), image));
  if (manifest.namespaces_size() == 0) return {};
  STASIS_TRY(Fd network, open_own(CLONE_NEWNET));
  STASIS_TRY(network_, duplicate(network.get(), base));
  STASIS_TRY(Fd mounts, open_own(CLONE_NEWNS));
  STASIS_TRY(mounts_, duplicate(mounts.get(), base));
  STASIS_TRY(Fd directory, open_file(".", O_PATH | O_DIRECTORY));
  STASIS_TRY(directory_, duplicate(directory.get(), base));
  for (const auto& wanted : manifest.namespaces()) {
    // Of pids: their first processes make them.
    if (wanted.type() != CLONE_NEWPID) STASIS_CHECK(make_one(wanted, image, base));
  }
  return {};
}

Result<void> Namespaces::make_one(const schema::Namespace& wanted, const image::Image& image, int base) {
  if (wanted.type() == CLONE_NEWUSER) {
    STASIS_TRY(Fd users, make_users(wanted, wanted.parent() != 0 ? descriptor(wanted.parent()) : -1,
                                    this->users(wanted.parent())));
    return keep(wanted, std::move(users), base);
  }
  if (wanted.type() == CLONE_NEWTIME) return make_time(wanted, base);
  if (wanted.owner() != 0) return make_owned(wanted, image, base);
  const int type = static_cast<int>(wanted.type());
  if (name_of(wanted.type()) == nullptr) return errno_error(kStep, fmt::format("type {:#x}", type), EINVAL);
  STASIS_TRY(Fd before, open_own(wanted.type()));
  if (::unshare(type) != 0) return errno_error(kStep, name_of(wanted.type()), errno, "restart as root");
  auto furnished = furnish(wanted, image);
  auto made = open_own(wanted.type());
  if (::setns(before.get(), type) != 0) return errno_error(kStep, name_of(wanted.type()));
  if (type == CLONE_NEWNS && ::fchdir(directory_.get()) != 0) return errno_error(kStep, ".");
  STASIS_CHECK(furnished);
  STASIS_TRY(Fd fd, std::move(made));
  return keep(wanted, std::move(fd), base);
}

Result<void> Namespaces::keep(const schema::Namespace& wanted, Fd fd, int base) {
  Made& entry = made_[wanted.id()];
  entry.type = wanted.type();
  entry.record = &wanted;
  STASIS_TRY(entry.fd, duplicate(fd.get(), base));
  return {};
}

// One that belongs to a user namespace is made by somebody in that.
Result<void> Namespaces::make_owned(const schema::Namespace& wanted, const image::Image& image, int base) {
  const char* name = name_of(wanted.type());
  if (name == nullptr) return errno_error(kStep, fmt::format("type {:#x}", wanted.type()), EINVAL);
  // Files are owned by ids as the namespace has them.
  schema::Namespace inside = wanted;
  const schema::Namespace* owner = users(wanted.owner());
  for (auto& mount : *inside.mutable_mounts()) {
    mount.set_data(options_inside(mount.data(), *owner));
    for (auto& file : *mount.mutable_files()) {
      const uint32_t user = id_inside(owner->users(), file.user());
      const uint32_t group = id_inside(owner->groups(), file.group());
      file.set_user(user != kNoId || owner->users().empty() ? user : owner->users(0).inside());
      file.set_group(group != kNoId || owner->groups().empty() ? group : owner->groups(0).inside());
    }
  }
  return in_users(
      descriptor(wanted.owner()),
      [&]() -> Result<void> {
        if (::unshare(static_cast<int>(wanted.type())) != 0) return errno_error(kStep, name);
        return furnish(inside, image);
      },
      [&](HostTid child) -> Result<void> {
        STASIS_TRY(Fd fd, kernel::open_proc(child, fmt::format("ns/{}", name), O_RDONLY));
        return keep(wanted, std::move(fd), base);
      });
}

// By somebody who stays outside: nobody may have entered it when its clocks are set.
Result<void> Namespaces::make_time(const schema::Namespace& wanted, int base) {
  STASIS_TRY(auto offsets, kernel::read_clock_offsets(HostTid{::getpid()}));
  offsets.monotonic_ns += wanted.monotonic_offset_ns();
  offsets.boottime_ns += wanted.boottime_offset_ns();
  return in_users(
      wanted.owner() != 0 ? descriptor(wanted.owner()) : -1,
      [&]() -> Result<void> {
        if (::unshare(CLONE_NEWTIME) != 0) return errno_error(kStep, "time");
        STASIS_TRY(Fd file, open_file("/proc/self/timens_offsets", O_WRONLY));
        return write_all(file.get(), kernel::clock_offsets_text(offsets));
      },
      [&](HostTid child) -> Result<void> {
        STASIS_TRY(Fd fd, kernel::open_proc(child, "ns/time_for_children", O_RDONLY));
        return keep(wanted, std::move(fd), base);
      });
}

const schema::Namespace* Namespaces::users(uint32_t id) const {
  auto found = made_.find(id);
  return found == made_.end() || found->second.type != CLONE_NEWUSER ? nullptr : found->second.record;
}

Result<void> Namespaces::complete(const schema::Manifest& manifest) {
  STASIS_CHECK(mount_later(manifest.session_mounts()));
  for (const auto& wanted : manifest.namespaces()) {
    if (wanted.type() != CLONE_NEWNS) continue;
    STASIS_TRY(Inside inside, Inside::enter(*this, {wanted.id()}));
    STASIS_CHECK(mount_later(wanted));
  }
  return {};
}

int Namespaces::descriptor(uint32_t id) const {
  auto found = made_.find(id);
  return found == made_.end() ? -1 : found->second.fd.get();
}

uint64_t Namespaces::type(uint32_t id) const {
  auto found = made_.find(id);
  return found == made_.end() ? 0 : found->second.type;
}

Result<void> Namespaces::go(const std::vector<uint32_t>& ids) {
  if (ids == now_) return {};
  struct {
    int flag, session;
  } const all[] = {{CLONE_NEWNET, network_.get()}, {CLONE_NEWNS, mounts_.get()}};
  for (const auto& one : all) {
    auto of_type = [&](const std::vector<uint32_t>& list) {
      auto found = std::find_if(list.begin(), list.end(),
                                [&](uint32_t id) { return type(id) == static_cast<uint64_t>(one.flag); });
      return found == list.end() ? one.session : descriptor(*found);
    };
    const int wanted = of_type(ids);
    if (wanted == of_type(now_)) continue;
    if (::setns(wanted, one.flag) != 0)
      return errno_error("restart: enter a namespace", name_of(static_cast<uint64_t>(one.flag)));
    // It leads to the root of the namespace.
    if (one.flag == CLONE_NEWNS && wanted == one.session && ::fchdir(directory_.get()) != 0)
      return errno_error("restart: enter a namespace", ".");
  }
  now_ = ids;
  return {};
}

Result<Namespaces::Inside> Namespaces::Inside::enter(Namespaces& all, const std::vector<uint32_t>& ids) {
  Inside inside;
  inside.before_ = all.now_;
  STASIS_CHECK(all.go(ids));
  inside.all_ = &all;
  return inside;
}

Namespaces::Inside::Inside(Inside&& other) noexcept
    : all_(std::exchange(other.all_, nullptr)), before_(std::move(other.before_)) {}

Namespaces::Inside::~Inside() {
  if (all_ != nullptr) (void)all_->go(before_).ok();
}

}  // namespace stasis::restore
