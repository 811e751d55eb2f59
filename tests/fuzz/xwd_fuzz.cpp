// Whatever an X server, or a client that has made a segment look like a screen, has in its memory: read_xwd()
// gives an error or a picture of which every pixel is there.
#include "picture/png.h"
#include "picture/xwd.h"
#include "tests/fuzz/driver.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto picture = stasis::picture::read_xwd({reinterpret_cast<const char*>(data), size});
  if (!picture.ok()) return 0;
  if (picture->pixels.size() != size_t{picture->width} * picture->height * 3) __builtin_trap();
  if (!stasis::picture::encode_png(*picture).ok()) __builtin_trap();
  return 0;
}

std::vector<std::string> fuzz_seeds() {
  const uint32_t fields[25] = {100, 7,  2,  24, 3,        2,      0,    0, 32,  0,
                               32,  32, 12, 4,  0xff0000, 0xff00, 0xff, 8, 256, 1};
  std::string dump;
  for (uint32_t value : fields)
    for (int shift = 24; shift >= 0; shift -= 8) dump += static_cast<char>(value >> shift);
  return {dump + std::string(12 + 24, 'x')};
}
