// Where the checkpoints of a session are, when the user does not say: a session remembers the store it was
// launched with.
#pragma once

#include <string>
#include <vector>

#include "stasis/result.h"

namespace stasis::cli {

// `given` (--store), else that of the session's record, else the default.
Result<std::string> store_of(const std::string& session, const std::string& given);

// `given` alone, else the default and those of all sessions, each once.
Result<std::vector<std::string>> all_stores(const std::string& given);

// The directory of the checkpoint that SESSION, SESSION@ID or DIR means.
Result<std::string> checkpoint_directory(const std::string& reference, const std::string& given_store);

// For the help of every verb that takes one.
inline constexpr const char* kReferenceHelp =
    "SESSION (its newest checkpoint), SESSION@ID, or a checkpoint's directory";
inline constexpr const char* kStoreHelp = "Where the checkpoints are, unless the session knows";

}  // namespace stasis::cli
