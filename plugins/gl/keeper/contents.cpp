// What only the driver knows: images that it has drawn or copied. They are marked as calls come by, asked for
// at a checkpoint, and kept like uploads of the program.
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <tuple>
#include <utility>

#include "generated/commands.h"
#include "keeper/log.h"
#include "keeper/packets.h"
#include "reader/ring_file.h"

namespace stasis::gl {

namespace {

constexpr uint32_t kAnswering = 0xfffffffe;  // the number of a ring that is none

// Where a packet has the size of its pixels; 0: it has none.
size_t pixels_size_at(uint16_t op) {
  switch (op) {
    case kOpTexImage1D:
      return offsetof(PTexImage1D, pixels_bytes);
    case kOpTexImage2D:
      return offsetof(PTexImage2D, pixels_bytes);
    case kOpTexImage3D:
      return offsetof(PTexImage3D, pixels_bytes);
    case kOpTexSubImage1D:
      return offsetof(PTexSubImage1D, pixels_bytes);
    case kOpTexSubImage2D:
      return offsetof(PTexSubImage2D, pixels_bytes);
    case kOpTexSubImage3D:
      return offsetof(PTexSubImage3D, pixels_bytes);
    case kOpCompressedTexImage1D:
      return offsetof(PCompressedTexImage1D, data_bytes);
    case kOpCompressedTexImage2D:
      return offsetof(PCompressedTexImage2D, data_bytes);
    case kOpCompressedTexImage3D:
      return offsetof(PCompressedTexImage3D, data_bytes);
    case kOpCompressedTexSubImage1D:
      return offsetof(PCompressedTexSubImage1D, data_bytes);
    case kOpCompressedTexSubImage2D:
      return offsetof(PCompressedTexSubImage2D, data_bytes);
    case kOpCompressedTexSubImage3D:
      return offsetof(PCompressedTexSubImage3D, data_bytes);
  }
  return 0;
}

struct PixelKind {
  GLenum format, type;
};

// With which an image of this internal format can be made without pixels.
PixelKind kind_of(GLenum internal) {
  switch (internal) {
    case GL_DEPTH_COMPONENT:
    case GL_DEPTH_COMPONENT16:
    case GL_DEPTH_COMPONENT24:
    case GL_DEPTH_COMPONENT32:
      return {GL_DEPTH_COMPONENT, GL_UNSIGNED_INT};
    case GL_DEPTH_COMPONENT32F:
      return {GL_DEPTH_COMPONENT, GL_FLOAT};
    case GL_DEPTH_STENCIL:
    case GL_DEPTH24_STENCIL8:
      return {GL_DEPTH_STENCIL, GL_UNSIGNED_INT_24_8};
    case GL_DEPTH32F_STENCIL8:
      return {GL_DEPTH_STENCIL, GL_FLOAT_32_UNSIGNED_INT_24_8_REV};
    case GL_ALPHA:
    case GL_RGB:
    case GL_LUMINANCE:
    case GL_LUMINANCE_ALPHA:
      return {internal, GL_UNSIGNED_BYTE};
    case GL_RGB8:
      return {GL_RGB, GL_UNSIGNED_BYTE};
  }
  const bool is_integer = (internal >= GL_RGBA32UI && internal <= 0x8D97 /* LUMINANCE_ALPHA8I_EXT */) ||
                          (internal >= GL_R8I && internal <= GL_RG32UI);
  return {is_integer ? GLenum{GL_RGBA_INTEGER} : GLenum{GL_RGBA},
          is_integer ? GLenum{GL_INT} : GLenum{GL_UNSIGNED_BYTE}};
}

void mark(KeptObject& object, uint32_t face, int32_t level) {
  if (face == 0) face = object.target;
  if (face != GL_TEXTURE_CUBE_MAP) {
    object.written.insert({face, level});
    return;
  }
  for (uint32_t side = 0; side < 6; ++side)
    object.written.insert({GL_TEXTURE_CUBE_MAP_POSITIVE_X + side, level});
}

bool has_contents(const KeptObject& object) {
  if (!object.written.empty()) return true;
  for (const auto& [key, call] : object.set) {
    if (key.slot == kContents) return true;
  }
  return false;
}

bool is_es(const KeptContext& c) {
  return (attribute_of(c.create, kProfile, kCoreProfile) & kEsProfile) != 0;
}

struct Size {
  int32_t width = 0, height = 0, depth = 0;
};

// ES cannot be asked for the size of an image.
Size size_of(const KeptObject& object, uint32_t face, int32_t level) {
  const auto half = [level](int32_t size) { return std::max(size >> std::clamp(level, 0, 30), 1); };
  for (const auto& [key, call] : object.set) {
    const Packet& packet = packet_of(call.packet);
    if (packet.op == kOpTexImage2D) {
      const auto& p = view<PTexImage2D>(packet);
      if (p.target == face && p.level == level) return {p.width, p.height, 1};
    } else if (packet.op == kOpTexImage3D) {
      const auto& p = view<PTexImage3D>(packet);
      if (p.target == face && p.level == level) return {p.width, p.height, p.depth};
    } else if (packet.op == kOpTexStorage2D) {
      const auto& p = view<PTexStorage2D>(packet);
      return {half(p.width), half(p.height), 1};
    } else if (packet.op == kOpTexStorage3D) {
      const auto& p = view<PTexStorage3D>(packet);
      return {half(p.width), half(p.height), p.target == GL_TEXTURE_3D ? half(p.depth) : p.depth};
    }
  }
  return {};
}

class Questions {
 public:
  Questions(uint32_t context, const KeptThread& where) : place_{} {
    place_.header = {sizeof place_, kOpMakeCurrent, 0};
    place_.context = context;
    place_.draw = where.draw;
    place_.read = where.read;
  }
  void object(ContentsOf of, uint32_t name, const KeptObject& object, bool es) {
    for (const auto& [face, level] : object.written) {
      Contents question = {};
      question.of = of;
      question.name = name;
      question.target = object.target;
      question.face = face;
      question.level = level;
      if (es) {
        const Size size = size_of(object, face, level);
        question.width = size.width;
        question.height = size.height;
        question.depth = size.depth;
      }
      add(question);
    }
  }
  void surface(uint64_t number, const KeptSurface& drawn) {
    for (uint32_t target : {GL_COLOR, GL_DEPTH_STENCIL, GL_ACCUM}) {
      if (!(target == GL_ACCUM ? drawn.accumulated : drawn.written)) continue;
      Contents question = {};
      question.of = kOfSurface;
      question.surface = number;
      question.target = target;
      add(question);
    }
  }
  const std::string& text() const { return text_; }

 private:
  void add(Contents& question) {
    question.header = {sizeof question, kOpContents, 0};
    question.bytes = kNull;
    if (text_.empty()) text_.append(reinterpret_cast<const char*>(&place_), sizeof place_);
    text_.append(reinterpret_cast<const char*>(&question), sizeof question);
  }
  MakeCurrent place_;
  std::string text_;
};

auto subject_of(const Contents& c) { return std::tuple(c.of, c.name, c.surface, c.target, c.face); }

}  // namespace

// --- Marking

KeptObject* Log::bound_texture(KeptContext& c, uint32_t target) {
  target = binding_target(target);
  auto bound = c.textures.find({c.active_unit, target});
  if (bound != c.textures.end() && bound->second != 0) return &c.share->objects[{kTexture, bound->second}];
  KeptObject& own = c.default_textures[target];
  own.target = target;
  return &own;
}

bool Log::mark_drawn(const KeptThread& thread, KeptContext& c) {
  if (c.marked == epoch_) return false;
  c.marked = epoch_;
  if (c.draw_framebuffer == 0) {
    if (thread.draw != 0) drawn_[thread.draw].written = true;
  } else {
    mark_attachments(c);
  }
  if (c.feedback) mark_feedback(c);
  return true;
}

bool Log::mark_accumulated(const KeptContext& c, const Packet& packet) {
  const bool changes = (packet.op == kOpAccum && view<PAccum>(packet).op != GL_RETURN) ||
                       (packet.op == kOpClear && (view<PClear>(packet).mask & GL_ACCUM_BUFFER_BIT) != 0);
  if (!changes || c.draw_framebuffer != 0 || c.last.draw == 0) return false;
  return !std::exchange(drawn_[c.last.draw].accumulated, true);
}

void Log::mark_attachments(KeptContext& c) {
  auto texture = [&](uint32_t name, uint32_t face, int32_t level) {
    auto found = c.share->objects.find({kTexture, name});
    if (found != c.share->objects.end()) mark(found->second, face, level);
  };
  for (const auto& [key, call] : c.framebuffers[c.draw_framebuffer].set) {
    const Packet& packet = packet_of(call.packet);
    switch (packet.op) {
      case kOpFramebufferTexture1D:
      case kOpFramebufferTexture2D:
      case kOpFramebufferTexture3D: {
        const auto& p = view<PFramebufferTexture2D>(packet);  // all begin in the same way
        texture(p.texture, p.textarget, p.level);
        break;
      }
      case kOpFramebufferTexture:
      case kOpFramebufferTextureLayer: {
        const auto& p = view<PFramebufferTexture>(packet);
        texture(p.texture, 0, p.level);
        break;
      }
      case kOpFramebufferRenderbuffer: {
        auto found =
            c.share->objects.find({kRenderbuffer, view<PFramebufferRenderbuffer>(packet).renderbuffer});
        if (found != c.share->objects.end()) found->second.written.insert({GL_RENDERBUFFER, 0});
        break;
      }
    }
  }
}

void Log::mark_feedback(KeptContext& c) {
  for (const auto& [key, call] : c.state) {
    const Packet& packet = packet_of(call.packet);
    if (packet.op != kOpBindBufferBase && packet.op != kOpBindBufferRange) continue;
    uint32_t target = 0, buffer = 0;
    if (packet.op == kOpBindBufferBase) {
      target = view<PBindBufferBase>(packet).target;
      buffer = view<PBindBufferBase>(packet).buffer;
    } else {
      target = view<PBindBufferRange>(packet).target;
      buffer = view<PBindBufferRange>(packet).buffer;
    }
    auto found = c.share->objects.find({kBuffer, buffer});
    if (target == GL_TRANSFORM_FEEDBACK_BUFFER && found != c.share->objects.end())
      found->second.written.insert({GL_ARRAY_BUFFER, 0});
  }
}

KeptObject* Log::bound_buffer(KeptContext& c, uint32_t target) {
  const uint32_t name = target == GL_ELEMENT_ARRAY_BUFFER ? c.arrays[c.array].usage : c.buffers[target];
  auto found = c.share->objects.find({kBuffer, name});
  return name == 0 || found == c.share->objects.end() ? nullptr : &found->second;
}

// True when nothing else is to be kept of the call.
bool Log::add_by_driver(KeptContext& c, const Packet& packet) {
  switch (packet.op) {
    case kOpCopyTexImage1D:
    case kOpCopyTexImage2D:
      copy_image(c, packet);
      return true;
    case kOpCopyTexSubImage1D:
    case kOpCopyTexSubImage2D:
    case kOpCopyTexSubImage3D: {
      const auto& p = view<PCopyTexSubImage1D>(packet);  // all begin in the same way
      mark(*bound_texture(c, p.target), p.target, p.level);
      return true;
    }
    case kOpCopyBufferSubData:
      copy_buffer(c, packet);
      return true;
    case kOpGenerateMipmap:
      make_mipmaps(c, packet);
      return false;
    case kOpBeginTransformFeedback:
      c.feedback = true;
      mark_feedback(c);
      return false;
    case kOpEndTransformFeedback:
      c.feedback = false;
      return false;
    case kOpEndQuery:
    case kOpQueryCounter:
      end_query(c, packet);
      return true;
    case kOpReadPixels:
    case kOpGetTexImage:
    case kOpGetCompressedTexImage:
      if (KeptObject* into = bound_buffer(c, GL_PIXEL_PACK_BUFFER)) {
        into->written.insert({GL_ARRAY_BUFFER, 0});
        return true;
      }
      return false;
  }
  const size_t at = pixels_size_at(packet.op);
  if (at == 0) return false;
  uint32_t size = 0;
  std::memcpy(&size, payload_of(packet, 0, at + sizeof size) + at, sizeof size);
  if (size != kOffset) return false;
  // The pixels are in a buffer, and the driver has taken them from there.
  const EffectRule& rule = rule_of(packet.op);
  if (rule.effect == Effect::k_image) {
    std::string without = bytes_of(packet);
    size = kNull;
    std::memcpy(without.data() + at, &size, sizeof size);
    set_image(c, packet_of(without), rule);
  }
  const auto target = static_cast<uint32_t>(field_of(packet, rule.key[0]));
  mark(*bound_texture(c, target), target, static_cast<int32_t>(field_of(packet, rule.key[1])));
  return true;
}

// The next driver has a query that has ended, so that nobody waits for it for ever; its result is contents.
void Log::end_query(KeptContext& c, const Packet& packet) {
  auto ended = [&](uint32_t name, Kept made) {
    KeptObject& query = c.share->objects[{kQuery, name}];
    query.made = std::move(made);
    query.set.erase(Key{kContents, 0, {}});
    query.written.insert({0, 0});
  };
  if (packet.op == kOpQueryCounter) return ended(view<PQueryCounter>(packet).id, keep(packet));
  const EffectRule& rule = rule_of(packet.op);
  const auto begun = c.state.find(Key{rule.slot, 0, {view<PEndQuery>(packet).target}});
  if (begun == c.state.end() || packet_of(begun->second.packet).op != kOpBeginQuery) return;
  const uint32_t name = view<PBeginQuery>(packet_of(begun->second.packet)).id;
  Kept both = keep(packet);
  both.packet.insert(0, begun->second.packet);
  ended(name, std::move(both));
  c.state.erase(begun);
}

// What is kept is the same image without pixels.
void Log::copy_image(KeptContext& c, const Packet& packet) {
  const auto& p = view<PCopyTexImage2D>(packet);
  const PixelKind kind = kind_of(p.internalformat);
  alignas(8) char room[(sizeof(PTexImage2D) + 7) / 8 * 8] = {};
  auto begin = [&]<typename P>(uint16_t op) -> P& {
    P& made = *new (room) P{};
    made.header = {sizeof room, op, 0};
    made.width = p.width;
    made.target = p.target;
    made.level = p.level;
    made.internalformat = static_cast<GLint>(p.internalformat);
    made.format = kind.format;
    made.type = kind.type;
    made.pixels_bytes = kNull;
    return made;
  };
  if (packet.op == kOpCopyTexImage1D) {
    begin.operator()<PTexImage1D>(kOpTexImage1D);
  } else {
    auto& made = begin.operator()<PTexImage2D>(kOpTexImage2D);
    made.height = p.height;
    made.border = p.border;
  }
  const auto& made = *reinterpret_cast<const Packet*>(room);
  set_image(c, made, rule_of(made.op));
  mark(*bound_texture(c, p.target), p.target, p.level);
}

void Log::copy_buffer(KeptContext& c, const Packet& packet) {
  const auto& p = view<PCopyBufferSubData>(packet);
  KeptObject *from = bound_buffer(c, p.readTarget), *to = bound_buffer(c, p.writeTarget);
  if (from == nullptr || to == nullptr || p.size < 0 || p.readOffset < 0 || p.writeOffset < 0) return;
  const auto size = static_cast<size_t>(p.size), read = static_cast<size_t>(p.readOffset);
  const auto write = static_cast<size_t>(p.writeOffset);
  if (read + size > from->content.size() || write + size > to->content.size()) return;
  std::memmove(to->content.data() + write, from->content.data() + read, size);
  if (!from->written.empty()) to->written.insert({GL_ARRAY_BUFFER, 0});
}

// Made anew of images that are kept; but not of one that only the driver has.
void Log::make_mipmaps(KeptContext& c, const Packet& packet) {
  const uint32_t target = view<PGenerateMipmap>(packet).target;
  KeptObject& texture = *bound_texture(c, target);
  texture.steps.clear();
  texture.mipmaps = order_ + 1;
  if (has_contents(texture)) mark(texture, target, kAllLevels);
}

// --- Questions and answers

bool Log::has_written() const {
  for (const auto& [number, c] : contexts_) {
    for (const auto& [key, object] : c.share->objects) {
      if (!object.written.empty()) return true;
    }
    for (const auto& [target, object] : c.default_textures) {
      if (!object.written.empty()) return true;
    }
    auto drawn = drawn_.find(c.last.draw);
    if (drawn != drawn_.end() && (drawn->second.written || drawn->second.accumulated)) return true;
  }
  return false;
}

std::string Log::questions() const {
  std::string all;
  std::set<const KeptShare*> shares;
  std::set<uint64_t> surfaces;
  for (const auto& [number, c] : contexts_) {
    const KeptThread where = place_of(number);
    if (where.draw == 0) continue;
    const bool es = is_es(c);
    Questions questions(number, where);
    if (shares.insert(c.share.get()).second) {
      for (const auto& [key, object] : c.share->objects) {
        if (key.first == kTexture) questions.object(kOfTexture, key.second, object, es);
        if (key.first == kRenderbuffer) questions.object(kOfRenderbuffer, key.second, object, es);
        if (key.first == kBuffer) questions.object(kOfBuffer, key.second, object, es);
        if (key.first == kQuery) questions.object(kOfQuery, key.second, object, false);
      }
    }
    for (const auto& [target, object] : c.default_textures) questions.object(kOfTexture, 0, object, es);
    auto drawn = drawn_.find(where.draw);
    if (where.context == number && drawn != drawn_.end() && surfaces.insert(where.draw).second)
      questions.surface(where.draw, drawn->second);
    all += questions.text();
  }
  return all;
}

// A question is also how the next keeper learns of what there is to be asked for.
void Log::mark_again(KeptContext& c, const Contents& p) {
  switch (p.of) {
    case kOfTexture:
      (p.name == 0 ? c.default_textures[p.target] : c.share->objects[{kTexture, p.name}])
          .written.insert({p.face, p.level});
      return;
    case kOfRenderbuffer:
    case kOfBuffer:
      c.share->objects[{p.of == kOfBuffer ? kBuffer : kRenderbuffer, p.name}].written.insert({p.face, 0});
      return;
    case kOfQuery:
      c.share->objects[{kQuery, p.name}].written.insert({0, 0});
      return;
    case kOfSurface:
      (p.target == GL_ACCUM ? drawn_[p.surface].accumulated : drawn_[p.surface].written) = true;
      return;
    default:
      throw BadStream{"contents of nothing"};
  }
}

void Log::add_contents(const KeptThread& thread, const Packet& packet) {
  const auto& p = view<Contents>(packet);
  auto context = contexts_.find(thread.context);
  if (context == contexts_.end()) return;
  KeptContext& c = context->second;
  if (p.bytes == kNull) return mark_again(c, p);
  if (p.width == 0) return;
  const auto image = [&] { return Key{kContents, 0, {p.face, static_cast<uint32_t>(p.level)}}; };
  switch (p.of) {
    case kOfTexture: {
      KeptObject& object = p.name == 0 ? c.default_textures[p.target] : c.share->objects[{kTexture, p.name}];
      object.set[image()] = keep(packet);
      return;
    }
    case kOfRenderbuffer:
    case kOfQuery:
      c.share->objects[{p.of == kOfQuery ? kQuery : kRenderbuffer, p.name}].set[Key{kContents, 0, {}}] =
          keep(packet);
      return;
    case kOfBuffer:
      c.share->objects[{kBuffer, p.name}].content.assign(payload_of(packet, sizeof p, p.bytes), p.bytes);
      return;
    case kOfSurface:
      drawn_[p.surface].contents[p.target] = keep(packet);
      return;
    default:
      throw BadStream{"contents of nothing"};
  }
}

void Log::take_answers(const std::string& questions, const std::string& answers) {
  std::set<decltype(subject_of(Contents{}))> open;
  for_each_packet(questions, [&](const Packet& packet) {
    if (packet.op == kOpContents) open.insert(subject_of(view<Contents>(packet)));
  });
  for_each_packet(answers, [&](const Packet& packet) {
    if (packet.op == kOpContents) open.erase(subject_of(view<Contents>(packet)));
    add(kAnswering, packet);
  });
  threads_.erase(kAnswering);
  incomplete_ = !open.empty();
  for (auto& [number, c] : contexts_) {
    for (auto& [key, object] : c.share->objects) object.written.clear();
    for (auto& [target, object] : c.default_textures) object.written.clear();
  }
  for (auto& [number, surface] : drawn_) surface.written = surface.accumulated = false;
  ++epoch_;
}

}  // namespace stasis::gl
