#include "stasis/parts.h"

#include <fmt/format.h>
#include <unistd.h>

namespace stasis::plugin {

std::string find_part(std::string_view plugin, const std::string& file) {
  char path[4096];
  const ssize_t length = ::readlink("/proc/self/exe", path, sizeof path - 1);
  if (length <= 0) return {};
  const std::string command(path, static_cast<size_t>(length));
  const std::string directory = command.substr(0, command.rfind('/'));
  for (const std::string& place :
       {fmt::format("/{}/", plugin), std::string("/../lib/x86_64-linux-gnu/stasis/"),
        std::string("/../lib/stasis/")}) {
    std::string part = fmt::format("{}{}{}", directory, place, file);
    if (::access(part.c_str(), R_OK) == 0) return part;
  }
  return {};
}

}  // namespace stasis::plugin
