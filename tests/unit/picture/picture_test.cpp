#include <gtest/gtest.h>
#include <png.h>

#include <cstring>

#include "picture/png.h"
#include "picture/xwd.h"

namespace stasis::picture {
namespace {

// A window dump as Xvfb has it: the fields of X11/XWDFile.h, a name, colours, rows with a gap at their end.
struct Dump {
  uint32_t fields[25] = {104, 7, 2, 24, 3, 2, 0, 0, 32, 0, 32, 32, 16, 4, 0xff0000, 0xff00, 0xff, 8, 256, 2};
  std::string rest = std::string(4, 'n') + std::string(24, 'c');

  Dump() {
    for (unsigned y = 0; y < 2; ++y) {
      for (unsigned x = 0; x < 3; ++x) rest += {char(y * 16 + x), char(0x50 + x), char(0x60 + x), '\0'};
      rest += "gap.";
    }
  }
  std::string bytes() const {
    std::string all;
    for (uint32_t value : fields)
      for (int shift = 24; shift >= 0; shift -= 8) all += static_cast<char>(value >> shift);
    return all + rest;
  }
};

TEST(Xwd, PixelsAreRead) {
  auto picture = read_xwd(Dump().bytes());
  ASSERT_TRUE(picture.ok()) << picture.error().message();
  EXPECT_EQ(picture->width, 3u);
  EXPECT_EQ(picture->height, 2u);
  EXPECT_EQ(picture->pixels, std::string("`P\0aQ\1bR\2`P\x10"
                                         "aQ\x11"
                                         "bR\x12",
                                         18));
}

TEST(Xwd, WhatMakesNoSenseIsRefused) {
  const std::string good = Dump().bytes();
  for (size_t size = 0; size < good.size(); ++size)
    EXPECT_FALSE(read_xwd(std::string_view(good).substr(0, size)).ok()) << size;
  const struct {
    size_t field;
    uint32_t value;
  } changes[] = {{0, 105},    {0, ~0u}, {1, 6},     {2, 1},  {4, 0},   {4, 5},  {4, ~0u},
                 {5, 0},      {5, 3},   {5, ~0u},   {7, 1},  {11, 24}, {12, 8}, {12, ~0u},
                 {14, 0x1ff}, {15, 0},  {16, 0x7f}, {19, 3}, {19, ~0u}};
  for (const auto& change : changes) {
    Dump dump;
    dump.fields[change.field] = change.value;
    EXPECT_FALSE(read_xwd(dump.bytes()).ok()) << "field " << change.field << " = " << change.value;
  }
}

TEST(Png, ComesBackFromTheLibrary) {
  Picture picture{.width = 129, .height = 65, .pixels = {}};
  for (unsigned i = 0; i < 129 * 65 * 3; ++i) picture.pixels += static_cast<char>(i * 7 + i / 300);
  auto png = encode_png(picture);
  ASSERT_TRUE(png.ok()) << png.error().message();

  png_image image = {};
  image.version = PNG_IMAGE_VERSION;
  ASSERT_TRUE(png_image_begin_read_from_memory(&image, png->data(), png->size()));
  EXPECT_EQ(image.width, picture.width);
  EXPECT_EQ(image.height, picture.height);
  image.format = PNG_FORMAT_RGB;
  std::string back(PNG_IMAGE_SIZE(image), '\0');
  ASSERT_TRUE(png_image_finish_read(&image, nullptr, back.data(), 0, nullptr));
  EXPECT_EQ(back, picture.pixels);
}

TEST(Png, NeedsAllPixels) {
  EXPECT_FALSE(encode_png(Picture{.width = 2, .height = 2, .pixels = std::string(11, 'x')}).ok());
  EXPECT_FALSE(encode_png(Picture{}).ok());
}

}  // namespace
}  // namespace stasis::picture
