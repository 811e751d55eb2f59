// Whatever a program, or an image, puts into a stream of calls: the renderer refuses it, or hands nothing to
// the driver that is not there. The driver is a model that reads all that a real one would, and each packet
// ends where its memory does. An input is packets: an operation, flags, how many words of 8 bytes follow the
// header, and these.
#include <GL/gl.h>
#include <GL/glext.h>
#include <GL/glx.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>

#include "generated/commands.h"
#include "reader/ring_file.h"
#include "renderer/renderer.h"
#include "tests/fuzz/driver.h"
#include "tests/gl/model_driver.h"
#include "wire/egl.h"
#include "wire/pixels.h"

using namespace stasis::gl;

namespace {

constexpr uint32_t kNumbers = 4;  // of contexts and surfaces: few, so that they meet

template <typename P>
P* as(Packet& packet) {
  return packet.size >= sizeof(P) ? reinterpret_cast<P*>(&packet) : nullptr;
}

// What is right but takes too long, or would be left for the next input.
void tame(Packet& packet) {
  switch (packet.op) {
    case kOpGenLists:
      if (auto* p = as<PGenLists>(packet)) p->range &= 0x3f;
      break;
    case kOpFeedbackBuffer:
      if (auto* p = as<PFeedbackBuffer>(packet)) p->size %= 4096;
      break;
    case kOpSelectBuffer:
      if (auto* p = as<PSelectBuffer>(packet)) p->size %= 4096;
      break;
    case kOpGetTexImage:
      if (auto* p = as<GetTexImageRequest>(packet)) p->row_bytes %= 65536;
      break;
    case kOpCreateContext:
      if (auto* p = as<CreateContext>(packet)) {
        p->context = 1 + (p->context - 1) % kNumbers;
        p->share %= kNumbers + 1;
      }
      break;
    case kOpMakeCurrent:
    case kOpDestroyContext:
      if (auto* p = as<MakeCurrent>(packet)) p->context %= kNumbers + 1;
      break;
    case kOpCreateSurface:
    case kOpDestroySurface:
      if (auto* p = as<CreateSurface>(packet); p != nullptr && packet.op == kOpCreateSurface)
        p->surface = p->surface % kNumbers + ((packet.flags & kOfEgl) != 0 ? kFirstEglSurface : 0);
      if (auto* p = as<SurfaceCall>(packet); p != nullptr && packet.op == kOpDestroySurface)
        p->surface = p->surface % kNumbers + (p->surface >= kFirstEglSurface ? kFirstEglSurface : 0);
      break;
    case kOpEglCreateSync:
      if (auto* p = as<SyncCall>(packet)) p->sync %= kNumbers;
      break;
  }
}

// A packet whose memory ends with it.
class Room {
 public:
  explicit Room(size_t bytes) : at_(static_cast<char*>(std::malloc(bytes))) {}
  ~Room() { std::free(at_); }
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;
  Packet& packet() { return *reinterpret_cast<Packet*>(at_); }
  char* bytes() { return at_; }

 private:
  char* at_;
};

void execute(Renderer& renderer, const Packet& packet) {
  try {
    renderer.execute(packet);
  } catch (const BadStream&) {
  }
}

template <typename P>
void execute(Renderer& renderer, uint16_t op, P packet) {
  packet.header = {sizeof packet, op, 0};
  execute(renderer, packet.header);
}

void leave_nothing(Renderer& renderer) {
  execute(renderer, kOpMakeCurrent, MakeCurrent{});
  for (uint32_t i = 0; i <= kNumbers; ++i) {
    execute(renderer, kOpDestroyContext, MakeCurrent{{}, i, 0, 0, 0});
    execute(renderer, kOpDestroySurface, SurfaceCall{{}, i, 0, 0});
    execute(renderer, kOpDestroySurface, SurfaceCall{{}, kFirstEglSurface + i, 0, 0});
    execute(renderer, kOpEglDestroySync, SyncCall{{}, i, 0, 0, 0});
  }
  reset_model_driver();
}

Ring* ring() {
  static auto* memory = static_cast<char*>(std::calloc(1, kHeaderSize + kReplySize));
  return reinterpret_cast<Ring*>(memory);
}

void add_words(std::string& input, uint16_t op, uint16_t flags, const std::string& words) {
  const auto count = static_cast<uint16_t>(words.size() / 8);
  for (uint16_t one : {op, flags, count}) input.append(reinterpret_cast<const char*>(&one), sizeof one);
  input += words;
}

template <typename P>
void add(std::string& input, uint16_t op, P packet, const std::string& payload = {}, uint16_t flags = 0) {
  std::string words(reinterpret_cast<const char*>(&packet) + sizeof(Packet), sizeof packet - sizeof(Packet));
  words.resize((words.size() + 7) / 8 * 8);
  words += payload;
  words.resize((words.size() + 7) / 8 * 8);
  add_words(input, op, flags, words);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const bool once = (use_model_driver(), true);
  (void)once;
  Renderer renderer(ring());
  // A log is refused at the first packet that is wrong; here the ones behind it are looked at, too.
  for (size_t at = 0; at + 6 <= size;) {
    uint16_t head[3];
    std::memcpy(head, data + at, sizeof head);
    const size_t bytes = std::min<size_t>(head[2] * size_t{8}, (size - at - sizeof head) / 8 * 8);
    Room room(sizeof(Packet) + bytes);
    room.packet() = {static_cast<uint32_t>(sizeof(Packet) + bytes),
                     static_cast<uint16_t>(head[0] % (kOpGlEnd + 1)), head[1]};
    std::memcpy(room.bytes() + sizeof(Packet), data + at + sizeof head, bytes);
    tame(room.packet());
    renderer.is_replaying = (head[1] & 0x8000) != 0;
    renderer.is_reading = (head[1] & 0x4000) != 0;
    execute(renderer, room.packet());
    renderer.answers.clear();
    at += sizeof head + bytes;
  }
  renderer.is_replaying = false;
  leave_nothing(renderer);
  return 0;
}

namespace {

std::string begin() {
  std::string input;
  CreateContext create = {};
  create.context = 1;
  create.screen = kSurfacelessPlatform;
  add(input, kOpCreateContext, create, {}, kOfEgl);
  MakeCurrent current = {};
  current.context = 1;
  current.draw = current.read = kNoSurface;
  add(input, kOpMakeCurrent, current);
  return input;
}

DrawClient client_draw(uint32_t command, uint32_t count) {
  DrawClient draw = {};
  draw.command = command;
  draw.count = count;
  draw.instances = 1;
  draw.end = ~0U;
  draw.index_bytes = kOffset;
  return draw;
}

std::string client_arrays() {
  std::string input = begin();
  add(input, kOpEnableClientState, PEnableClientState{{}, GL_VERTEX_ARRAY});
  add(input, kOpEnableVertexAttribArray, PEnableVertexAttribArray{{}, 3});
  DrawClient draw = client_draw(kOpDrawElements, 4);
  draw.arrays = 2;
  draw.index_type = GL_UNSIGNED_SHORT;
  const uint64_t data = sizeof draw + 2 * sizeof(ClientArray);
  draw.index_offset = data + 64;
  draw.index_bytes = 8;
  ClientArray arrays[2] = {{kVertexArray, 4, 0, 0, GL_FLOAT, 16, 0, data},
                           {kGenericArray + 3, 4, kNormalized, 0, GL_UNSIGNED_BYTE, 16, 0, data}};
  std::string payload(reinterpret_cast<const char*>(arrays), sizeof arrays);
  payload += std::string(64, '\1');
  const uint16_t indices[4] = {0, 1, 2, 3};
  payload.append(reinterpret_cast<const char*>(indices), sizeof indices);
  add(input, kOpClientElements, draw, payload);
  DrawClient other = client_draw(kOpDrawArrays, 4);
  other.arrays = 2;
  add(input, kOpClientArrays, other, payload);
  add(input, kOpDrawArrays, PDrawArrays{{}, GL_TRIANGLES, 0, 3});
  return input;
}

std::string buffers() {
  std::string input = begin();
  auto bind = [&](GLenum target, GLuint name, int64_t size) {
    add(input, kOpBindBuffer, PBindBuffer{{}, target, name});
    PBufferData p = {};
    p.target = target;
    p.size = size;
    p.data_bytes = static_cast<uint32_t>(size);
    add(input, kOpBufferData, p, std::string(static_cast<size_t>(size), '\2'));
  };
  bind(GL_ARRAY_BUFFER, 1, 256);
  bind(GL_ELEMENT_ARRAY_BUFFER, 2, 64);
  PVertexPointer pointer = {};
  pointer.size = 3;
  pointer.type = GL_FLOAT;
  pointer.pointer_bytes = kOffset;
  add(input, kOpVertexPointer, pointer);
  add(input, kOpEnableClientState, PEnableClientState{{}, GL_VERTEX_ARRAY});
  PDrawElements draw = {};
  draw.count = 3;
  draw.type = GL_UNSIGNED_BYTE;
  draw.indices_bytes = kOffset;
  add(input, kOpDrawElements, draw);
  add(input, kOpBegin, PBegin{{}, GL_TRIANGLES});
  DrawClient element = client_draw(kOpArrayElement, 1);
  add(input, kOpClientElement, element);
  add(input, kOpEnd, PEnd{});
  add(input, kOpNewList, PNewList{{}, 1, GL_COMPILE});
  add(input, kOpDrawElements, draw);
  add(input, kOpDrawArrays, PDrawArrays{{}, GL_TRIANGLES, 0, 3});
  add(input, kOpEndList, PEndList{});
  bind(GL_PIXEL_UNPACK_BUFFER, 3, 256);
  bind(GL_PIXEL_PACK_BUFFER, 4, 256);
  add(input, kOpPixelStorei, PPixelStorei{{}, GL_UNPACK_ROW_LENGTH, 4});
  PTexImage2D image = {};
  image.target = GL_TEXTURE_2D;
  image.width = image.height = 2;
  image.format = GL_RGBA;
  image.type = GL_UNSIGNED_BYTE;
  image.pixels_bytes = kOffset;
  add(input, kOpTexImage2D, image);
  ReadPixelsRequest read = {};
  read.width = read.height = 2;
  read.format = GL_RGBA;
  read.type = GL_UNSIGNED_BYTE;
  read.to_buffer = 1;
  add(input, kOpReadPixels, read);
  return input;
}

std::string images() {
  std::string input = begin();
  PTexImage2D image = {};
  image.target = GL_TEXTURE_2D;
  image.width = image.height = 2;
  image.format = GL_RGBA;
  image.type = GL_UNSIGNED_BYTE;
  image.pixels_bytes = 16;
  add(input, kOpTexImage2D, image, std::string(16, 'x'));
  GetTexImageRequest get = {};
  get.target = GL_TEXTURE_2D;
  get.format = GL_RGBA;
  get.type = GL_UNSIGNED_BYTE;
  get.row_bytes = 8;
  get.all_rows = get.rows = 2;
  add(input, kOpGetTexImage, get);
  PCompressedTexImage2D compressed = {};
  compressed.target = GL_TEXTURE_2D;
  compressed.level = 1;
  compressed.width = compressed.height = 4;
  compressed.imageSize = 8;
  compressed.data_bytes = 8;
  add(input, kOpCompressedTexImage2D, compressed, std::string(8, 'c'));
  Contents contents = {};
  contents.of = kOfTexture;
  contents.target = contents.face = GL_TEXTURE_2D;
  contents.format = GL_RGBA;
  contents.type = GL_UNSIGNED_BYTE;
  contents.width = contents.height = 2;
  contents.depth = 1;
  contents.bytes = 16;
  add(input, kOpContents, contents, std::string(16, 'p'), 0x8000);
  contents.bytes = kNull;
  contents.level = kAllLevels;
  add(input, kOpContents, contents, {}, 0x4000);
  return input;
}

// Streams that were recorded from real programs, as keepers write them: replays of logs.
void add_recorded(std::vector<std::string>& seeds) {
  const char* directory = std::getenv("STASIS_FUZZ_STREAMS");
  if (directory == nullptr) return;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)), {});
    LogFile log;
    if (!log.parse(bytes, entry.path()).empty()) continue;
    constexpr size_t kLongest = 8192;
    std::string input = begin();
    for_each_packet(log.replay, [&](const Packet& packet) {
      if (packet.op < kOpFirstGl && packet.op != kOpClientArrays && packet.op != kOpClientElements) return;
      if (packet.size > kLongest) return;
      add_words(
          input, packet.op, packet.flags,
          std::string(reinterpret_cast<const char*>(&packet) + sizeof packet, packet.size - sizeof packet));
      if (input.size() < kLongest) return;
      seeds.push_back(input);
      input = begin();
    });
    seeds.push_back(input);
  }
}

}  // namespace

std::vector<std::string> fuzz_seeds() {
  std::vector<std::string> seeds = {client_arrays(), buffers(), images()};
  // Each operation, with arguments that are small numbers, and behind them bytes. Few in one input: a
  // mutation is to meet what counts.
  constexpr uint16_t kTogether = 4;
  for (uint16_t first = kOpGetConfigs; first < kOpGlEnd; first = static_cast<uint16_t>(first + kTogether)) {
    std::string input = begin();
    for (uint16_t op = first; op < first + kTogether && op < kOpGlEnd; ++op) {
      std::string words(160, '\0');
      for (size_t i = 0; i < words.size(); i += 4) words[i] = static_cast<char>(i / 4 % 3);
      add_words(input, op, 0, words);
    }
    seeds.push_back(input);
  }
  add_recorded(seeds);
  return seeds;
}
