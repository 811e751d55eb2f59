// What is in a pipe: looked at without taking it out, and put back.
#pragma once

#include <string>
#include <vector>

#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::resource {

// The pieces that reads of a pipe's reading end would give: one per packet when some writer used packet mode.
Result<std::vector<std::string>> peek_pipe(int reading_end, bool packets);

// Writes the pieces into an empty pipe. `any_end` is one of our descriptors of it.
Result<void> fill_pipe(int any_end, const std::vector<std::string>& pieces, bool packets);

}  // namespace stasis::resource
