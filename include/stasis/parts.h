// Parts of a plugin that are files of their own: libraries for programs, helpers.
#pragma once

#include <string>
#include <string_view>

namespace stasis::plugin {

// Where a part is, by the plugin's name and its own: beside a command that was built (in a directory with the
// plugin's name), or where the one that is installed has it. Empty: it is in neither.
std::string find_part(std::string_view plugin, const std::string& file);

}  // namespace stasis::plugin
