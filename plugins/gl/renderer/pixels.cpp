// Questions for pixels, and for pixel maps.
#include "wire/pixels.h"

#include <algorithm>
#include <cstring>

#include "generated/commands.h"
#include "renderer/renderer.h"

namespace stasis::gl {

namespace {

using Read = std::function<void(void*)>;

// Rows without gaps, into which the driver may have written or not.
struct Block {
  char* at;
  size_t row_bytes, rows;
  size_t bytes() const { return row_bytes * rows; }
};

constexpr char kUntouched = 0x5a;

// What is written is a rectangle, so it is all of it when all corners are.
bool corners_are_written(const Block& block) {
  const size_t last_row = (block.rows - 1) * block.row_bytes, width = block.row_bytes - 1;
  return block.at[0] != kUntouched && block.at[width] != kUntouched && block.at[last_row] != kUntouched &&
         block.at[last_row + width] != kUntouched;
}

// What is the same when it is read twice, into different memory, has been written.
WrittenPixels find_written(const Block& block, const Read& read) {
  std::vector<char> first(block.bytes(), '\x55');
  read(first.data());
  std::fill_n(block.at, block.bytes(), '\xaa');
  read(block.at);
  WrittenPixels written = {block.rows, 0, block.row_bytes, 0};
  for (size_t row = 0; row < block.rows; ++row) {
    const char *a = first.data() + row * block.row_bytes, *b = block.at + row * block.row_bytes;
    size_t from = 0, to = block.row_bytes;
    while (from < to && a[from] != b[from]) ++from;
    while (from < to && a[to - 1] != b[to - 1]) --to;
    if (from == to) continue;
    written.first_row = std::min<uint64_t>(written.first_row, row);
    written.end_row = row + 1;
    written.from = std::min<uint64_t>(written.from, from);
    written.to = std::max<uint64_t>(written.to, to);
  }
  return written.end_row == 0 ? WrittenPixels{} : written;
}

WrittenPixels read_block(const Block& block, const Read& read) {
  if (block.bytes() == 0) {
    read(block.at);  // for its errors
    return {};
  }
  const size_t last_row = (block.rows - 1) * block.row_bytes, width = block.row_bytes - 1;
  for (size_t corner : {size_t{0}, width, last_row, last_row + width}) block.at[corner] = kUntouched;
  read(block.at);
  if (corners_are_written(block)) return {0, block.rows, 0, block.row_bytes};
  return find_written(block, read);
}

// The answer is made in its place, behind the two lengths and the first part.
constexpr size_t kPixelsAt = 8 + 8 + sizeof(WrittenPixels) + 8;

size_t checked_size(uint64_t row_bytes, uint64_t rows, size_t most) {
  if (row_bytes > most || (rows != 0 && row_bytes > most / rows)) throw BadStream{"too many pixels"};
  return row_bytes * rows;
}

void send_block(Renderer& r, const Packet& header, const Block& block, const WrittenPixels& written) {
  char* room = r.answer_room(kPixelsAt + block.bytes());
  char* into = room + kPixelsAt;
  const size_t width = written.to - written.from;
  for (size_t row = written.first_row; row < written.end_row; ++row, into += width)
    std::memmove(into, block.at + row * block.row_bytes + written.from, width);
  const uint64_t result = 0, first_size = sizeof written,
                 second_size = static_cast<uint64_t>(into - (room + kPixelsAt));
  std::memcpy(room, &result, 8);
  std::memcpy(room + 8, &first_size, 8);
  std::memcpy(room + 16, &written, sizeof written);
  std::memcpy(room + 16 + sizeof written, &second_size, 8);
  r.send_answer(header, kPixelsAt + second_size);
}

void answer_block(Renderer& r, const Packet& header, uint64_t row_bytes, uint64_t rows, const Read& read) {
  const size_t size = checked_size(row_bytes, rows, kReplySize - kPixelsAt - 64);
  const Block block = {r.answer_room(kPixelsAt + size) + kPixelsAt, row_bytes, rows};
  send_block(r, header, block, read_block(block, read));
}

}  // namespace

namespace {

// Where there is a pack buffer the driver writes at `offset` of it; without one that would be an address.
bool may_write_image(uint64_t offset, const ImageSize& image) {
  return is_image_in_buffer(GL_PIXEL_PACK_BUFFER, offset, image);
}
bool may_write(uint64_t offset, size_t bytes) {
  return is_in_buffer(GL_PIXEL_PACK_BUFFER, GL_PIXEL_PACK_BUFFER_BINDING, offset, bytes);
}

// The driver writes as much as the image has, whatever room the packet asks for. False: it would not know
// what pixels these are.
bool has_room(const Packet& header, Renderer& r, const ImageSize& image, uint64_t row_bytes, uint64_t rows) {
  const DenseImage size = dense(image);
  if (!size.known) {
    raise_error(GL_INVALID_ENUM);
    send_block(r, header, {r.answer_room(kPixelsAt), 0, 0}, {});
    return false;
  }
  const bool has_none = size.bytes() == 0 && (row_bytes == 0 || rows == 0);
  if (!has_none && (row_bytes != size.row_bytes || rows != size.rows))
    throw BadStream{"room for " + std::to_string(rows) + " rows of " + std::to_string(row_bytes) +
                    " bytes where the driver writes " + std::to_string(size.rows) + " of " +
                    std::to_string(size.row_bytes)};
  return true;
}

}  // namespace

void own_ReadPixels(Renderer& r, const Packet& header) {
  const auto& p = view<ReadPixelsRequest>(header);
  r.use_packing(p.to_buffer != 0, header.flags);
  const ImageSize image = {p.width, p.height, 1, p.format, p.type, false};
  auto read = [&](void* into) { r.gl.ReadPixels(p.x, p.y, p.width, p.height, p.format, p.type, into); };
  if (p.to_buffer != 0) {
    if (may_write_image(p.offset, image)) read(reinterpret_cast<void*>(p.offset));
    return;
  }
  r.require_no_buffer(GL_PIXEL_PACK_BUFFER_BINDING);
  if (!has_room(header, r, image, p.row_bytes, count_in(p.height))) return;
  answer_block(r, header, p.row_bytes, static_cast<uint64_t>(std::max(p.height, 0)), read);
}

void own_GetTexImage(Renderer& r, const Packet& header) {
  const auto& p = view<GetTexImageRequest>(header);
  r.use_packing(p.to_buffer != 0, header.flags);
  auto side = [&](GLenum name) {
    GLint value = 0;
    r.gl.GetTexLevelParameteriv(p.target, p.level, name, &value);
    return value;
  };
  const ImageSize image = {
      side(GL_TEXTURE_WIDTH), side(GL_TEXTURE_HEIGHT), side(GL_TEXTURE_DEPTH), p.format, p.type, true};
  auto read = [&](void* into) { r.gl.GetTexImage(p.target, p.level, p.format, p.type, into); };
  if (p.to_buffer != 0) {
    if (may_write_image(p.offset, image)) read(reinterpret_cast<void*>(p.offset));
    return;
  }
  r.require_no_buffer(GL_PIXEL_PACK_BUFFER_BINDING);
  if (!has_room(header, r, image, p.row_bytes, p.all_rows)) return;
  if (p.rows == p.all_rows) return answer_block(r, header, p.row_bytes, p.rows, read);
  // Too much for one answer: the driver gives the whole each time.
  constexpr size_t kMost = size_t{4} << 30;
  std::vector<char> whole(checked_size(p.row_bytes, p.all_rows, kMost));
  const WrittenPixels written = read_block({whole.data(), p.row_bytes, p.all_rows}, read);
  if (p.first_row > p.all_rows || p.rows > p.all_rows - p.first_row) throw BadStream{"rows beyond an image"};
  checked_size(p.row_bytes, p.rows, kReplySize - kPixelsAt - 64);
  const Block part = {whole.data() + p.first_row * p.row_bytes, p.row_bytes, p.rows};
  send_block(r, header, part, written.to == 0 ? WrittenPixels{} : WrittenPixels{0, p.rows, 0, p.row_bytes});
}

void own_GetCompressedTexImage(Renderer& r, const Packet& header) {
  struct Request : PGetCompressedTexImage {
    uint64_t offset, to_buffer;
  };
  const auto& p = view<Request>(header);
  r.use_packing(p.to_buffer != 0, header.flags);
  GLint size = 0;
  r.gl.GetTexLevelParameteriv(p.target, p.level, GL_TEXTURE_COMPRESSED_IMAGE_SIZE, &size);
  if (p.to_buffer != 0) {
    if (may_write(p.offset, count_in(size)))
      r.gl.GetCompressedTexImage(p.target, p.level, reinterpret_cast<void*>(p.offset));
    return;
  }
  r.require_no_buffer(GL_PIXEL_PACK_BUFFER_BINDING);
  std::vector<char> bytes(static_cast<size_t>(std::max(size, 1)));
  r.gl.GetCompressedTexImage(p.target, p.level, bytes.data());
  r.answer_bytes(header, bytes.data(), static_cast<size_t>(std::max(size, 0)));
}

void own_GetPolygonStipple(Renderer& r, const Packet& header) {
  const auto& p = view<GetPolygonStippleRequest>(header);
  r.use_packing(p.to_buffer != 0, header.flags);
  auto read = [&](void* into) { r.gl.GetPolygonStipple(static_cast<GLubyte*>(into)); };
  if (p.to_buffer != 0) {
    if (may_write_image(p.offset, {32, 32, 1, GL_COLOR_INDEX, GL_BITMAP, false}))
      read(reinterpret_cast<void*>(p.offset));
    return;
  }
  r.require_no_buffer(GL_PIXEL_PACK_BUFFER_BINDING);
  answer_block(r, header, 4, 32, read);
}

namespace {

template <typename T>
void get_pixel_map(Renderer& r, const Packet& header, void (*get)(GLenum, T*)) {
  const auto& p = view<GetPixelMapRequest>(header);
  // Its size has a name of its own at a fixed distance.
  constexpr GLenum kSizes = GL_PIXEL_MAP_I_TO_I_SIZE - GL_PIXEL_MAP_I_TO_I;
  GLint size = 0;
  if (p.map >= GL_PIXEL_MAP_I_TO_I && p.map <= GL_PIXEL_MAP_A_TO_A) r.gl.GetIntegerv(p.map + kSizes, &size);
  const size_t bytes = count_in(size) * sizeof(T);
  if (p.to_buffer != 0) {
    if (may_write(p.offset, bytes)) get(p.map, reinterpret_cast<T*>(p.offset));
    return;
  }
  r.require_no_buffer(GL_PIXEL_PACK_BUFFER_BINDING);
  r.answer_outputs(header, {bytes}, [&](void* const* o) {
    get(p.map, static_cast<T*>(o[0]));
    return uint64_t{0};
  });
}

}  // namespace

void own_GetPixelMapfv(Renderer& r, const Packet& header) { get_pixel_map(r, header, r.gl.GetPixelMapfv); }
void own_GetPixelMapuiv(Renderer& r, const Packet& header) { get_pixel_map(r, header, r.gl.GetPixelMapuiv); }
void own_GetPixelMapusv(Renderer& r, const Packet& header) { get_pixel_map(r, header, r.gl.GetPixelMapusv); }

}  // namespace stasis::gl
