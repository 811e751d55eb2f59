#include "base/result.h"

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
  return Error{std::move(step), std::move(object), std::strerror(error), std::move(hint), classify(error)};
}

}  // namespace stasis
