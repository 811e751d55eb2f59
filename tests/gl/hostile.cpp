// hostile CASE: a program that writes a stream of its own into a ring, with the driver's renderer at the
// other end. It sets up something to draw into, says what is wrong, and waits for its end.
#include <GL/gl.h>
#include <GL/glext.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>

#include "generated/commands.h"
#include "reader/ring_file.h"
#include "wire/egl.h"
#include "wire/pixels.h"
#include "wire/ring.h"

using namespace stasis::gl;

namespace {

char* base = nullptr;
int file = -1;
Ring* ring = nullptr;
uint64_t at = 0;

[[noreturn]] void die(const char* what) {
  perror(what);
  exit(2);
}

void connect_ring() {
  file = memfd_create("stasis-gl-ring", MFD_CLOEXEC);
  if (file < 0 || ftruncate(file, kRingFileSize) < 0) die("ring");
  base = static_cast<char*>(mmap(nullptr, kRingFileSize, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
  ring = reinterpret_cast<Ring*>(base);
  ring->version = kRingVersion;
  ring->readers = kReaders;
  ring->table = kCommandTable;
  if (getrandom(&ring->program, sizeof ring->program, 0) < 0) die("number");
  ring->magic = kRingMagic;

  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof address.sun_path, "%s", getenv("STASIS_GL_SOCKET"));
  const int connection = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (connect(connection, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0) die("connect");
  char answer[256];
  if (!send(connection, {.text = "", .file = file}) || recv(connection, answer, sizeof answer, 0) <= 0)
    die("server");
  close(connection);
}

void publish() {
  ring->head.store(at);
  for (auto& reader : ring->reader) {
    reader.sleeping.store(0);
    syscall(SYS_futex, &reader.sleeping, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
  }
}

template <typename P>
void say(uint16_t op, P packet, const std::string& payload = {}, uint16_t flags = 0) {
  std::string bytes(reinterpret_cast<const char*>(&packet), sizeof packet);
  bytes.resize((bytes.size() + 7) / 8 * 8);
  bytes += payload;
  bytes.resize((bytes.size() + 7) / 8 * 8);
  const Packet header = {static_cast<uint32_t>(bytes.size()), op, flags};
  std::memcpy(bytes.data(), &header, sizeof header);
  std::memcpy(base + kHeaderSize + kReplySize + at, bytes.data(), bytes.size());
  at += bytes.size();
}

void prepare() {
  CreateContext create = {};
  create.context = 1;
  create.screen = kSurfacelessPlatform;
  say(kOpCreateContext, create, {}, kOfEgl);
  MakeCurrent current = {};
  current.context = 1;
  current.draw = current.read = kNoSurface;
  say(kOpMakeCurrent, current);
  constexpr GLsizei kSize = 64;
  say(kOpBindFramebuffer, PBindFramebuffer{{}, GL_FRAMEBUFFER, 1});
  say(kOpBindRenderbuffer, PBindRenderbuffer{{}, GL_RENDERBUFFER, 1});
  say(kOpRenderbufferStorage, PRenderbufferStorage{{}, GL_RENDERBUFFER, GL_RGBA8, kSize, kSize});
  say(kOpFramebufferRenderbuffer,
      PFramebufferRenderbuffer{{}, GL_FRAMEBUFFER, GL_COLOR_ATTACHMENT0, GL_RENDERBUFFER, 1});
  say(kOpViewport, PViewport{{}, 0, 0, kSize, kSize});
  say(kOpEnableClientState, PEnableClientState{{}, GL_VERTEX_ARRAY});
}

DrawClient draw(uint32_t command, uint32_t count) {
  DrawClient p = {};
  p.command = command;
  p.arrays = 1;
  p.mode = GL_TRIANGLES;
  p.count = count;
  p.instances = 1;
  p.end = ~0U;
  p.index_bytes = kOffset;
  return p;
}

constexpr uint64_t kVertices = sizeof(DrawClient) + sizeof(ClientArray);

std::string vertices(uint64_t offset, int32_t stride = 16, const std::string& indices = {}) {
  const ClientArray one = {kVertexArray, 4, 0, 0, GL_FLOAT, stride, 0, offset};
  return std::string(reinterpret_cast<const char*>(&one), sizeof one) + std::string(size_t{3} * 16, '\0') +
         indices;
}

void draw_elements(uint32_t index) {
  DrawClient p = draw(kOpDrawElements, 3);
  p.index_type = GL_UNSIGNED_INT;
  p.index_offset = kVertices + size_t{3} * 16;
  p.index_bytes = 12;
  const uint32_t indices[3] = {0, 1, index};
  say(kOpClientElements, p,
      vertices(kVertices, 16, std::string(reinterpret_cast<const char*>(indices), sizeof indices)));
}

PTexImage2D image(GLsizei side, uint32_t bytes) {
  PTexImage2D p = {};
  p.target = GL_TEXTURE_2D;
  p.internalformat = GL_RGBA8;
  p.width = p.height = side;
  p.format = GL_RGBA;
  p.type = GL_UNSIGNED_BYTE;
  p.pixels_bytes = bytes;
  return p;
}

const std::map<std::string, std::function<void()>> kCases = {
    {"nothing-wrong",
     [] {
       say(kOpClientArrays, draw(kOpDrawArrays, 3), vertices(kVertices));
       draw_elements(2);
       say(kOpTexImage2D, image(2, 16), std::string(16, 'p'));
     }},
    {"offset-beyond-the-data",
     [] { say(kOpClientArrays, draw(kOpDrawArrays, 3), vertices(uint64_t{1} << 32)); }},
    {"index-beyond-the-array", [] { draw_elements(0x7fffffff); }},
    {"huge-count", [] { say(kOpClientArrays, draw(kOpDrawArrays, 0x7fffffff), vertices(kVertices)); }},
    {"negative-size", [] { say(kOpClientArrays, draw(kOpDrawArrays, 3), vertices(kVertices, -1 << 30)); }},
    {"rows-beyond-the-pixels", [] { say(kOpTexImage2D, image(4096, 16), std::string(16, 'p')); }},
    {"an-address-for-an-offset",
     [] {
       PTexImage2D p = image(64, kOffset);
       p.pixels = 0x1000;
       say(kOpTexImage2D, p);
     }},
    {"room-of-an-answer",
     [] {
       ReadPixelsRequest p = {};
       p.width = p.height = 64;
       p.format = GL_RGBA;
       p.type = GL_FLOAT;
       p.to_buffer = 1;
       p.offset = 0x1000;
       say(kOpReadPixels, p);
     }},
    {"texts-beyond-the-packet",
     [] {
       PTransformFeedbackVaryings p = {};
       p.count = 0x7fffffff;
       p.varyings_bytes = 1 << 20;
       say(kOpTransformFeedbackVaryings, p, std::string(16, 'x'));
     }},
    {"list-beyond-its-buffer",
     [] {
       say(kOpBindBuffer, PBindBuffer{{}, GL_ARRAY_BUFFER, 1});
       PBufferData data = {};
       data.target = GL_ARRAY_BUFFER;
       data.size = data.data_bytes = 64;
       data.usage = GL_STATIC_DRAW;
       say(kOpBufferData, data, std::string(64, '\0'));
       PVertexPointer pointer = {};
       pointer.size = 4;
       pointer.type = GL_FLOAT;
       pointer.pointer_bytes = kOffset;
       say(kOpVertexPointer, pointer);
       say(kOpNewList, PNewList{{}, 1, GL_COMPILE});
       say(kOpDrawArrays, PDrawArrays{{}, GL_TRIANGLES, 100000000, 3});
     }},
    {"cut-off-ring",
     [] {
       // The renderer has it mapped once it has taken what is there.
       publish();
       while (ring->reader[kRenderer].tail.load() != at) usleep(10'000);
       say(kOpFlush, PFlush{});
       publish();
       if (ftruncate(file, kHeaderSize) < 0) die("cut off");
       for (int i = 0; i < 100; ++i) {
         at += sizeof(Packet);
         publish();
         usleep(10'000);
       }
       pause();
     }},
    {"unknown-call", [] { say(kOpGlEnd + 7, Packet{}); }},
    {"truncated-call", [] { say(kOpTexImage2D, Packet{}); }},
};

}  // namespace

int main(int argc, char** argv) {
  const auto found = argc == 2 ? kCases.find(argv[1]) : kCases.end();
  if (found == kCases.end()) {
    for (const auto& [name, run] : kCases) puts(name.c_str());
    return 0;
  }
  connect_ring();
  prepare();
  found->second();
  publish();
  // Whether all of it was taken.
  while (ring->reader[kRenderer].tail.load() != at) usleep(10'000);
  puts("done");
  fflush(stdout);
  (void)!getchar();
}
