// --files and --files-limit of launch and checkpoint.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "checkpoint/file_capture.h"
#include "stasis/result.h"

namespace stasis::cli {

struct FileOptions {
  std::string mode;
  std::string limit;

  void add_to(CLI::App& verb, const std::string& otherwise);
  std::optional<checkpoint::FileMode> chosen_mode() const { return checkpoint::parse_file_mode(mode); }
  Result<std::optional<uint64_t>> chosen_limit() const;
};

}  // namespace stasis::cli
