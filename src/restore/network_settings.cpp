#include "restore/network_settings.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/proc.h"
#include "stasis/fd.h"

namespace stasis::restore {
namespace {

constexpr const char* kStep = "restart: make a network";

// Some are for all interfaces at once, which each may have changed afterwards.
int order_of(const std::string& name) {
  if (name == "ipv4/ip_forward") return 0;
  if (name.find("/all/") != std::string::npos) return 1;
  if (name.find("/default/") != std::string::npos) return 2;
  return 3;
}

bool is_trial(std::string_view name) {
  return name.starts_with("ipv6/conf/") && name.ends_with("/accept_dad");
}

// That one is set by netlink, when all addresses are there: a write here would make one.
bool is_address_mode(std::string_view name) {
  return name.starts_with("ipv6/conf/") && name.ends_with("/addr_gen_mode");
}

Result<void> apply(int directory, const std::string& name, std::string_view value) {
  Fd file(::openat(directory, name.c_str(), O_RDWR | O_CLOEXEC));
  // Another kernel may not have it, or not let us change it: then it is what it is for all.
  if (!file) return {};
  std::array<char, 4096> now;
  const ssize_t count = ::pread(file.get(), now.data(), now.size(), 0);
  if (count >= 0 && std::string_view(now.data(), static_cast<size_t>(count)) == value) return {};
  if (::pwrite(file.get(), value.data(), value.size(), 0) == static_cast<ssize_t>(value.size())) return {};
  return errno_error(kStep, "/proc/sys/net/" + name);
}

}  // namespace

Result<void> apply_network_settings(const schema::Network& wanted, SettingsStage stage) {
  std::vector<const schema::NetworkSetting*> settings;
  for (const auto& setting : wanted.settings()) settings.push_back(&setting);
  std::stable_sort(settings.begin(), settings.end(),
                   [](const auto* a, const auto* b) { return order_of(a->name()) < order_of(b->name()); });
  STASIS_TRY(Fd top, open_file(kernel::host_proc(), "sys/net", O_RDONLY | O_DIRECTORY));
  for (const auto* setting : settings) {
    const std::string& name = setting->name();
    const bool is_last = stage == SettingsStage::kLast;
    if (is_address_mode(name) && name != "ipv6/conf/default/addr_gen_mode") continue;
    STASIS_CHECK(
        apply(top.get(), name, !is_last && is_trial(name) ? "0\n" : std::string_view(setting->value())));
  }
  return {};
}

}  // namespace stasis::restore
