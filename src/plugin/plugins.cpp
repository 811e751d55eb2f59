#include "plugin/plugins.h"

#include <algorithm>
#include <array>

#include "resource/registry.h"

namespace stasis::gl {
const plugin::Plugin& gl_plugin();  // plugins/gl
}
namespace stasis::kvm {
const plugin::Plugin& kvm_plugin();  // plugins/kvm
}

namespace stasis::plugin {

std::span<const Plugin* const> plugins() {
  static const std::array<const Plugin*, 2> all = {&kvm::kvm_plugin(), &gl::gl_plugin()};
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

}  // namespace stasis::plugin
