#include "resource/refusal.h"

namespace stasis::resource {

Error refusal(const OpenFile& file, std::string cause, std::string hint) {
  return Error{"save", file.describe(), std::move(cause), std::move(hint), ErrorCode::kRefused};
}

Error refusal_for_now(const OpenFile& file, std::string cause, std::string hint) {
  Error error = refusal(file, std::move(cause), std::move(hint));
  error.code = ErrorCode::kRefusedNow;
  return error;
}

Error cannot_observe(const OpenFile& file, std::string_view what, int error) {
  return Error{"save", file.describe(), fmt::format("{}: {}", what, strerror(error)), {}, ErrorCode::kFailed};
}

Error cannot_make(const Record& record, std::string what, int error, std::string hint) {
  return errno_error("restore " + record.describe(), std::move(what), error, std::move(hint));
}

}  // namespace stasis::resource
