#include "picture/png.h"

#include <png.h>

namespace stasis::picture {
namespace {

void append(png_structp writer, png_bytep data, size_t size) {
  static_cast<std::string*>(png_get_io_ptr(writer))->append(reinterpret_cast<char*>(data), size);
}

// Instead of writing to our error output.
[[noreturn]] void leave(png_structp writer, png_const_charp) { png_longjmp(writer, 1); }
void be_silent(png_structp, png_const_charp) {}

// libpng leaves by longjmp, past destructors: so nothing that has one is made between setjmp and the end.
bool write_png(png_structp writer, png_infop info, const Picture& picture, std::string& out) {
  if (setjmp(png_jmpbuf(writer)) != 0) return false;
  png_set_write_fn(writer, &out, append, nullptr);
  png_set_IHDR(writer, info, picture.width, picture.height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  png_set_compression_level(writer, 3);
  png_set_filter(writer, PNG_FILTER_TYPE_BASE, PNG_FILTER_SUB);
  png_write_info(writer, info);
  const auto* pixels = reinterpret_cast<png_const_bytep>(picture.pixels.data());
  for (size_t y = 0; y < picture.height; ++y) png_write_row(writer, pixels + y * picture.width * 3);
  png_write_end(writer, info);
  return true;
}

}  // namespace

Result<std::string> encode_png(const Picture& picture) {
  const Error failed{"make a picture of the screen", "PNG", "libpng cannot write it", {}, ErrorCode::kFailed};
  if (picture.pixels.size() != size_t{picture.width} * picture.height * 3) return failed;
  png_structp writer = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, leave, be_silent);
  png_infop info = writer != nullptr ? png_create_info_struct(writer) : nullptr;
  std::string out;
  const bool written = info != nullptr && write_png(writer, info, picture, out);
  png_destroy_write_struct(&writer, &info);
  if (!written) return failed;
  return out;
}

}  // namespace stasis::picture
