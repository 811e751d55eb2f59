// The plugins of this command.
#pragma once

#include <span>
#include <string_view>

#include "stasis/plugin.h"

namespace stasis::plugin {

// All of them. plugins.cpp is the one list.
std::span<const Plugin* const> plugins();
const Plugin* find(std::string_view name);

// Makes the kinds of all plugins known to the registry. Once, before anything else.
void install();

}  // namespace stasis::plugin
