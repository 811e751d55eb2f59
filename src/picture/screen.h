// The picture of the screen that a checkpoint of a session with a display carries.
#pragma once

#include <string>

#include "image/writer.h"
#include "schema/manifest.pb.h"
#include "stasis/result.h"

namespace stasis::picture {

inline constexpr const char* kScreenFile = "screen.png";

// Makes it of the pages of the server's screen, which are in the checkpoint already, so that it shows exactly
// what the checkpoint has, and the program need not stand still. The manifest's display names it then.
// A picture that cannot be made says why; the checkpoint is as good without.
Result<void> add_screen(image::Writer& writer, schema::Manifest& manifest);

}  // namespace stasis::picture
