#include "stasis/result.h"

namespace stasis {

std::string Error::message() const {
  std::string text = step;
  for (const std::string* part : {&object, &cause}) {
    if (part->empty()) continue;
    if (!text.empty()) text += ": ";
    text += *part;
  }
  if (!hint.empty()) text += "; " + hint;
  return text;
}

Error Error::within(std::string outer_step) && {
  if (!step.empty()) {
    cause =
        object.empty() ? fmt::format("{}: {}", step, cause) : fmt::format("{}: {}: {}", step, object, cause);
    object.clear();
  }
  step = std::move(outer_step);
  return std::move(*this);
}

namespace {
ErrorCode classify(int error) {
  switch (error) {
    case ENOENT:
      return ErrorCode::kNotFound;
    case EPERM:
    case EACCES:
      return ErrorCode::kDenied;
    case ESRCH:
      return ErrorCode::kTaskGone;
    default:
      return ErrorCode::kFailed;
  }
}
}  // namespace

Error errno_error(std::string step, std::string object, int error, std::string hint) {
  if (error == EMFILE && hint.empty())
    hint =
        "stasis needs as many descriptors as the program, a restart about twice as many: raise the hard "
        "limit "
        "(ulimit -Hn)";
  return Error{std::move(step), std::move(object), std::strerror(error), std::move(hint), classify(error)};
}

std::string packed(const Error& error) {
  constexpr size_t kLongest = 3000;
  std::string text(1, static_cast<char>('0' + static_cast<int>(error.code)));
  for (const std::string* part : {&error.step, &error.object, &error.cause, &error.hint}) {
    text.append(*part, 0, kLongest);
    text += '\0';
  }
  return text;
}

Error unpacked(std::string_view text) {
  Error error;
  if (text.empty()) return error;
  const int code = text.front() - '0';
  if (code >= 0 && code <= static_cast<int>(ErrorCode::kTaskGone)) error.code = static_cast<ErrorCode>(code);
  text.remove_prefix(1);
  for (std::string* part : {&error.step, &error.object, &error.cause, &error.hint}) {
    size_t end = text.find('\0');
    if (end == std::string_view::npos) break;
    part->assign(text.substr(0, end));
    text.remove_prefix(end + 1);
  }
  return error;
}

}  // namespace stasis
