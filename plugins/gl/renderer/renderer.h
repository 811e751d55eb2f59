// The renderer holds the driver: it does what a program has recorded. One thread for each ring.
#pragma once

#include <GL/gl.h>
#include <GL/glext.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "generated/functions.h"
#include "reader/ring_reader.h"
#include "renderer/arrays.h"
#include "renderer/bounds.h"
#include "wire/names.h"
#include "wire/packet.h"
#include "wire/ring.h"

namespace stasis::gl {

using Decode = void (*)(Renderer&, const Packet&);
extern const Decode kDecoders[];
extern const char* const kCommandNames[];

// A negative count is the driver's to refuse: it reads nothing.
constexpr size_t count_in(int64_t count) { return count > 0 ? static_cast<size_t>(count) : 0; }

// What follows the fixed part of a packet. Nothing of it is handed on that is shorter than what will be read.
class Payload {
 public:
  Payload(const Packet& header, size_t fixed)
      : at_(reinterpret_cast<const char*>(&header)), left_(header.size) {
    skip(fixed);
  }
  // Null where the program passed null and the driver reads nothing.
  const void* bytes(uint32_t size, size_t needed) {
    if (size == kOffset) throw BadStream{"an offset where there can be no buffer"};
    if (size == kNull) {
      if (needed != 0) throw BadStream{"a null pointer where " + std::to_string(needed) + " bytes are read"};
      return nullptr;
    }
    require(size, needed);
    return take(size);
  }
  template <typename T>
  const T* array(uint32_t size, size_t needed) {
    return static_cast<const T*>(bytes(size, needed));
  }
  // So many elements, whose size no field tells.
  template <typename T>
  const T* there(size_t count) {
    return static_cast<const T*>(take(count * sizeof(T)));
  }
  // With its end; an empty one where the program passed null.
  const char* text(uint32_t size) {
    if (size == kNull) return "";
    const auto* found = array<char>(size, 1);
    if (found[size - 1] != '\0') throw BadStream{"a text without an end"};
    return found;
  }
  static void require(size_t there, size_t needed) {
    if (there < needed)
      throw BadStream{std::to_string(there) + " bytes where " + std::to_string(needed) + " are read"};
  }

 private:
  static size_t padded(size_t size) { return (size + 7) & ~size_t{7}; }
  const void* take(size_t size) {
    if (size > left_)
      throw BadStream{"a payload of " + std::to_string(size) + " bytes in a packet that has " +
                      std::to_string(left_) + " more"};
    const char* found = at_;
    skip(size);
    return found;
  }
  void skip(size_t size) {
    const size_t all = std::min(padded(size), left_);
    at_ += all;
    left_ -= all;
  }

  const char* at_;
  size_t left_;
};

// The program's names, and the driver's. Contexts of several threads may share them.
class Names {
 public:
  using Generate = GLuint (*)(const Functions&);
  void add(GLuint name, GLuint real);
  // `create`: the call makes an object of a name that nobody knows yet.
  GLuint find(GLuint name, bool create);
  // At least one.
  std::vector<GLuint> find_all(const GLuint* names, uint32_t bytes);
  void remove_all(const GLuint* names, uint32_t bytes);
  GLuint name_of(GLuint real) const;

  Generate generate = nullptr;
  const Functions* gl = nullptr;
  bool may_create = true;

 private:
  void put(GLuint name, GLuint real);

  mutable std::mutex mutex_;
  std::vector<GLuint> small_;  // 0: not there
  std::unordered_map<GLuint, GLuint> large_;
};
// What Names finds for a name that there is not: the driver does not know it either.
constexpr GLuint kNoName = 0xfffffff0U;

struct Share {
  Share(const Functions& gl, bool compatible);
  std::mutex mutex;
  Names names[kNameTypes];
  std::map<uint64_t, GLsync> syncs;
  // Of queries that have ended in another driver, by the program's names.
  std::map<GLuint, GLuint64> results;
  std::optional<GLuint64> result_of(GLuint name);
  // How often a buffer was made anew, and so maybe smaller.
  std::atomic<uint64_t> buffer_changes = 0;
};

struct RenderContext {
  uint32_t number = 0;
  int screen = 0;
  uint32_t config = 0;
  void* handle = nullptr;       // GLXContext, or EGLContext
  void* egl_display = nullptr;  // EGLDisplay; null: it is one of GLX
  bool is_es = false;
  std::shared_ptr<Share> share;
  std::map<GLenum, GLint> pixel_store = {{GL_PACK_ALIGNMENT, 4}, {GL_UNPACK_ALIGNMENT, 4}};  // the program's
  enum Unpacking { kUnknown, kDense, kProgram } unpacking = kUnknown, packing = kUnknown;
  uint16_t unpack_flags = 0;
  GLenum pending_error = 0;  // of the program, which has not asked for it yet
  std::vector<GLfloat> feedback;
  std::vector<GLuint> selection;
  VertexArrays arrays;
  bool uses_pixel_buffers = false;              // one was bound some time
  std::atomic<const Renderer*> user = nullptr;  // whose thread has it
};

constexpr size_t kAnyOutput = ~size_t{0};

struct SyncNames {
  const std::shared_ptr<RenderContext>& context;
  GLsync find(uint64_t number) const;
};

struct Renderer {
  explicit Renderer(Ring* shared);
  ~Renderer() { set_current(nullptr); }
  Renderer(const Renderer&) = delete;
  Renderer& operator=(const Renderer&) = delete;
  // `between` is called between two packets, but not within a primitive or a list; it may wait.
  void run(const std::function<void(Renderer&, uint64_t position)>& between);
  // Another thread may have the context for a while.
  void release_context();
  void take_context();
  // After a restart: the packets give the thread its context, and everything before `position` is in the log
  // that has been replayed. What comes after it is done again.
  void go_on(const std::string& packets, uint64_t position);

  static Functions gl;
  Names& names(NameType type) { return current->share->names[type]; }

  void execute(const Packet& packet);
  // False: a context is current in one thread at most, and another one has it.
  bool claim(RenderContext& context) const;
  void set_current(std::shared_ptr<RenderContext> context);

  // Where a call reads from, and as much as it reads: in the packet, or in the bound pixel unpack buffer.
  // False: it has been answered by an error of OpenGL.
  // Throws where a pixel buffer is bound: an address would be an offset into it.
  void require_no_buffer(GLenum binding) const;
  bool find_source(Payload& payload, Source source, size_t needed, bool may_be_null,
                   const void*& found) const;
  // The same for an image; the driver's pixel store is made to fit.
  bool find_pixels(const Packet& header, Payload& payload, Source source, const ImageSize& image,
                   const void*& found);
  void use_unpacking(bool of_program, uint16_t flags);
  void use_packing(bool of_program, uint16_t flags);
  void frame_shown();

  // Answers. A question is asked twice with different memory: what is the same both times has been written.
  void answer_result(const Packet& header, uint64_t result);
  void answer_outputs(const Packet& header, std::initializer_list<size_t> sizes,
                      const std::function<uint64_t(void* const*)>& call);
  void answer_bytes(const Packet& header, const void* bytes, size_t size);
  // For answers that are written in place. What nobody waits for goes elsewhere: the program may not have
  // taken its last answer yet.
  char* answer_room(size_t size);
  void send_answer(const Packet& header, size_t size);
  // Somebody waits for its answer. Not so when it is done again after a restart.
  bool is_open_question(const Packet& header) const;

  Ring* ring;
  char* reply;
  std::shared_ptr<RenderContext> current;
  bool is_replaying = false;
  bool is_reading = false;  // what only the driver knows
  SyncNames syncs{current};
  std::string answers;  // to questions for contents

 private:
  void execute_named(const Packet& packet);
  void control(const Packet& packet);

  bool ended_ = false;
  uint64_t end_of_packet_ = 0;
  std::vector<char> no_answer_;
  std::string make_current_;  // the last such packet that succeeded
};

void draw_client(Renderer& r, const Packet& packet);
// Makes the driver report it.
void raise_error(GLenum error);
// The window systems; false: not one of their operations.
bool execute_glx(Renderer& r, const Packet& packet);
bool execute_egl(Renderer& r, const Packet& packet);
// The thread is left without a context.
void release_current(Renderer& r);
void release_egl(Renderer& r);
void release_glx(Renderer& r);

// The X server (Display*), null when there is none.
void* open_display();
void load_functions();

// What follows the fixed part of a packet, and two zeros.
std::vector<int> attributes_of(const Packet& packet, size_t fixed, uint32_t count);

struct ContextKind {
  bool is_es;
  bool may_create;  // names that were not generated
};
ContextKind kind_of_context(const std::vector<int>& attributes);
// 0, 0: there is none.
std::pair<GLint, GLint> surface_size(uint64_t number);
std::pair<GLint, GLint> egl_surface_size(uint64_t number);

}  // namespace stasis::gl
