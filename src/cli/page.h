// A page for a browser that shows checkpoints with their pictures.
#pragma once

#include <string>
#include <vector>

#include "image/store.h"
#include "stasis/result.h"

namespace stasis::cli {

// HTML that needs no other file: pictures are in it. What cannot be read says why in its place.
std::string checkpoint_page(const std::string& title, const std::vector<image::Entry>& entries);

// Replaces the file at once, for the owner's eyes only: it shows the owner's screen. "-": standard output.
Result<void> write_page(const std::string& path, const std::string& page);

}  // namespace stasis::cli
