// What the encoder has to know of a context, so that it can tell the size of what a call points to and
// answer what needs no driver.
#pragma once

#include <GL/gl.h>
#include <GL/glext.h>

#include <atomic>

#include "encoder/stream.h"
#include "wire/names.h"
#include "wire/sizes.h"

namespace stasis::gl {

// Numbers to small records; never shrinks.
template <typename T>
class Table {
 public:
  T* find(uint32_t key) {
    for (Node* node = buckets_[key % kBuckets]; node != nullptr; node = node->next) {
      if (node->key == key) return &node->value;
    }
    return nullptr;
  }
  T& at(uint32_t key) {
    if (T* found = find(key)) return *found;
    auto* node = static_cast<Node*>(calloc_node());
    node->key = key;
    node->next = buckets_[key % kBuckets];
    buckets_[key % kBuckets] = node;
    return node->value;
  }
  void remove(uint32_t key) {
    if (T* found = find(key)) *found = T{};
  }

 private:
  struct Node {
    uint32_t key;
    T value;
    Node* next;
  };
  static void* calloc_node();
  static constexpr uint32_t kBuckets = 256;
  Node* buckets_[kBuckets];
};
void* zeroed(size_t bytes);
template <typename T>
void* Table<T>::calloc_node() {
  return zeroed(sizeof(Node));
}

struct BufferInfo {
  uint64_t size;
  char* mapped;  // the shadow that the program writes into
  char* memory;  // what it is a part of
  uint64_t offset, length;
  uint32_t access;
};

// What contexts that share objects share.
struct Share {
  std::atomic<uint32_t> users;
  std::atomic<uint32_t> next_name[kNameTypes];
  std::atomic<uint64_t> next_sync;
  Table<BufferInfo> buffers;
  // How often a list multiplies a matrix, and the most that any does.
  Table<uint32_t> list_multiplies;
  uint32_t most_multiplies;
};

struct Array {
  uint32_t buffer;
  uint32_t type;
  int32_t size, stride;
  int32_t given_stride;  // 0: without gaps
  const char* pointer;
  const char* told_pointer;  // the same, also when its buffer is deleted: nothing is at this address then
  uint32_t divisor;
  uint8_t flags;
  bool enabled;
  bool operator==(const Array&) const = default;
};

struct VertexArrays {
  Array array[kArrays];
  uint32_t element_buffer;
  uint32_t client_mask;  // enabled, and in the program's memory
  bool exists;           // of a name: bound once, and not deleted since
};

struct PixelStore {
  int32_t swap, lsb_first, row_length, image_height, skip_rows, skip_pixels, skip_images, alignment;
};

struct ClientAttributes {
  bool pixels, arrays;
  PixelStore pack, unpack;
  uint32_t pack_buffer, unpack_buffer;
  VertexArrays vertices;
  uint32_t vertex_array;  // whose they are
  bool restarts;
  uint32_t restart_index;
  uint32_t array_buffer, client_texture;
};

// How often each matrix of a stack was multiplied since it was loaded (encoder/matrices.h).
struct MatrixStack {
  static constexpr uint32_t kLevels = 32;
  uint32_t depth;
  uint32_t multiplied[kLevels];
};
struct Matrices {
  static constexpr uint32_t kUnits = 32, kOfPrograms = 32, kSaved = 16;
  struct Current {
    uint32_t mode;  // 0: GL_MODELVIEW
    uint32_t unit;
  } current;
  MatrixStack modelview, projection, texture[kUnits], of_programs[kOfPrograms];
  struct {
    uint32_t mask;
    Current current;
  } saved[kSaved];
  uint32_t saved_count;
  uint32_t in_list;  // multiplications of the list that is being made
};

enum BufferTarget {
  kArrayTarget,
  kPixelPackTarget,
  kPixelUnpackTarget,
  kCopyReadTarget,
  kCopyWriteTarget,
  kUniformTarget,
  kTransformFeedbackTarget,
  kTextureBufferTarget,
  kDrawIndirectTarget,
  kBufferTargets
};

struct Text {
  uint32_t name;
  char* text;
};

struct Context {
  uint32_t number;
  Share* share;
  Stream* user;       // the thread that has it
  bool in_primitive;  // between glBegin and glEnd
  GLenum list_mode;   // of the list that is being made
  uint32_t list;
  bool restarts, restarts_fixed;  // primitives, at an index
  uint32_t restart_index;
  bool is_core, is_es, may_be_core;
  void* display;
  uint32_t config_id;
  int32_t screen, render_type;
  uint64_t draw, read;

  PixelStore pack, unpack;
  uint32_t bound[kBufferTargets];
  uint32_t client_texture;
  VertexArrays* vertices;
  VertexArrays default_vertices;
  uint32_t vertex_array;
  Table<VertexArrays> vertex_arrays;
  bool locked;
  ClientAttributes* saved[16];
  int saved_count;

  Text texts[16];
  char** extensions;
  int extension_count;
  struct {
    uint32_t name;
    int32_t value;
    bool known;
  } limits[256];
  Matrices matrices;
  void* feedback;
  void* selection;
  uint32_t render_mode;
  size_t feedback_size, selection_size;
};

inline Context& context_of(Stream& s) { return *s.context; }

uint32_t new_names(Stream& s, NameType type, uint32_t count);
// A name that the program has chosen by itself must not be chosen by us afterwards.
inline void note_name(Stream& s, NameType type, uint32_t name) {
  auto& next = context_of(s).share->next_name[type];
  if (__builtin_expect(name >= next.load(std::memory_order_relaxed), 0)) {
    uint32_t seen = next.load();
    while (name >= seen && !next.compare_exchange_weak(seen, name + 1)) {
    }
  }
}

inline size_t bytes_of(size_t count, size_t element) {
  // A negative count is an error that the driver will find.
  return count > (size_t{1} << 31) ? 0 : count * element;
}
inline size_t length_with_end(const char* text) { return strlen(text) + 1; }

struct Exported {
  const char* name;
  void* function;
};
extern const Exported kExported[];
extern const size_t kExportedCount;
extern const char* const kExtensions[];
extern const size_t kExtensionCount;
void* find_exported(const char* name);
// Where the value of that name is; null: it is none of the pixel store.
int32_t* pixel_store(Context& c, uint32_t name);
// The values of one element of all arrays that are in memory.
void send_element(const VertexArrays& arrays, GLint index);
// An error that is found on this side is the driver's to report.
void raise(Stream& s, GLenum error);

const char* context_text(Stream& s, uint32_t name);

}  // namespace stasis::gl
