// The two errors that kinds give: a checkpoint that is refused, and a description that could not be made
// again.
#pragma once

#include <cerrno>
#include <string>

#include "stasis/descriptor.h"
#include "stasis/result.h"

namespace stasis::resource {

// "save: descriptor 7 of task 42 (anon_inode:[io_uring]): cause; hint", with code kRefused.
Error refusal(const OpenFile& file, std::string cause, std::string hint = {});
// The same for a state that a program leaves by itself, as a rule at once: the checkpoint is tried again a
// few times before the user hears of it. Code kRefusedNow.
Error refusal_for_now(const OpenFile& file, std::string cause, std::string hint);
// The same for a system call that failed while looking.
Error cannot_observe(const OpenFile& file, std::string_view what, int error = errno);
// "restore pipe (pipe:[123]): what: strerror; hint".
Error cannot_make(const Record& record, std::string what, int error = errno, std::string hint = {});

}  // namespace stasis::resource
