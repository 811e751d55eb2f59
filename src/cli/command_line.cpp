#include "cli/command_line.h"

#include <algorithm>
#include <charconv>
#include <limits>

namespace stasis::cli {
namespace {

std::vector<std::string>& command() {
  static std::vector<std::string> command;
  return command;
}

}  // namespace

std::vector<std::string> split_command(int argc, char** argv) {
  std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  bool takes_command = !arguments.empty() && arguments.front() == "launch";
  auto dashes = std::find(arguments.begin(), arguments.end(), "--");
  if (takes_command && dashes != arguments.end()) {
    command().assign(dashes + 1, arguments.end());
    arguments.erase(dashes, arguments.end());
  }
  std::reverse(arguments.begin(), arguments.end());
  return arguments;
}

const std::vector<std::string>& command_after_dashes() { return command(); }

Result<int64_t> parse_duration(const std::string& text) {
  int64_t number = 0;
  auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string unit(end, text.data() + text.size());
  int64_t seconds = unit.empty() || unit == "s" ? 1
                    : unit == "m"               ? 60
                    : unit == "h"               ? 3600
                    : unit == "d"               ? 86400
                                                : 0;
  constexpr int64_t kSecond = 1'000'000'000;
  if (problem != std::errc() || seconds == 0 || number <= 0 ||
      number > std::numeric_limits<int64_t>::max() / kSecond / seconds)
    return Error{"read a duration", text, "not a duration", "use a number with s, m, h or d, such as 10m",
                 ErrorCode::kUsage};
  return number * seconds * kSecond;
}

}  // namespace stasis::cli
