#include "picture/xwd.h"

#include <bit>
#include <cstring>
#include <optional>

namespace stasis::picture {
namespace {

// X11/XWDFile.h: a header of 25 numbers of 32 bits, the most significant byte first; then the window's name
// up to header_size, colours of 12 bytes each, and the rows.
enum Field : size_t {
  kHeaderSize = 0,
  kVersion = 1,
  kFormat = 2,
  kWidth = 4,
  kHeight = 5,
  kByteOrder = 7,
  kBitsPerPixel = 11,
  kBytesPerLine = 12,
  kRedMask = 14,
  kGreenMask = 15,
  kBlueMask = 16,
  kColours = 19,
  kFields = 25,
};
constexpr uint32_t kXwdVersion = 7;
constexpr uint32_t kZPixmap = 2;
constexpr uint32_t kLeastFirst = 0;
constexpr uint32_t kPixelBytes = 4;
constexpr uint64_t kColourBytes = 12;
// What the X protocol can say.
constexpr uint32_t kMostPixels = 32767;

Error no_dump(std::string cause) {
  return Error{"read the screen", "window dump", std::move(cause), {}, ErrorCode::kDamaged};
}

uint32_t field(std::string_view bytes, Field which) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(bytes[which * 4 + i]);
  return value;
}

// Where a colour of eight bits is in a pixel.
std::optional<uint32_t> shift_of(uint32_t mask) {
  const auto shift = static_cast<uint32_t>(std::countr_zero(mask));
  if (mask == 0 || mask >> shift != 0xff) return {};
  return shift;
}

}  // namespace

Result<Picture> read_xwd(std::string_view bytes) {
  if (bytes.size() < kFields * 4) return no_dump("it is shorter than its header");
  if (field(bytes, kVersion) != kXwdVersion || field(bytes, kFormat) != kZPixmap)
    return no_dump("this is none of version 7 with whole pixels");
  Picture picture;
  picture.width = field(bytes, kWidth);
  picture.height = field(bytes, kHeight);
  const uint64_t line = field(bytes, kBytesPerLine);
  if (picture.width < 1 || picture.width > kMostPixels || picture.height < 1 ||
      picture.height > kMostPixels || line < uint64_t{picture.width} * kPixelBytes)
    return no_dump("its size makes no sense");
  const auto red = shift_of(field(bytes, kRedMask)), green = shift_of(field(bytes, kGreenMask)),
             blue = shift_of(field(bytes, kBlueMask));
  if (field(bytes, kBitsPerPixel) != kPixelBytes * 8 || field(bytes, kByteOrder) != kLeastFirst || !red ||
      !green || !blue)
    return no_dump("its pixels are not 32 bits with eight for each colour");
  const uint64_t start = field(bytes, kHeaderSize) + uint64_t{field(bytes, kColours)} * kColourBytes;
  if (start > bytes.size() || line * picture.height > bytes.size() - start)
    return no_dump("it is shorter than its picture");

  picture.pixels.resize(size_t{picture.width} * picture.height * 3);
  char* to = picture.pixels.data();
  for (uint64_t y = 0; y < picture.height; ++y) {
    const char* from = bytes.data() + start + y * line;
    for (uint32_t x = 0; x < picture.width; ++x, from += kPixelBytes) {
      uint32_t pixel = 0;
      std::memcpy(&pixel, from, kPixelBytes);
      *to++ = static_cast<char>(pixel >> *red);
      *to++ = static_cast<char>(pixel >> *green);
      *to++ = static_cast<char>(pixel >> *blue);
    }
  }
  return picture;
}

}  // namespace stasis::picture
