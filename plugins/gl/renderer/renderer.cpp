#include "renderer/renderer.h"

#include <cstdio>
#include <cstring>
#include <iterator>

#include "generated/commands.h"
#include "reader/ring_file.h"
#include "renderer/contents.h"

namespace stasis::gl {

Functions Renderer::gl;

// --- Names

void Names::add(GLuint name, GLuint real) {
  std::lock_guard lock(mutex_);
  put(name, real);
}

void Names::put(GLuint name, GLuint real) {
  constexpr GLuint kSmall = 1 << 16;
  if (name >= kSmall) {
    large_[name] = real;
    return;
  }
  if (name >= small_.size()) small_.resize(name + 64);
  small_[name] = real;
}

GLuint Names::find(GLuint name, bool create) {
  if (name == 0) return 0;
  std::lock_guard lock(mutex_);
  if (name < small_.size() && small_[name] != 0) return small_[name];
  auto found = large_.find(name);
  if (found != large_.end()) return found->second;
  if (!create || !may_create || generate == nullptr) return kNoName;
  GLuint real = generate(*gl);
  put(name, real);
  return real;
}

std::vector<GLuint> Names::find_all(const GLuint* names, uint32_t bytes) {
  std::vector<GLuint> real;
  for (size_t i = 0; names != nullptr && i < bytes / sizeof(GLuint); ++i)
    real.push_back(find(names[i], false));
  if (real.empty()) real.push_back(0);
  return real;
}

void Names::remove_all(const GLuint* names, uint32_t bytes) {
  std::lock_guard lock(mutex_);
  for (size_t i = 0; names != nullptr && i < bytes / sizeof(GLuint); ++i) {
    if (names[i] < small_.size()) small_[names[i]] = 0;
    large_.erase(names[i]);
  }
}

GLuint Names::name_of(GLuint real) const {
  if (real == 0) return 0;
  std::lock_guard lock(mutex_);
  if (real < small_.size() && small_[real] == real) return real;
  for (GLuint i = 0; i < small_.size(); ++i) {
    if (small_[i] == real) return i;
  }
  for (const auto& [name, other] : large_) {
    if (other == real) return name;
  }
  return 0;
}

Share::Share(const Functions& gl, bool compatible) {
  for (Names& one : names) {
    one.gl = &gl;
    one.may_create = compatible;
  }
  names[kTexture].generate = [](const Functions& f) {
    GLuint n = 0;
    f.GenTextures(1, &n);
    return n;
  };
  names[kBuffer].generate = [](const Functions& f) {
    GLuint n = 0;
    f.GenBuffers(1, &n);
    return n;
  };
  names[kFramebuffer].generate = [](const Functions& f) {
    GLuint n = 0;
    f.GenFramebuffers(1, &n);
    return n;
  };
  names[kRenderbuffer].generate = [](const Functions& f) {
    GLuint n = 0;
    f.GenRenderbuffers(1, &n);
    return n;
  };
  names[kArbProgram].generate = [](const Functions& f) {
    GLuint n = 0;
    f.GenProgramsARB(1, &n);
    return n;
  };
  names[kQuery].generate = [](const Functions& f) {
    GLuint n = 0;
    f.GenQueries(1, &n);
    return n;
  };
}

std::optional<GLuint64> Share::result_of(GLuint name) {
  std::lock_guard lock(mutex);
  const auto found = results.find(name);
  return found == results.end() ? std::optional<GLuint64>() : found->second;
}

GLsync SyncNames::find(uint64_t number) const {
  std::lock_guard lock(context->share->mutex);
  auto found = context->share->syncs.find(number);
  return found == context->share->syncs.end() ? nullptr : found->second;
}

// --- Reading

Renderer::Renderer(Ring* shared) : ring(shared), reply(reinterpret_cast<char*>(shared) + kHeaderSize) {}

void Renderer::run(const std::function<void(Renderer&, uint64_t)>& between) {
  RingReader reader(ring, kRenderer);
  bool is_inside = false;
  reader.run(
      [&](const Packet& packet) {
        end_of_packet_ = reader.end_of_packet();
        execute(packet);
        if (packet.op == kOpBegin || packet.op == kOpNewList) is_inside = true;
        if (packet.op == kOpEnd || packet.op == kOpEndList) is_inside = false;
        if (!is_inside) between(*this, end_of_packet_);
        return !ended_;
      },
      [&] {
        if (!is_inside) between(*this, reader.end_of_packet());
      });
}

void Renderer::release_context() { release_current(*this); }

void Renderer::take_context() {
  const std::string packet = make_current_;  // which executing it writes anew
  if (!packet.empty()) execute(*reinterpret_cast<const Packet*>(packet.data()));
}

void Renderer::go_on(const std::string& packets, uint64_t position) {
  size_t done = 0;
  for_each_packet(packets, [&](const Packet& packet) {
    done += packet.size;
    // The last one may be a question that waits for its answer.
    end_of_packet_ = done == packets.size() ? position : 0;
    execute(packet);
  });
  // The log is written a moment after the program's memory was saved, with the ring in it, and meanwhile the
  // question may have been answered. What counts is whether the program waits.
  const bool is_open = ring->questions.load() != ring->reply_number.load();
  if (is_open) position = std::min(position, ring->last_question.load());
  RingReader(ring, kRenderer).skip_to(position);
  ring->frames_shown.store(ring->frames.load());
  ring->progress.fetch_add(1);
  wake_all(&ring->progress);
}

void Renderer::frame_shown() {
  // One that is drawn again after a restart has been counted.
  if (ring->frames_shown.load() != ring->frames.load()) ring->frames_shown.fetch_add(1);
  wake_writer(*ring);
}

namespace {

std::string name_of(uint32_t op) {
  static constexpr const char* kControl[] = {"nothing",
                                             "a piece",
                                             "a draw of arrays",
                                             "a draw of elements",
                                             "glArrayElement",
                                             "configurations",
                                             "a choice of configurations",
                                             "a visual",
                                             "a choice of a visual",
                                             "a new context",
                                             "the end of a context",
                                             "making a context current",
                                             "a new surface",
                                             "the end of a surface",
                                             "a question for a surface",
                                             "exchanging buffers",
                                             "a swap interval",
                                             "the end of a thread",
                                             "contents",
                                             "an error"};
  static_assert(std::size(kControl) == kOpRaise + 1);
  if (op >= kOpFirstGl && op < kOpGlEnd) return kCommandNames[op - kOpFirstGl];
  return op < std::size(kControl) ? kControl[op] : "operation " + std::to_string(op);
}

// The call that the program made, where the packet is for several of them.
uint32_t call_of(const Packet& packet) {
  const bool is_draw = packet.op == kOpClientArrays || packet.op == kOpClientElements;
  if (!is_draw || packet.size < sizeof(DrawClient)) return packet.op;
  return reinterpret_cast<const DrawClient&>(packet).command;
}

}  // namespace

// What is wrong is told with the call that it is wrong with.
void Renderer::execute(const Packet& packet) {
  try {
    execute_named(packet);
  } catch (const BadStream& bad) {
    throw BadStream{name_of(call_of(packet)) + ": " + bad.what};
  }
}

void Renderer::execute_named(const Packet& packet) {
  const uint16_t op = packet.op;
  if (op >= kOpFirstGl) {
    if (op >= kOpGlEnd || kDecoders[op - kOpFirstGl] == nullptr)
      throw BadStream{"it is none that is recorded"};
    if (current != nullptr) return kDecoders[op - kOpFirstGl](*this, packet);
    if ((packet.flags & kWantsReply) != 0) answer_result(packet, 0);
    return;
  }
  control(packet);
}

// By calls that have no other effect, and that never go into a display list.
void raise_error(GLenum error) {
  const Functions& gl = Renderer::gl;
  GLint depth = 0;
  switch (error) {
    case GL_INVALID_ENUM:
      (void)gl.IsEnabled(0xffffffff);
      return;
    case GL_INVALID_VALUE:
      gl.GenTextures(-1, nullptr);
      return;
    case GL_INVALID_OPERATION:
      (void)gl.UnmapBuffer(GL_ARRAY_BUFFER);  // nothing stays mapped here
      return;
    case GL_STACK_OVERFLOW:  // the stack of client state is always empty here
      gl.GetIntegerv(GL_MAX_CLIENT_ATTRIB_STACK_DEPTH, &depth);
      for (GLint i = 0; i <= depth; ++i) gl.PushClientAttrib(0);
      for (GLint i = 0; i < depth; ++i) gl.PopClientAttrib();
      return;
    case GL_STACK_UNDERFLOW:
      gl.PopClientAttrib();
      return;
  }
}

void Renderer::control(const Packet& packet) {
  switch (packet.op) {
    case kOpNothing:
      return;
    case kOpEndOfThread:
      release_current(*this);
      ended_ = true;
      return;
    case kOpRaise:
      if (current != nullptr) raise_error(static_cast<GLenum>(view<SurfaceCall>(packet).value));
      return;
    case kOpClientArrays:
    case kOpClientElements:
    case kOpClientElement:
      if (current != nullptr) draw_client(*this, packet);
      return;
    case kOpContents: {
      // They come from the keeper, never from the program.
      const auto& contents = view<Contents>(packet);
      if (!is_reading && !is_replaying) throw BadStream{"they are not for a ring"};
      if (contents.bytes == kNull && is_reading) return read_contents(*this, contents, answers);
      return write_contents(*this, contents);
    }
    case kOpMakeCurrent:
      make_current_.assign(reinterpret_cast<const char*>(&packet), packet.size);
      reinterpret_cast<Packet*>(make_current_.data())->flags = 0;
      break;
  }
  const std::shared_ptr<RenderContext> before = current;
  if (!execute_egl(*this, packet) && !execute_glx(*this, packet))
    throw BadStream{"it is none of a window system"};
  if (current != nullptr && current != before) {
    const auto* name = reinterpret_cast<const char*>(gl.GetString(GL_RENDERER));
    std::snprintf(ring->driver, sizeof ring->driver, "%s", name != nullptr ? name : "");
  }
}

void release_current(Renderer& r) {
  if (r.current == nullptr) return;
  // Errors that a replay makes again the program has seen. (Within a primitive, which OpenGL ES has not,
  // there is no asking.)
  constexpr int kMost = 16;
  const bool clears = r.is_replaying && r.current->is_es;
  for (int i = 0; clears && i < kMost && Renderer::gl.GetError() != GL_NO_ERROR;) ++i;
  r.current->egl_display != nullptr ? release_egl(r) : release_glx(r);
}

bool Renderer::claim(RenderContext& context) const {
  const Renderer* nobody = nullptr;
  return context.user.compare_exchange_strong(nobody, this) || nobody == this;
}

void Renderer::set_current(std::shared_ptr<RenderContext> context) {
  if (current != nullptr && current != context) current->user = nullptr;
  current = std::move(context);
}

// --- Answers

char* Renderer::answer_room(size_t size) {
  if (size > kReplySize - 64) throw BadStream{"an answer is too large"};
  if (ring->questions.load() != ring->reply_number.load() && end_of_packet_ > ring->last_question.load())
    return reply;
  if (no_answer_.size() < size) no_answer_.resize(size);
  return no_answer_.data();
}

bool Renderer::is_open_question(const Packet& header) const {
  // At most one question is open, and it is the last. Those before it are asked again after a restart, but
  // nobody waits for them.
  return (header.flags & kWantsReply) != 0 && ring->questions.load() != ring->reply_number.load() &&
         end_of_packet_ > ring->last_question.load();
}

void Renderer::send_answer(const Packet& header, size_t size) {
  if (!is_open_question(header)) return;
  ring->reply_size = static_cast<uint32_t>(size);
  ring->reply_number.fetch_add(1, std::memory_order_release);
  wake_all(&ring->reply_number);
}

void Renderer::answer_result(const Packet& header, uint64_t result) {
  std::memcpy(answer_room(sizeof result), &result, sizeof result);
  send_answer(header, sizeof result);
}

void Renderer::answer_bytes(const Packet& header, const void* bytes, size_t size) {
  char* room = answer_room(16 + size);
  const uint64_t result = 0, length = size;
  std::memcpy(room, &result, 8);
  std::memcpy(room + 8, &length, 8);
  if (bytes != room + 16 && size != 0) std::memcpy(room + 16, bytes, size);
  send_answer(header, 16 + size);
}

void Renderer::answer_outputs(const Packet& header, std::initializer_list<size_t> sizes,
                              const std::function<uint64_t(void* const*)>& call) {
  constexpr size_t kEnough = 16384, kMost = kReplySize / 2;
  std::vector<std::vector<char>> first, second;
  std::vector<void*> first_at, second_at;
  for (size_t size : sizes) {
    if (size == kAnyOutput) size = kEnough;
    if (size > kMost) throw BadStream{"an answer of " + std::to_string(size) + " bytes"};
    first.emplace_back(size + 64, '\x55');
    second.emplace_back(size + 64, '\xaa');
  }
  for (auto& one : first) first_at.push_back(one.data());
  for (auto& one : second) second_at.push_back(one.data());
  const uint64_t result = call(first_at.data());
  (void)call(second_at.data());
  size_t total = 8;
  for (auto& one : first) total += 8 + one.size() + 8;
  char* room = answer_room(total);
  std::memcpy(room, &result, 8);
  size_t at = 8;
  for (size_t i = 0; i < first.size(); ++i) {
    uint64_t written = first[i].size();
    // Large answers may be nearly empty.
    static const std::string before_first(4096, '\x55'), before_second(4096, '\xaa');
    auto is_untouched = [&](const std::vector<char>& room_of, const std::string& before) {
      return std::memcmp(room_of.data() + written - before.size(), before.data(), before.size()) == 0;
    };
    while (written >= before_first.size() && is_untouched(first[i], before_first) &&
           is_untouched(second[i], before_second))
      written -= before_first.size();
    while (written > 0 && first[i][written - 1] != second[i][written - 1]) --written;
    std::memcpy(room + at, &written, 8);
    std::memcpy(room + at + 8, first[i].data(), written);
    at += 8 + ((written + 7) & ~uint64_t{7});
  }
  send_answer(header, at);
}

// --- Pixel store

namespace {

bool is_pack(GLenum name) {
  return (name >= GL_PACK_SWAP_BYTES && name <= GL_PACK_ALIGNMENT) || name == GL_PACK_SKIP_IMAGES ||
         name == GL_PACK_IMAGE_HEIGHT;
}

// What the program has never set is 0, and may be unknown to the context's interface.
void set_dense(const std::map<GLenum, GLint>& store, bool pack, uint16_t flags) {
  auto set = [&](GLenum unpack_name, GLenum pack_name, bool value) {
    const GLenum name = pack ? pack_name : unpack_name;
    if (value || store.contains(name)) Renderer::gl.PixelStorei(name, value);
  };
  set(GL_UNPACK_SWAP_BYTES, GL_PACK_SWAP_BYTES, (flags & kSwapBytes) != 0);
  set(GL_UNPACK_LSB_FIRST, GL_PACK_LSB_FIRST, (flags & kLsbFirst) != 0);
  set(GL_UNPACK_ROW_LENGTH, GL_PACK_ROW_LENGTH, false);
  set(GL_UNPACK_IMAGE_HEIGHT, GL_PACK_IMAGE_HEIGHT, false);
  set(GL_UNPACK_SKIP_ROWS, GL_PACK_SKIP_ROWS, false);
  set(GL_UNPACK_SKIP_PIXELS, GL_PACK_SKIP_PIXELS, false);
  set(GL_UNPACK_SKIP_IMAGES, GL_PACK_SKIP_IMAGES, false);
  Renderer::gl.PixelStorei(pack ? GL_PACK_ALIGNMENT : GL_UNPACK_ALIGNMENT, 1);
}

void set_program(const std::map<GLenum, GLint>& store, bool pack) {
  set_dense(store, pack, 0);
  Renderer::gl.PixelStorei(pack ? GL_PACK_ALIGNMENT : GL_UNPACK_ALIGNMENT, 4);
  for (const auto& [name, value] : store) {
    if (is_pack(name) == pack) Renderer::gl.PixelStorei(name, value);
  }
}

}  // namespace

void Renderer::use_unpacking(bool of_program, uint16_t flags) {
  flags &= kSwapBytes | kLsbFirst;
  const auto wanted = of_program ? RenderContext::kProgram : RenderContext::kDense;
  if (current->unpacking == wanted && (of_program || current->unpack_flags == flags)) return;
  if (of_program) {
    set_program(current->pixel_store, false);
  } else {
    set_dense(current->pixel_store, false, flags);
  }
  current->unpacking = wanted;
  current->unpack_flags = flags;
}

void Renderer::use_packing(bool of_program, uint16_t flags) {
  if (of_program) {
    set_program(current->pixel_store, true);
  } else {
    set_dense(current->pixel_store, true, flags);
  }
}

}  // namespace stasis::gl
