// The plugins of this command.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "stasis/plugin.h"

namespace stasis::plugin {

// All of them. plugins.cpp is the one list.
std::span<const Plugin* const> plugins();
const Plugin* find(std::string_view name);

// Makes the kinds of all plugins known to the registry. Once, before anything else.
void install();

// A part of a plugin that is a file, by its name: beside a command that was built (in a directory with the
// plugin's name), or where the one that is installed has it. Empty: it is in neither.
std::string find_part(std::string_view plugin, const std::string& file);

}  // namespace stasis::plugin
