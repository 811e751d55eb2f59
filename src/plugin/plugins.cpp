#include "plugin/plugins.h"

#include <unistd.h>

#include <algorithm>
#include <array>

#include "resource/registry.h"

namespace stasis::kvm {
const plugin::Plugin& kvm_plugin();  // plugins/kvm
}

namespace stasis::plugin {

std::span<const Plugin* const> plugins() {
  static const std::array<const Plugin*, 1> all = {&kvm::kvm_plugin()};
  return all;
}

const Plugin* find(std::string_view name) {
  auto found = std::find_if(plugins().begin(), plugins().end(),
                            [&](const Plugin* plugin) { return plugin->name() == name; });
  return found == plugins().end() ? nullptr : *found;
}

void install() {
  for (const Plugin* plugin : plugins()) resource::add_kinds(plugin->kinds());
}

std::string find_part(std::string_view plugin, const std::string& file) {
  char path[4096];
  const ssize_t length = ::readlink("/proc/self/exe", path, sizeof path - 1);
  if (length <= 0) return {};
  const std::string command(path, static_cast<size_t>(length));
  const std::string directory = command.substr(0, command.rfind('/'));
  for (const std::string& place :
       {fmt::format("/{}/", plugin), std::string("/../lib/x86_64-linux-gnu/stasis/"),
        std::string("/../lib/stasis/")}) {
    if (::access((directory + place + file).c_str(), R_OK) == 0) return directory + place + file;
  }
  return {};
}

}  // namespace stasis::plugin
