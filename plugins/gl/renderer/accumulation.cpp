#include "renderer/accumulation.h"

#include <iterator>
#include <vector>

namespace stasis::gl {

namespace {

const Functions& gl = Renderer::gl;

// By what an image is enlarged, and made smaller again. The buffer has 15 bits and a sign. Colours have 8, of
// which those that are bright lie more than twice as far apart where a window can have colours of sRGB: Mesa
// makes them linear when they are added up, and back. So up to 146 steps of the buffer are left of the first
// image, and up to 4 of the second. Those are made a little larger: what is left of a step is cut off.
struct Scale {
  GLfloat there, back;
};
constexpr Scale kScales[kAccumulationImages] = {
    {1, 1}, {-1, -1}, {100, 1.0F / 100}, {-100, -1.0F / 100}, {8000, 1.03F / 8000}, {-8000, -1.03F / 8000}};

// What glAccum depends on is set for a moment, and the colours are put back in the end.
class BorrowedColors {
 public:
  BorrowedColors(GLint width, GLint height, const PutColors& put)
      : put_(put), before_(accumulation_image_bytes(width, height)) {
    GLboolean doubled = GL_FALSE;
    gl.GetBooleanv(GL_DOUBLEBUFFER, &doubled);
    gl.GetIntegerv(GL_DRAW_BUFFER, &draw_);
    gl.GetIntegerv(GL_READ_BUFFER, &read_);
    gl.GetBooleanv(GL_COLOR_WRITEMASK, mask_);
    const GLenum buffer = doubled != GL_FALSE ? GL_BACK : GL_FRONT;
    gl.DrawBuffer(buffer);
    gl.ReadBuffer(buffer);
    gl.ColorMaski(0, GL_TRUE, GL_TRUE, GL_TRUE, GL_TRUE);
    for (size_t i = 0; i < std::size(kDisturb); ++i) {
      disturbs_[i] = gl.IsEnabled(kDisturb[i]) != GL_FALSE;
      gl.Disable(kDisturb[i]);
    }
    gl.ReadPixels(0, 0, width, height, GL_RGBA, GL_UNSIGNED_BYTE, before_.data());
  }
  ~BorrowedColors() {
    put_(before_.data());
    for (size_t i = 0; i < std::size(kDisturb); ++i) {
      if (disturbs_[i]) gl.Enable(kDisturb[i]);
    }
    gl.ColorMaski(0, mask_[0], mask_[1], mask_[2], mask_[3]);
    gl.ReadBuffer(static_cast<GLenum>(read_));
    gl.DrawBuffer(static_cast<GLenum>(draw_));
  }
  BorrowedColors(const BorrowedColors&) = delete;
  BorrowedColors& operator=(const BorrowedColors&) = delete;

 private:
  static constexpr GLenum kDisturb[] = {GL_RASTERIZER_DISCARD, GL_FRAMEBUFFER_SRGB};
  const PutColors& put_;
  std::vector<unsigned char> before_;
  GLint draw_ = 0, read_ = 0;
  GLboolean mask_[4] = {};
  bool disturbs_[std::size(kDisturb)] = {};
};

// The same steps as those that were taken away, whatever a driver makes of them.
void add_all(GLint width, GLint height, const PutColors& put, const unsigned char* images) {
  for (const Scale& scale : kScales) {
    put(images);
    gl.Accum(GL_ACCUM, scale.back);
    images += accumulation_image_bytes(width, height);
  }
}

}  // namespace

bool read_accumulation(GLint width, GLint height, const PutColors& put, unsigned char* images) {
  GLint bits = 0, mode = GL_RENDER;
  gl.GetIntegerv(GL_ACCUM_RED_BITS, &bits);
  gl.GetIntegerv(GL_RENDER_MODE, &mode);
  if (gl.GetError() != GL_NO_ERROR || bits == 0 || mode != GL_RENDER) return false;
  BorrowedColors colors(width, height, put);
  unsigned char* image = images;
  for (const Scale& scale : kScales) {
    gl.Accum(GL_RETURN, scale.there);
    gl.ReadPixels(0, 0, width, height, GL_RGBA, GL_UNSIGNED_BYTE, image);
    // What was returned is the colours of the moment: without it, what is left is small enough to be
    // enlarged.
    gl.Accum(GL_ACCUM, -scale.back);
    image += accumulation_image_bytes(width, height);
  }
  add_all(width, height, put, images);
  return gl.GetError() == GL_NO_ERROR;
}

void write_accumulation(GLint width, GLint height, const PutColors& put, const unsigned char* images) {
  BorrowedColors colors(width, height, put);
  GLfloat clear[4] = {};
  gl.GetFloatv(GL_ACCUM_CLEAR_VALUE, clear);
  gl.ClearAccum(0, 0, 0, 0);
  gl.Clear(GL_ACCUM_BUFFER_BIT);
  gl.ClearAccum(clear[0], clear[1], clear[2], clear[3]);
  add_all(width, height, put, images);
}

}  // namespace stasis::gl
