// Parsing that several verbs share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "stasis/result.h"

namespace stasis::cli {

// The arguments for CLI11 (in its order: last first), without "--" and what follows it. That is a command of
// somebody else, in which nothing is ours to interpret; launch gets it from command_after_dashes().
std::vector<std::string> split_command(int argc, char** argv);
const std::vector<std::string>& command_after_dashes();

// "90s", "10m", "2h", "1d"; a number alone is seconds.
Result<int64_t> parse_duration(const std::string& text);

// "64M", "2G", "1000000": bytes, with K, M, G or T for powers of 1024.
Result<uint64_t> parse_size(const std::string& text);

}  // namespace stasis::cli
