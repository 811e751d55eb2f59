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

Result<uint64_t> parse_size(const std::string& text) {
  uint64_t number = 0;
  auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string unit(end, text.data() + text.size());
  if (unit.ends_with("iB")) unit.resize(unit.size() - 2);
  constexpr std::string_view kUnits = "KMGT";
  const size_t power = unit.size() == 1 ? kUnits.find(unit[0]) : std::string_view::npos;
  const unsigned shift = power == std::string_view::npos ? 0 : 10 * (static_cast<unsigned>(power) + 1);
  if (problem != std::errc() || (!unit.empty() && shift == 0) ||
      number > (std::numeric_limits<uint64_t>::max() >> shift))
    return Error{"read a size", text, "not a size",
                 "use a number of bytes, or one with K, M, G or T, such as 64M", ErrorCode::kUsage};
  return number << shift;
}

}  // namespace stasis::cli
