// The renderer holds the driver: it does what a program has recorded. One thread for each ring.
#pragma once

#include <GL/gl.h>
#include <GL/glext.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "generated/functions.h"
#include "reader/ring_reader.h"
#include "wire/names.h"
#include "wire/packet.h"
#include "wire/ring.h"

namespace stasis::gl {

using Decode = void (*)(Renderer&, const Packet&);
extern const Decode kDecoders[];
extern const char* const kCommandNames[];

// What follows the fixed part of a packet.
class Payload {
 public:
  Payload(const Packet& header, size_t fixed)
      : at_(reinterpret_cast<const char*>(&header) + ((fixed + 7) & ~size_t{7})),
        end_(reinterpret_cast<const char*>(&header) + header.size),
        start_(at_) {}
  const void* bytes(uint32_t size) {
    if (size == kNull || size == kOffset) return nullptr;
    if (at_ > end_ || size > static_cast<size_t>(end_ - at_))
      throw BadStream{"a payload is larger than its packet"};
    const char* found = at_;
    at_ += (size_t{size} + 7) & ~size_t{7};
    return found;
  }
  template <typename T>
  const T* array(size_t size) {
    return static_cast<const T*>(bytes(static_cast<uint32_t>(size)));
  }
  template <typename T>
  const T* again(uint32_t size) {
    at_ = start_;
    return array<T>(size);
  }
  static void require(bool fits) {
    if (!fits) throw BadStream{"a count is larger than what is there"};
  }

 private:
  const char *at_, *end_, *start_;
};

// The program's names, and the driver's.
class Names {
 public:
  using Generate = GLuint (*)(const Functions&);
  void add(GLuint name, GLuint real);
  // `create`: the call makes an object of a name that nobody knows yet.
  GLuint find(GLuint name, bool create);
  std::vector<GLuint> find_all(const GLuint* names, uint32_t bytes);
  void remove_all(const GLuint* names, uint32_t bytes);
  GLuint name_of(GLuint real) const;

  Generate generate = nullptr;
  const Functions* gl = nullptr;
  bool may_create = true;

 private:
  std::vector<GLuint> small_;  // 0: not there
  std::unordered_map<GLuint, GLuint> large_;
};

struct Share {
  Share(const Functions& gl, bool compatible);
  std::mutex mutex;
  Names names[kNameTypes];
  std::map<uint64_t, GLsync> syncs;
  // Of queries that have ended in another driver, by the program's names.
  std::map<GLuint, GLuint64> results;
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
};

constexpr size_t kAnyOutput = ~size_t{0};

struct SyncNames {
  RenderContext*& context;
  GLsync find(uint64_t number) const;
};

struct Renderer {
  explicit Renderer(Ring* shared);
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
  RenderContext* current = nullptr;
  bool is_replaying = false;
  SyncNames syncs{current};
  std::string answers;  // to questions for contents

 private:
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
