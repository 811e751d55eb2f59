// Errors are values with a story: which step failed, on which object, why, and what the user can do.
#pragma once

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace stasis {

// The classes of failure that scripts can tell apart; the command's exit codes are derived from them.
enum class ErrorCode {
  kFailed,       // something went wrong that fits no other class
  kUsage,        // the arguments do not make sense
  kNotFound,     // no such session, checkpoint or file
  kRefused,      // this program or image cannot be handled; nothing was changed
  kRefusedNow,   // the same, for something that passes by itself: it may be tried again in a moment
  kUnsupported,  // this host lacks what is needed
  kBusy,         // somebody else is working on the same session
  kDamaged,      // an image is truncated, altered or not an image
  kDenied,       // permission
  kTaskGone,     // a task of the program ended while we looked
};

struct Error {
  std::string step;    // "restore descriptor 7 of task 42"
  std::string object;  // "/data/x"
  std::string cause;   // "No such file or directory"
  std::string hint;    // what to do about it; may be empty
  ErrorCode code = ErrorCode::kFailed;

  // One line: "step: object: cause; hint".
  std::string message() const;

  // Adds what we were doing when a lower layer failed; the innermost step stays readable in the cause.
  Error within(std::string outer_step) &&;
};

// An Error for the current errno.
Error errno_error(std::string step, std::string object, int error = errno, std::string hint = {});

// For another process of ours. A part that is longer than a few thousand bytes is cut.
std::string packed(const Error& error);
Error unpacked(std::string_view text);

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value)
      : state_(std::in_place_index<0>, std::move(value)) {}  // NOLINT(google-explicit-constructor)
  Result(Error error)
      : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT(google-explicit-constructor)

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }
  T& value() & { return std::get<0>(state_); }
  const T& value() const& { return std::get<0>(state_); }
  T&& value() && { return std::get<0>(std::move(state_)); }
  T* operator->() { return &std::get<0>(state_); }
  T& operator*() { return std::get<0>(state_); }
  const Error& error() const& { return std::get<1>(state_); }
  Error&& error() && { return std::get<1>(std::move(state_)); }

 private:
  std::variant<T, Error> state_;
};

struct Unit {};

template <>
class [[nodiscard]] Result<void> : public Result<Unit> {
 public:
  Result() : Result<Unit>(Unit{}) {}
  Result(Error error) : Result<Unit>(std::move(error)) {}  // NOLINT(google-explicit-constructor)
};

}  // namespace stasis

#define STASIS_CONCAT_INNER(a, b) a##b
#define STASIS_CONCAT(a, b) STASIS_CONCAT_INNER(a, b)

// STASIS_TRY(auto fd, open_it()): declares `fd` with the value, or returns the error from the current
// function. A declaration cannot be put in parentheses.
// NOLINTBEGIN(bugprone-macro-parentheses)
#define STASIS_TRY(declaration, expression)                                                               \
  auto STASIS_CONCAT(result_, __LINE__) = (expression);                                                   \
  if (!STASIS_CONCAT(result_, __LINE__).ok()) return std::move(STASIS_CONCAT(result_, __LINE__)).error(); \
  declaration = std::move(STASIS_CONCAT(result_, __LINE__)).value()
// NOLINTEND(bugprone-macro-parentheses)

// STASIS_CHECK(do_it()): the same for Result<void>.
#define STASIS_CHECK(expression)                                                                      \
  do {                                                                                                \
    if (auto check_result = (expression); !check_result.ok()) return std::move(check_result).error(); \
  } while (false)
