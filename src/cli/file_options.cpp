#include "cli/file_options.h"

#include "cli/command_line.h"

namespace stasis::cli {

void FileOptions::add_to(CLI::App& verb, const std::string& otherwise) {
  verb.add_option(
          "--files", mode,
          "What is saved of files that the program has open for writing. auto: clones of them where the "
          "store is on the same Btrfs or XFS, else copies up to --files-limit; reflink: clones or nothing; "
          "copy: also large copies, during which the program stands still; none. Default: " +
              otherwise)
      ->check(CLI::IsMember({"auto", "reflink", "copy", "none"}))
      ->type_name("HOW");
  verb.add_option("--files-limit", limit,
                  "How much --files=auto may copy: 64M, 2G. More is refused, unless it was only appended to. "
                  "Default: " +
                      (otherwise == "auto" ? std::string("64M") : otherwise))
      ->type_name("SIZE");
}

Result<std::optional<uint64_t>> FileOptions::chosen_limit() const {
  if (limit.empty()) return std::optional<uint64_t>();
  STASIS_TRY(uint64_t bytes, parse_size(limit));
  return std::optional(bytes);
}

}  // namespace stasis::cli
