#include "cli/output.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <ctime>

#include "base/clock.h"

namespace stasis::cli {

int exit_code(ErrorCode code) {
  switch (code) {
    case ErrorCode::kUsage:
      return kExitUsage;
    case ErrorCode::kNotFound:
      return kExitNotFound;
    case ErrorCode::kRefused:
    case ErrorCode::kRefusedNow:
      return kExitRefused;
    case ErrorCode::kUnsupported:
      return kExitUnsupported;
    case ErrorCode::kBusy:
      return kExitBusy;
    case ErrorCode::kDamaged:
      return kExitDamaged;
    case ErrorCode::kDenied:
      return kExitDenied;
    case ErrorCode::kFailed:
    case ErrorCode::kTaskGone:
      return kExitFailed;
  }
  return kExitFailed;
}

int report(const Error& error) {
  // What the program printed must come first when both go to the same place.
  std::fflush(stdout);
  fmt::print(stderr, "stasis: {}\n", error.message());
  return exit_code(error.code);
}

int report(const Result<void>& result) { return result.ok() ? kExitOk : report(result.error()); }

std::string human_size(uint64_t bytes) {
  static constexpr std::array kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  for (value /= 1024; value >= 1023.95 && unit + 1 < kUnits.size(); ++unit) value /= 1024;
  return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string human_duration(int64_t ns) {
  const double seconds = static_cast<double>(ns) * 1e-9;
  if (seconds < 0) return "-";
  if (seconds < 1e-3) return fmt::format("{:.0f} us", seconds * 1e6);
  if (seconds < 1) return fmt::format("{:.1f} ms", seconds * 1e3);
  if (seconds < 120) return fmt::format("{:.1f} s", seconds);
  return fmt::format("{:.1f} min", seconds / 60);
}

std::string iso_time(int64_t realtime_ns) {
  if (realtime_ns == 0) return "";
  const time_t seconds = realtime_ns / 1'000'000'000;
  tm parts = {};
  gmtime_r(&seconds, &parts);
  std::array<char, 40> text = {};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text.data();
}

namespace {

// Terminal columns, taking every code point for one: right for all but East Asian wide characters.
size_t width(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

}  // namespace

void print_table(const std::vector<Column>& columns, const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (size_t i = 0; i < columns.size(); ++i) {
    size_t widest = width(columns[i].title);
    for (const auto& row : rows) {
      if (i < row.size()) widest = std::max(widest, width(row[i]));
    }
    widths.push_back(widest);
  }
  const auto print_row = [&](const auto& cell_of, size_t count) {
    std::string line;
    for (size_t i = 0; i < std::min(count, columns.size()); ++i) {
      const std::string& cell = cell_of(i);
      const std::string padding(widths[i] - width(cell), ' ');
      if (i > 0) line += "  ";
      line += columns[i].align == Align::kRight ? padding + cell : cell + padding;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    fmt::print("{}\n", line);
  };
  print_row([&](size_t i) -> const std::string& { return columns[i].title; }, columns.size());
  for (const auto& row : rows) print_row([&](size_t i) -> const std::string& { return row[i]; }, row.size());
}

namespace {

// Below a second nobody wants a bar, and between two drawings nobody sees a difference.
constexpr int64_t kBarAfterNs = 1'000'000'000;
constexpr int64_t kRedrawNs = 100'000'000;

}  // namespace

Progress::Progress(std::string label)
    : label_(std::move(label)), started_ns_(monotonic_ns()), terminal_(isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() { wipe(); }

void Progress::wipe() {
  if (drawn_ns_ != 0) fmt::print(stderr, "\r\x1b[K");
  drawn_ns_ = 0;
}

void Progress::update(uint64_t done, uint64_t total) {
  if (!terminal_ || total == 0) return;
  if (done >= total) {
    wipe();
    return;
  }
  const int64_t now = monotonic_ns();
  if (now - started_ns_ < kBarAfterNs || now - drawn_ns_ < kRedrawNs) return;
  drawn_ns_ = now;
  const double part = std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
  const double left_s = part > 0 ? static_cast<double>(now - started_ns_) * 1e-9 * (1 - part) / part : 0;

  winsize size = {};
  const size_t columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
  const std::string text =
      fmt::format("{} of {}, {:.0f} s left", human_size(done), human_size(total), left_s);
  const size_t taken = width(label_) + text.size() + 6;
  std::string bar;
  if (columns > taken + 8) {
    const size_t length = std::min<size_t>(columns - taken, 40);
    const auto filled = static_cast<size_t>(part * static_cast<double>(length));
    bar = fmt::format("[{}{}] ", std::string(filled, '#'), std::string(length - filled, '.'));
  }
  fmt::print(stderr, "\r\x1b[K{} {}{}", label_, bar, text);
}

}  // namespace stasis::cli
