// What all verbs say in the same way: exit codes, errors, sizes, times, tables, progress.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "stasis/result.h"

namespace stasis::cli {

// The exit codes of the command, documented in `stasis --help`. A program in the foreground gives its own.
enum ExitCode : int {
  kExitOk = 0,
  kExitFailed = 1,
  kExitUsage = 2,
  kExitNotFound = 3,
  kExitRefused = 4,
  kExitUnsupported = 5,
  kExitBusy = 6,
  kExitDamaged = 7,
  kExitDenied = 8,
};

int exit_code(ErrorCode code);

// Prints "stasis: message" to stderr and returns the exit code.
int report(const Error& error);
int report(const Result<void>& result);  // kExitOk when it is none

std::string human_size(uint64_t bytes);     // "1.5 GiB"
std::string human_duration(int64_t ns);     // "3.6 ms"
std::string iso_time(int64_t realtime_ns);  // "2024-05-01T12:00:00Z"

// Columns as wide as their widest cell; numbers (Align::kRight) to the right.
enum class Align { kLeft, kRight };
struct Column {
  std::string title;
  Align align = Align::kLeft;
};
void print_table(const std::vector<Column>& columns, const std::vector<std::vector<std::string>>& rows);

// A bar on stderr when that is a terminal and the work has taken over a second; nothing otherwise.
class Progress {
 public:
  explicit Progress(std::string label);
  ~Progress();  // wipes the bar
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void update(uint64_t done, uint64_t total);  // all of it: the bar goes

 private:
  void wipe();

  std::string label_;
  int64_t started_ns_;
  int64_t drawn_ns_ = 0;
  bool terminal_;
};

}  // namespace stasis::cli
