#include "restore/namespaces.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "kernel/network.h"
#include "kernel/proc.h"
#include "restore/network.h"

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
      if ((wanted.type() == CLONE_NEWNS) == of_mounts) STASIS_CHECK(make_one(wanted, base));
    }
  }
  // Now that all of them are there: interfaces lead from one to another.
  std::vector<NetworkToMake> networks;
  if (manifest.has_session_network()) networks.push_back({0, network_.get(), &manifest.session_network()});
  for (const auto& wanted : manifest.namespaces()) {
    if (wanted.has_network()) networks.push_back({wanted.id(), descriptor(wanted.id()), &wanted.network()});
  }
  STASIS_CHECK(make_networks(networks, held));
  STASIS_CHECK(go_home());
  return mounts_of_image_.make_rest();
}

Result<void> Namespaces::go_home() {
  if (::setns(network_.get(), CLONE_NEWNET) != 0) return errno_error(kStep, "the network of the session");
  return {};
}

Result<void> Namespaces::make_one(const schema::Namespace& wanted, int base) {
  const int type = static_cast<int>(wanted.type());
  if (name_of(wanted.type()) == nullptr) return errno_error(kStep, fmt::format("type {:#x}", type), EINVAL);
  STASIS_TRY(Fd before, open_own(wanted.type()));
  if (::unshare(type) != 0) return errno_error(kStep, name_of(wanted.type()), errno, "restart as root");
  // In what is mounted there may be no /proc.
  auto made = open_own(wanted.type());
  auto furnished = furnish(wanted, mounts_of_image_);
  if (::setns(before.get(), type) != 0) return errno_error(kStep, name_of(wanted.type()));
  if (type == CLONE_NEWNS && ::fchdir(directory_.get()) != 0) return errno_error(kStep, ".");
  STASIS_CHECK(furnished);
  STASIS_TRY(Fd fd, std::move(made));
  Made& entry = made_[wanted.id()];
  entry.type = wanted.type();
  STASIS_TRY(entry.fd, duplicate(fd.get(), base));
  if (type != CLONE_NEWNS) mounts_of_image_.add_namespace(wanted.id(), wanted.type(), entry.fd.get());
  return {};
}

Result<void> Namespaces::complete() { return mounts_of_image_.complete(); }

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
  now_ = {where.ids, 0};
  const bool of_program =
      where.mount != 0 || std::any_of(where.ids.begin(), where.ids.end(),
                                      [this](uint32_t id) { return type(id) == CLONE_NEWNS; });
  kernel::set_root_of_program(of_program);
  if (where.mount != 0 && (::fchdir(mounts_of_image_.root_of(where.mount)) != 0 || ::chroot(".") != 0))
    return errno_error(kEnter, fmt::format("mount {}", where.mount));
  if (of_program && ::fchdir(kernel::host_proc()) != 0) return errno_error(kEnter, "/proc");
  now_ = where;
  return {};
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
