// Pictures as files that people and browsers can look at.
#pragma once

#include <string>

#include "picture/xwd.h"
#include "stasis/result.h"

namespace stasis::picture {

// A PNG file. Quick rather than small: a screen of a few windows takes some ten milliseconds.
Result<std::string> encode_png(const Picture& picture);

}  // namespace stasis::picture
