// What is in a ring: packets, one a call. Everything is in the byte order and the sizes of x86-64.
#pragma once

#include <cstddef>
#include <cstdint>

namespace stasis::gl {

struct Packet {
  uint32_t size;  // with this header, a multiple of 8
  uint16_t op;
  uint16_t flags;
};

enum PacketFlags : uint16_t {
  kWantsReply = 1,
  kSwapBytes = 2,  // of the pixels in this packet
  kLsbFirst = 4,   // of the bitmap in this packet
};

// In the place of a payload's size.
constexpr uint32_t kNull = 0xffffffff;  // the program passed a null pointer
constexpr uint32_t kOffset =
    0xfffffffe;  // an offset into the bound buffer, in the field of the pointer's name

// Operations of the window system and of the stream itself; those of OpenGL are generated and start above.
enum ControlOp : uint16_t {
  kOpNothing = 0,
  kOpPiece,         // a part of a packet that is larger than kLargestPacket
  kOpClientArrays,  // arrays of the program's memory come first in the packet, see ClientArray
  kOpClientElements,
  kOpClientElement,  // glArrayElement
  kOpGetConfigs,
  kOpChooseConfigs,
  kOpGetVisualConfig,
  kOpChooseVisual,
  kOpCreateContext,
  kOpDestroyContext,
  kOpMakeCurrent,
  kOpCreateSurface,
  kOpDestroySurface,
  kOpQuerySurface,
  kOpSwapBuffers,
  kOpSwapInterval,
  kOpEndOfThread,
  kOpContents,  // what only the driver knows, see Contents
  kOpRaise,     // SurfaceCall, `value`: an error that the program's side has found
  kOpFirstGl = 64,
};

struct Piece {
  Packet header;
  uint32_t total;  // bytes of the whole packet
  uint32_t at;     // where these bytes belong
};                 // then the bytes

// --- Window system. All structures are followed by what their comments say.

struct ChooseConfigs {
  Packet header;
  int32_t screen;
  uint32_t attributes;  // int32_t each, the terminating 0 not counted
};

struct GetVisualConfig {
  Packet header;
  int32_t screen;
  uint32_t visual;
  int32_t attribute;
};
struct VisualConfig {
  int32_t error;
  int32_t value;
};

constexpr size_t kConfigAttributes = 40;
struct Config {
  uint32_t id;
  uint32_t visual;
  int32_t count;
  struct {
    int32_t name, value;
  } attributes[kConfigAttributes];
};

struct CreateContext {
  Packet header;
  uint32_t context;  // number chosen by the program's side; 0 is none
  uint32_t share;    // number of another context
  uint32_t config;   // GLX_FBCONFIG_ID, or
  uint32_t visual;   // a visual
  int32_t screen;
  int32_t render_type;
  int32_t direct;
  uint32_t attributes;  // pairs of int32_t, for glXCreateContextAttribsARB; 0xffffffff: not that call
};                      // and then the Config

struct MakeCurrent {
  Packet header;
  uint32_t context;
  uint32_t pad;
  uint64_t draw, read;  // X identifiers, or numbers of surfaces made here
};

enum SurfaceKind : uint32_t { kWindow, kPbuffer, kPixmap, kGlxPixmapOfVisual };
struct CreateSurface {
  Packet header;
  uint32_t kind;
  uint32_t config;    // or the visual for kGlxPixmapOfVisual
  uint64_t surface;   // number chosen by the program's side
  uint64_t drawable;  // of X
  int32_t screen;
  uint32_t attributes;  // int32_t each
};

struct SurfaceCall {
  Packet header;
  uint64_t surface;
  int32_t value;
  int32_t more;
};

// --- What the driver has drawn, or copied, somewhere: no call tells it, so it is read back, and written
// again into another driver. The keeper asks for it with a packet without bytes; the answer is one packet for
// each level that there is, or one of width 0.

enum ContentsOf : uint32_t { kOfTexture, kOfRenderbuffer, kOfBuffer, kOfSurface, kOfQuery };
constexpr int32_t kAllLevels = -1;
struct Contents {
  Packet header;
  uint32_t of;
  uint32_t name;     // of the texture, renderbuffer, buffer or query, whose bytes are its result, a uint64_t
  uint64_t surface;  // or of what windows and pbuffers are made of
  uint32_t target;   // the binding point of a texture; of a surface GL_COLOR, GL_DEPTH_STENCIL or GL_ACCUM
  uint32_t face;     // the image of a texture: the same, or a side of a cube
  int32_t level;
  uint32_t internal_format;
  uint32_t format, type;  // of the pixels here; compressed ones have type 0
  int32_t width, height, depth;
  uint32_t bytes;  // that follow; kNull: please
};

// --- Draws from arrays in the memory of the program. `arrays` descriptions follow, then their bytes, each
// at a multiple of 16, then the indices, if they are in memory, too.

struct DrawClient {
  Packet header;
  uint32_t command;  // the operation of the call that the program made
  uint32_t arrays;
  uint32_t mode;
  int32_t first;  // of the vertices that are in the packet
  uint32_t count;
  uint32_t index_type;
  uint32_t index_bytes;  // kOffset: indices are in the element buffer
  uint32_t start, end;   // of glDrawRangeElements
  int32_t base_vertex;
  uint32_t instances;
  uint32_t array_buffer;    // bound by the program meanwhile
  uint32_t client_texture;  // the same
  uint64_t index_offset;    // from the start of the packet, or of the element buffer
};

enum ArrayKind : uint8_t {
  kVertexArray,
  kNormalArray,
  kColorArray,
  kSecondaryColorArray,
  kFogCoordArray,
  kIndexArray,
  kEdgeFlagArray,
  kTexCoordArray,
  kGenericArray = kTexCoordArray + 8,
  kArrays = kGenericArray + 16,
};
enum ArrayFlags : uint8_t { kNormalized = 1, kInteger = 2 };

struct ClientArray {
  uint8_t kind;  // with the texture unit or the attribute added
  uint8_t size;
  uint8_t flags;
  uint8_t pad;
  uint32_t type;
  int32_t stride;
  uint32_t divisor;
  uint64_t offset;  // of vertex 0 from the start of the packet; "negative" where `first` is large
};

}  // namespace stasis::gl
