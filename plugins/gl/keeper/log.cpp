#include "keeper/log.h"

#include <GL/gl.h>
#include <GL/glext.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "generated/commands.h"
#include "keeper/packets.h"
#include "reader/ring_reader.h"
#include "wire/egl.h"

namespace stasis::gl {

namespace {

Key key_of(const Packet& packet, const EffectRule& rule) {
  Key key;
  key.slot = rule.slot;
  for (int i = 0; i < rule.keys; ++i) key.part[i] = field_of(packet, rule.key[i]);
  return key;
}

bool is_proxy(uint32_t target) {
  switch (target) {
    case GL_PROXY_TEXTURE_1D:
    case GL_PROXY_TEXTURE_2D:
    case GL_PROXY_TEXTURE_3D:
    case GL_PROXY_TEXTURE_CUBE_MAP:
    case GL_PROXY_TEXTURE_RECTANGLE:
    case GL_PROXY_TEXTURE_1D_ARRAY:
    case GL_PROXY_TEXTURE_2D_ARRAY:
    case GL_PROXY_TEXTURE_2D_MULTISAMPLE:
    case GL_PROXY_TEXTURE_2D_MULTISAMPLE_ARRAY:
      return true;
  }
  return false;
}

bool is_of_unit(uint32_t capability) {
  switch (capability) {
    case GL_TEXTURE_1D:
    case GL_TEXTURE_2D:
    case GL_TEXTURE_3D:
    case GL_TEXTURE_CUBE_MAP:
    case GL_TEXTURE_RECTANGLE:
    case GL_TEXTURE_GEN_S:
    case GL_TEXTURE_GEN_T:
    case GL_TEXTURE_GEN_R:
    case GL_TEXTURE_GEN_Q:
      return true;
  }
  return false;
}

// The group of glPushAttrib, beside GL_ENABLE_BIT, that a capability belongs to.
uint32_t group_of(uint32_t capability) {
  if (is_of_unit(capability)) return GL_TEXTURE_BIT;
  if (capability >= GL_LIGHT0 && capability < GL_LIGHT0 + 8) return GL_LIGHTING_BIT;
  if (capability >= GL_CLIP_PLANE0 && capability < GL_CLIP_PLANE0 + 8) return GL_TRANSFORM_BIT;
  if (capability >= GL_MAP1_COLOR_4 && capability <= GL_MAP2_VERTEX_4) return GL_EVAL_BIT;
  switch (capability) {
    case GL_AUTO_NORMAL:
      return GL_EVAL_BIT;
    case GL_ALPHA_TEST:
    case GL_BLEND:
    case GL_DITHER:
    case GL_COLOR_LOGIC_OP:
    case GL_INDEX_LOGIC_OP:
      return GL_COLOR_BUFFER_BIT;
    case GL_COLOR_MATERIAL:
    case GL_LIGHTING:
      return GL_LIGHTING_BIT;
    case GL_CULL_FACE:
    case GL_POLYGON_OFFSET_FILL:
    case GL_POLYGON_OFFSET_LINE:
    case GL_POLYGON_OFFSET_POINT:
    case GL_POLYGON_SMOOTH:
    case GL_POLYGON_STIPPLE:
      return GL_POLYGON_BIT;
    case GL_DEPTH_TEST:
      return GL_DEPTH_BUFFER_BIT;
    case GL_FOG:
      return GL_FOG_BIT;
    case GL_LINE_SMOOTH:
    case GL_LINE_STIPPLE:
      return GL_LINE_BIT;
    case GL_POINT_SMOOTH:
      return GL_POINT_BIT;
    case GL_SCISSOR_TEST:
      return GL_SCISSOR_BIT;
    case GL_STENCIL_TEST:
      return GL_STENCIL_BUFFER_BIT;
    case GL_NORMALIZE:
    case GL_RESCALE_NORMAL:
      return GL_TRANSFORM_BIT;
    case GL_MULTISAMPLE:
    case GL_SAMPLE_ALPHA_TO_COVERAGE:
    case GL_SAMPLE_ALPHA_TO_ONE:
    case GL_SAMPLE_COVERAGE:
      return GL_MULTISAMPLE_BIT;
  }
  return 0;
}

}  // namespace

Kept Log::keep(const Packet& packet) { return {++order_, bytes_of(packet)}; }

bool Log::add(uint32_t ring, const Packet& packet) {
  KeptThread& thread = threads_[ring];
  if (packet.op < kOpFirstGl) return control(thread, packet);
  const EffectRule& rule = rule_of(packet.op);
  if (rule.effect == Effect::k_none) return false;
  auto context = contexts_.find(thread.context);
  return context != contexts_.end() && call(thread, context->second, packet);
}

bool Log::control(KeptThread& thread, const Packet& packet) {
  switch (packet.op) {
    case kOpCreateContext: {
      const auto& p = view<CreateContext>(packet);
      KeptContext& made = contexts_[p.context];
      made.create = bytes_of(packet);
      auto shared = contexts_.find(p.share);
      made.share = p.share != 0 && shared != contexts_.end() && shared->second.share
                       ? shared->second.share
                       : std::make_shared<KeptShare>();
      return true;
    }
    case kOpDestroyContext:
      contexts_.erase(view<MakeCurrent>(packet).context);
      return true;
    case kOpMakeCurrent: {
      const auto& p = view<MakeCurrent>(packet);
      thread = {p.context, p.draw, p.read};
      if (auto made = contexts_.find(p.context); made != contexts_.end()) made->second.last = thread;
      ++epoch_;
      return true;
    }
    case kOpSwapBuffers:
      drawn_.erase(view<SurfaceCall>(packet).surface);
      ++epoch_;
      return true;
    case kOpContents:
      add_contents(thread, packet);
      return true;
    case kOpSwapInterval:
      if (auto context = contexts_.find(thread.context); context != contexts_.end())
        context->second.swap_interval = bytes_of(packet);
      return true;
    case kOpCreateSurface:
      surfaces_[view<CreateSurface>(packet).surface] = bytes_of(packet);
      return true;
    case kOpDestroySurface:
      surfaces_.erase(view<SurfaceCall>(packet).surface);
      drawn_.erase(view<SurfaceCall>(packet).surface);
      return true;
    case kOpClientArrays:
    case kOpClientElements:
    case kOpClientElement: {
      auto context = contexts_.find(thread.context);
      if (context == contexts_.end()) return false;
      KeptContext& its = context->second;
      if (its.list != 0) its.list_calls.push_back(keep(packet));
      if (its.in_primitive) its.primitive.push_back(keep(packet));
      const bool marked = (its.list == 0 || its.list_executes) && mark_drawn(thread, its);
      return marked || its.list != 0 || its.in_primitive;
    }
  }
  return false;
}

bool Log::call(const KeptThread& thread, KeptContext& c, const Packet& packet) {
  const EffectRule& rule = rule_of(packet.op);
  if (rule.effect == Effect::k_query) return add_by_driver(c, packet);
  const bool draws = rule.effect == Effect::k_draw || rule.effect == Effect::k_begin ||
                     rule.effect == Effect::k_calllist || rule.effect == Effect::k_calllists;
  const bool marked = draws && (c.list == 0 || c.list_executes) && mark_drawn(thread, c);
  const bool only_drawn = rule.effect == Effect::k_draw && !marked && c.list == 0 && !c.in_primitive;
  if (c.list == 0 || rule.effect == Effect::k_endlist || !compile(c, packet, rule)) apply(c, packet, rule);
  return !only_drawn;
}

// True when the call goes into the list and is not executed.
bool Log::compile(KeptContext& c, const Packet& packet, const EffectRule& rule) {
  switch (rule.effect) {
    case Effect::k_create:
    case Effect::k_destroy:
    case Effect::k_data:
    case Effect::k_subdata:
    case Effect::k_newlist:
    case Effect::k_program:
      return false;
    case Effect::k_readback:
      if (packet.op == kOpCopyBufferSubData) return false;
      break;
    case Effect::k_object:
      if (rule.on != On::k_texture && rule.on != On::k_program) return false;
      break;
    case Effect::k_bind:
      if (rule.type != kTexture && rule.type != kProgram && rule.type != kArbProgram) return false;
      break;
    default:
      break;
  }
  if (packet.op == kOpPixelStorei || packet.op == kOpClientActiveTexture) return false;
  c.list_calls.push_back(keep(packet));
  return !c.list_executes;
}

void Log::apply(KeptContext& c, const Packet& packet, const EffectRule& rule) {
  if (c.in_primitive && rule.effect != Effect::k_end) c.primitive.push_back(keep(packet));
  if (add_by_driver(c, packet)) return;
  switch (rule.effect) {
    case Effect::k_state:
      return set_state(c, packet, rule);
    case Effect::k_object:
      return set_object(c, packet, rule);
    case Effect::k_create:
      return create(c, packet, rule);
    case Effect::k_destroy:
      return destroy(c, packet, rule);
    case Effect::k_bind:
      return bind(c, packet, rule);
    case Effect::k_image:
    case Effect::k_subimage:
      return set_image(c, packet, rule);
    case Effect::k_data:
      return set_data(c, packet);
    case Effect::k_subdata:
      return set_subdata(c, packet);
    case Effect::k_program:
      return add_step(c, packet);
    case Effect::k_load:
    case Effect::k_multiply:
    case Effect::k_pushmatrix:
    case Effect::k_popmatrix:
      return change_matrix(c, packet, rule);
    case Effect::k_begin:
      c.in_primitive = true;
      c.primitive.clear();
      c.primitive.push_back(keep(packet));
      return;
    case Effect::k_end:
      c.in_primitive = false;
      c.primitive.clear();
      return;
    case Effect::k_newlist: {
      const auto& p = view<PNewList>(packet);
      c.list = p.list;
      c.list_executes = p.mode == GL_COMPILE_AND_EXECUTE;
      c.list_calls.clear();
      c.list_calls.push_back(keep(packet));
      return;
    }
    case Effect::k_endlist:
      if (c.list == 0) return;
      c.list_calls.push_back(keep(packet));
      c.share->lists[c.list] = std::move(c.list_calls);
      c.list = 0;
      c.list_calls.clear();
      return;
    case Effect::k_calllist:
      return call_list(c, view<PCallList>(packet).list);
    case Effect::k_calllists:
      return call_lists(c, packet);
    case Effect::k_pushattrib:
      return push_attributes(c, packet);
    case Effect::k_popattrib:
      return pop_attributes(c);
    case Effect::k_none:
    case Effect::k_query:
    case Effect::k_draw:
    case Effect::k_vertex:
    case Effect::k_readback:
      return;
  }
}

// --- State

void Log::set_state(KeptContext& c, const Packet& packet, const EffectRule& rule) {
  Key key = key_of(packet, rule);
  bool of_unit = (rule.flags & kOfUnit) != 0;
  uint32_t groups = rule.groups;
  if (packet.op == kOpEnable || packet.op == kOpDisable) {
    const auto capability = static_cast<uint32_t>(key.part[0]);
    of_unit = is_of_unit(capability);
    groups = GL_ENABLE_BIT | group_of(capability);
  } else if (packet.op == kOpActiveTexture) {
    const uint32_t unit = view<PActiveTexture>(packet).texture - GL_TEXTURE0;
    if (unit < 256) c.active_unit = unit;
  } else if (packet.op == kOpClientActiveTexture) {
    const uint32_t unit = view<PClientActiveTexture>(packet).texture - GL_TEXTURE0;
    if (unit < 256) c.client_unit = unit;
  } else if (packet.op == kOpMatrixMode) {
    c.matrix_mode = view<PMatrixMode>(packet).mode;
  } else if (packet.op == kOpBindBufferBase) {
    c.buffers[view<PBindBufferBase>(packet).target] = view<PBindBufferBase>(packet).buffer;
  } else if (packet.op == kOpBindBufferRange) {
    c.buffers[view<PBindBufferRange>(packet).target] = view<PBindBufferRange>(packet).buffer;
  }
  if (of_unit) key.unit = static_cast<uint16_t>(c.active_unit + 1);
  StateCall& call = c.state[key];
  call.order = ++order_;
  call.packet.assign(reinterpret_cast<const char*>(&packet), packet.size);
  call.groups = groups;
  call.of_unit = of_unit;
  if ((rule.flags & kOfEye) != 0) {
    auto& stack = c.matrices[{GL_MODELVIEW, 0}];
    if (!stack.levels.empty()) call.eye = std::make_shared<const KeptList>(*stack.levels.back());
  }
}

void Log::change_matrix(KeptContext& c, const Packet& packet, const EffectRule& rule) {
  auto& stack = c.matrices[{c.matrix_mode, c.matrix_mode == GL_TEXTURE ? c.active_unit : 0}];
  if (stack.levels.empty()) stack.levels.push_back(std::make_shared<KeptList>());
  switch (rule.effect) {
    case Effect::k_load:
      stack.levels.back()->clear();
      break;
    case Effect::k_pushmatrix:
      stack.levels.push_back(std::make_shared<KeptList>(*stack.levels.back()));
      return;
    case Effect::k_popmatrix:
      if (stack.levels.size() > 1) stack.levels.pop_back();
      return;
    default:
      break;
  }
  stack.levels.back()->push_back(keep(packet));
}

void Log::push_attributes(KeptContext& c, const Packet& packet) {
  c.attributes.push_back(
      {view<PPushAttrib>(packet).mask, keep(packet), c.state, c.active_unit, c.matrix_mode});
}

void Log::pop_attributes(KeptContext& c) {
  if (c.attributes.empty()) return;
  AttributeLevel level = std::move(c.attributes.back());
  c.attributes.pop_back();
  auto concerned = [&](const StateCall& call) { return (call.groups & level.mask) != 0; };
  for (auto entry = c.state.begin(); entry != c.state.end();) {
    entry = concerned(entry->second) && !level.state.contains(entry->first) ? c.state.erase(entry)
                                                                            : std::next(entry);
  }
  for (auto& [key, call] : level.state) {
    if (concerned(call)) c.state[key] = std::move(call);
  }
  if ((level.mask & GL_TEXTURE_BIT) != 0) {
    c.active_unit = level.active_unit;
    // Bindings of textures are part of it, too.
    for (auto& [where, name] : c.textures) {
      Key key{kBindTexture, static_cast<uint16_t>(where.first + 1), {where.second}};
      auto bound = c.state.find(key);
      name = bound == c.state.end() ? 0 : view<PBindTexture>(packet_of(bound->second.packet)).texture;
    }
  }
  if ((level.mask & GL_TRANSFORM_BIT) != 0) c.matrix_mode = level.matrix_mode;
}

// --- Objects

KeptObject* Log::object_of(KeptContext& c, const Packet& packet, const EffectRule& rule) {
  auto argument = [&] { return static_cast<uint32_t>(field_of(packet, rule.object)); };
  auto shared = [&](NameType type, uint32_t name) -> KeptObject* {
    return name == 0 ? nullptr : &c.share->objects[{type, name}];
  };
  switch (rule.on) {
    case On::k_texture:
      return is_proxy(argument()) ? nullptr : bound_texture(c, argument());
    case On::k_array:
      return &c.arrays[c.array];
    case On::k_framebuffer: {
      bool read = packet.op == kOpReadBuffer;
      if (rule.object.size != 0) read = argument() == GL_READ_FRAMEBUFFER;
      return &c.framebuffers[read ? c.read_framebuffer : c.draw_framebuffer];
    }
    case On::k_renderbuffer:
      return shared(kRenderbuffer, c.renderbuffer);
    case On::k_program:
      return shared(kProgram, rule.object.size != 0 ? argument() : c.program);
    case On::k_sampler:
      return shared(kSampler, argument());
    case On::k_arbprogram: {
      const uint32_t target = argument(), name = c.arb_programs[target];
      return name != 0 ? shared(kArbProgram, name) : &c.default_arb_programs[target];
    }
    default:
      return nullptr;
  }
}

void Log::set_object(KeptContext& c, const Packet& packet, const EffectRule& rule) {
  KeptObject* object = object_of(c, packet, rule);
  if (object == nullptr) return;
  if (rule.on == On::k_framebuffer) ++epoch_;
  if (rule.on == On::k_renderbuffer) {  // a new one, without contents
    object->set.erase(Key{kContents, 0, {}});
    object->written.clear();
  }
  Key key = key_of(packet, rule);
  if ((rule.flags & kOfUnit) != 0) key.unit = static_cast<uint16_t>(c.client_unit + 1);
  if (packet.op == kOpEnableClientState || packet.op == kOpDisableClientState) {
    if (key.part[0] == GL_TEXTURE_COORD_ARRAY) key.unit = static_cast<uint16_t>(c.client_unit + 1);
  }
  Kept call = keep(packet);
  if (rule.on == On::k_array) {
    // An array's address is one in the buffer that is bound now.
    PBindBuffer bound = {
        {sizeof(PBindBuffer), kOpBindBuffer, 0}, GL_ARRAY_BUFFER, c.buffers[GL_ARRAY_BUFFER]};
    static_assert(sizeof(PBindBuffer) % 8 == 0);
    call.packet.insert(0, reinterpret_cast<const char*>(&bound), sizeof bound);
    if (key.unit != 0) {
      PClientActiveTexture unit = {{16, kOpClientActiveTexture, 0}, GL_TEXTURE0 + key.unit - 1U};
      char padded[16] = {};
      std::memcpy(padded, &unit, sizeof unit);
      call.packet.insert(0, padded, sizeof padded);
    }
  }
  object->set[key] = std::move(call);
}

void Log::set_image(KeptContext& c, const Packet& packet, const EffectRule& rule) {
  EffectRule on_texture = rule;
  on_texture.on = On::k_texture;
  on_texture.object = rule.key[0];
  KeptObject* object = object_of(c, packet, on_texture);
  if (object == nullptr) return;
  Key key = key_of(packet, rule);
  const bool whole = rule.effect == Effect::k_image;
  key.slot = whole ? kImage : kPart;
  const int dimensions = (rule.keys - 2) / 2;
  key.unit = static_cast<uint16_t>(dimensions);
  auto covers = [&](const Key& old) {
    if (whole && old.slot == kContents) return old.part[0] == key.part[0] && old.part[1] == key.part[1];
    if (old.slot != kPart || old.part[0] != key.part[0] || old.part[1] != key.part[1]) return false;
    if (whole) return true;
    if (old.unit != key.unit) return false;
    for (int i = 0; i < dimensions; ++i) {
      const auto at = static_cast<int32_t>(key.part[2 + i]), its = static_cast<int32_t>(old.part[2 + i]);
      const int64_t size = static_cast<int32_t>(key.part[2 + dimensions + i]);
      const int64_t its_size = static_cast<int32_t>(old.part[2 + dimensions + i]);
      if (its < at || its + its_size > at + size) return false;
    }
    return true;
  };
  std::erase_if(object->set, [&](auto& entry) {
    if (!(entry.first == key) && !covers(entry.first)) return false;
    // Mipmaps that the driver has made of it are still there.
    if (entry.second.order < object->mipmaps) object->steps.push_back(std::move(entry.second));
    return true;
  });
  ++epoch_;
  if (whole) object->written.erase({static_cast<uint32_t>(key.part[0]), static_cast<int32_t>(key.part[1])});
  object->set[key] = keep(packet);
}

void Log::set_data(KeptContext& c, const Packet& packet) {
  const auto& p = view<PBufferData>(packet);
  uint32_t name = p.target == GL_ELEMENT_ARRAY_BUFFER ? 0 : c.buffers[p.target];
  if (p.target == GL_ELEMENT_ARRAY_BUFFER) name = c.arrays[c.array].usage;
  if (name == 0 || p.size < 0) return;
  KeptObject& buffer = c.share->objects[{kBuffer, name}];
  buffer.has_content = true;
  buffer.usage = p.usage;
  buffer.made.order = ++order_;
  const auto size = static_cast<size_t>(p.size);
  if (p.data_bytes == kNull) {
    constexpr size_t kMost = size_t{1} << 31;
    if (size > kMost) return;
    buffer.content.assign(size, '\0');
  } else {
    buffer.content.assign(payload_of(packet, sizeof p, size), size);
  }
}

void Log::set_subdata(KeptContext& c, const Packet& packet) {
  const auto& p = view<PBufferSubData>(packet);
  uint32_t name = p.target == GL_ELEMENT_ARRAY_BUFFER ? c.arrays[c.array].usage : c.buffers[p.target];
  if (name == 0 || p.size < 0 || p.offset < 0 || p.data_bytes == kNull) return;
  KeptObject& buffer = c.share->objects[{kBuffer, name}];
  const auto size = static_cast<size_t>(p.size), at = static_cast<size_t>(p.offset);
  if (at + size > buffer.content.size()) return;
  std::memcpy(buffer.content.data() + at, payload_of(packet, sizeof p, size), size);
}

void Log::bind(KeptContext& c, const Packet& packet, const EffectRule& rule) {
  auto remember = [&](uint16_t slot, uint64_t part, uint16_t unit, uint32_t groups) {
    StateCall& call = c.state[Key{slot, unit, {part}}];
    call.order = ++order_;
    call.packet = bytes_of(packet);
    call.groups = groups;
    call.of_unit = unit != 0;
  };
  auto exists = [&](NameType type, uint32_t name, uint32_t target) {
    if (name == 0) return;
    KeptObject& object = c.share->objects[{type, name}];
    object.exists = true;
    if (object.target == 0) object.target = target;
  };
  switch (rule.type) {
    case kTexture: {
      const auto& p = view<PBindTexture>(packet);
      exists(kTexture, p.texture, p.target);
      c.textures[{c.active_unit, p.target}] = p.texture;
      return remember(kBindTexture, p.target, static_cast<uint16_t>(c.active_unit + 1), GL_TEXTURE_BIT);
    }
    case kBuffer: {
      const auto& p = view<PBindBuffer>(packet);
      exists(kBuffer, p.buffer, p.target);
      if (p.target == GL_ELEMENT_ARRAY_BUFFER) {  // part of the vertex array
        c.arrays[c.array].usage = p.buffer;
        c.arrays[c.array].set[Key{kBindElements, 0, {}}] = keep(packet);
        return;
      }
      c.buffers[p.target] = p.buffer;
      return remember(kBindBuffer, p.target, 0, 0);
    }
    case kFramebuffer: {
      const auto& p = view<PBindFramebuffer>(packet);
      if (p.framebuffer != 0) c.framebuffers[p.framebuffer].exists = true;
      if (p.target != GL_READ_FRAMEBUFFER) c.draw_framebuffer = p.framebuffer;
      if (p.target != GL_DRAW_FRAMEBUFFER) c.read_framebuffer = p.framebuffer;
      ++epoch_;
      if (p.target == GL_FRAMEBUFFER) {
        c.state.erase(Key{kBindFramebuffer, 0, {GL_READ_FRAMEBUFFER}});
        c.state.erase(Key{kBindFramebuffer, 0, {GL_DRAW_FRAMEBUFFER}});
      }
      return remember(kBindFramebuffer, p.target, 0, 0);
    }
    case kRenderbuffer:
      c.renderbuffer = view<PBindRenderbuffer>(packet).renderbuffer;
      exists(kRenderbuffer, c.renderbuffer, GL_RENDERBUFFER);
      return remember(kBindRenderbuffer, 0, 0, 0);
    case kProgram:
      c.program = view<PUseProgram>(packet).program;
      if (has_deleted_) sweep_programs(*c.share);
      return remember(kUseProgram, 0, 0, 0);
    case kArbProgram: {
      const auto& p = view<PBindProgramARB>(packet);
      exists(kArbProgram, p.program, p.target);
      c.arb_programs[p.target] = p.program;
      return remember(kBindArbProgram, p.target, 0, 0);
    }
    case kVertexArrayName:
      c.array = view<PBindVertexArray>(packet).array;
      c.arrays[c.array].exists = true;
      return remember(kBindArray, 0, 0, 0);
    default:
      return;
  }
}

void Log::create(KeptContext& c, const Packet& packet, const EffectRule& rule) {
  if (packet.op == kOpGenLists) {
    struct Request : PGenLists {
      GLuint first;
    };
    const auto& p = view<Request>(packet);
    for (GLsizei i = 0; i < p.range; ++i) (void)c.share->lists[p.first + static_cast<GLuint>(i)];
    return;
  }
  if (packet.op == kOpCreateShader || packet.op == kOpCreateProgram) {
    const size_t fixed = packet.op == kOpCreateShader ? sizeof(PCreateShader) : sizeof(PCreateProgram);
    GLuint name = 0;
    std::memcpy(&name, payload_of(packet, fixed, sizeof name), sizeof name);
    KeptObject& object = c.share->objects[{kProgram, name}];
    object = {};
    object.exists = true;
    object.made = keep(packet);
    return;
  }
  // glGen*: a count, and so many names.
  const Field count_field = {sizeof(Packet), sizeof(GLsizei)};
  const auto count = static_cast<int32_t>(field_of(packet, count_field));
  constexpr size_t kFixed = sizeof(Packet) + 8;
  for (int32_t i = 0; i < count; ++i) {
    GLuint name = 0;
    std::memcpy(&name, payload_of(packet, kFixed, static_cast<size_t>(count) * 4) + 4 * i, 4);
    if (rule.type == kVertexArrayName) {
      c.arrays[name].exists = true;
    } else if (rule.type == kFramebuffer) {
      c.framebuffers[name].exists = true;
    } else {
      c.share->objects[{rule.type, name}].exists = true;
    }
  }
}

void Log::destroy(KeptContext& c, const Packet& packet, const EffectRule& rule) {
  if (packet.op == kOpDeleteShader || packet.op == kOpDeleteProgram) {
    const auto name = static_cast<uint32_t>(field_of(packet, {sizeof(Packet), 4}));
    auto found = c.share->objects.find({kProgram, name});
    if (found == c.share->objects.end()) return;
    found->second.deleted = has_deleted_ = true;
    sweep_programs(*c.share);
    return;
  }
  if (packet.op == kOpDeleteSync) return;
  if (packet.op == kOpDeleteLists) {
    const auto& p = view<PDeleteLists>(packet);
    auto first = c.share->lists.lower_bound(p.list);
    auto last = c.share->lists.lower_bound(p.list + static_cast<GLuint>(std::max(p.range, 0)));
    c.share->lists.erase(first, last);
    return;
  }
  const auto count = static_cast<int32_t>(field_of(packet, {sizeof(Packet), 4}));
  for (int32_t i = 0; i < count; ++i) {
    GLuint name = 0;
    std::memcpy(&name, payload_of(packet, sizeof(Packet) + 8, static_cast<size_t>(count) * 4) + 4 * i, 4);
    if (name == 0) continue;
    auto forget = [&](auto& bindings, uint16_t slot) {
      for (auto& [where, bound] : bindings) {
        if (bound == name) bound = 0;
      }
      std::erase_if(c.state, [&](const auto& entry) {
        // In every call that binds, the name comes right after the target.
        uint32_t its = 0;
        std::memcpy(&its, entry.second.packet.data() + sizeof(Packet) + 4, 4);
        return entry.first.slot == slot && its == name;
      });
    };
    switch (rule.type) {
      case kTexture:
        forget(c.textures, kBindTexture);
        break;
      case kBuffer:
        forget(c.buffers, kBindBuffer);
        for (auto& [array_name, array] : c.arrays) {
          if (array.usage != name) continue;
          array.usage = 0;
          array.set.erase(Key{kBindElements, 0, {}});
        }
        break;
      case kArbProgram:
        forget(c.arb_programs, kBindArbProgram);
        break;
      case kFramebuffer:
        c.framebuffers.erase(name);
        ++epoch_;
        if (c.draw_framebuffer == name) c.draw_framebuffer = 0;
        if (c.read_framebuffer == name) c.read_framebuffer = 0;
        std::erase_if(c.state, [&](const auto& entry) {
          return entry.first.slot == kBindFramebuffer &&
                 view<PBindFramebuffer>(packet_of(entry.second.packet)).framebuffer == name;
        });
        continue;
      case kVertexArrayName:
        c.arrays.erase(name);
        if (c.array == name) {
          c.array = 0;
          c.state.erase(Key{kBindArray, 0, {}});
        }
        continue;
      case kRenderbuffer:
        if (c.renderbuffer == name) {
          c.renderbuffer = 0;
          c.state.erase(Key{kBindRenderbuffer, 0, {}});
        }
        break;
      default:
        break;
    }
    c.share->objects.erase({rule.type, name});
  }
}

// A program lives while it is in use, a shader while it is attached or needed for a link.
void Log::sweep_programs(KeptShare& share) {
  auto in_use = [&](uint32_t name) {
    return std::any_of(contexts_.begin(), contexts_.end(), [&](const auto& entry) {
      return entry.second.share.get() == &share && entry.second.program == name;
    });
  };
  auto is_shader = [](const KeptObject& object) {
    return !object.made.packet.empty() && packet_of(object.made.packet).op == kOpCreateShader;
  };
  std::erase_if(share.objects, [&](const auto& entry) {
    return entry.first.first == kProgram && entry.second.deleted && !is_shader(entry.second) &&
           !in_use(entry.first.second);
  });
  std::set<uint32_t> needed;
  for (const auto& [key, object] : share.objects) {
    for (const Kept& step : object.steps) {
      if (packet_of(step.packet).op == kOpAttachShader)
        needed.insert(view<PAttachShader>(packet_of(step.packet)).shader);
    }
  }
  std::erase_if(share.objects, [&](const auto& entry) {
    return entry.first.first == kProgram && entry.second.deleted && is_shader(entry.second) &&
           !needed.contains(entry.first.second);
  });
}

void Log::add_step(KeptContext& c, const Packet& packet) {
  const auto name = static_cast<uint32_t>(field_of(packet, {sizeof(Packet), 4}));
  KeptObject& program = c.share->objects[{kProgram, name}];
  if (packet.op == kOpLinkProgram) {
    // Of what came before, what the new link does not see any more is of no use: shaders that are detached
    // again, links that are superseded, and the values of all uniforms.
    std::erase_if(program.set, [](const auto& entry) {
      return packet_of(entry.second.packet).op != kOpUniformBlockBinding;
    });
    std::erase_if(program.steps,
                  [](const Kept& step) { return packet_of(step.packet).op == kOpLinkProgram; });
    KeptList steps;
    for (Kept& step : program.steps) {
      const Packet& call = packet_of(step.packet);
      if (call.op != kOpDetachShader) {
        steps.push_back(std::move(step));
        continue;
      }
      const uint32_t shader = view<PDetachShader>(call).shader;
      std::erase_if(steps, [&](const Kept& other) {
        const Packet& its = packet_of(other.packet);
        return its.op == kOpAttachShader && view<PAttachShader>(its).shader == shader;
      });
    }
    program.steps = std::move(steps);
  }
  program.steps.push_back(keep(packet));
}

// --- Lists

void Log::call_list(KeptContext& c, uint32_t list) {
  constexpr int kDeepest = 64;
  auto found = c.share->lists.find(list);
  if (found == c.share->lists.end() || list_depth_ > kDeepest) return;
  if (list_depth_ == 0) list_calls_left_ = kMostListCalls;
  struct Deeper {
    explicit Deeper(int& depth) : depth_(depth) { ++depth_; }
    ~Deeper() { --depth_; }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;
    int& depth_;
  } deeper(list_depth_);
  // What makes or removes lists is never part of one.
  for (const Kept& one : found->second) {
    const Packet& packet = packet_of(one.packet);
    if (--list_calls_left_ < 0) break;
    if (packet.op < kOpFirstGl || packet.op == kOpNewList || packet.op == kOpEndList) continue;
    const EffectRule& rule = rule_of(packet.op);
    switch (rule.effect) {
      case Effect::k_draw:
      case Effect::k_vertex:
      case Effect::k_begin:
      case Effect::k_end:
        break;
      case Effect::k_calllist:
        call_list(c, view<PCallList>(packet).list);
        break;
      default:
        apply(c, packet, rule);
    }
  }
}

void Log::call_lists(KeptContext& c, const Packet& packet) {
  const auto& p = view<PCallLists>(packet);
  if (p.n <= 0 || p.lists_bytes == kNull) return;
  uint32_t base = 0;
  for (const auto& [key, call] : c.state) {
    if (packet_of(call.packet).op == kOpListBase) base = view<PListBase>(packet_of(call.packet)).base;
  }
  const auto* at = reinterpret_cast<const unsigned char*>(payload_of(packet, sizeof p, p.lists_bytes));
  const size_t size = p.lists_bytes / static_cast<size_t>(p.n);
  for (GLsizei i = 0; i < p.n; ++i, at += size) {
    uint32_t offset = 0;
    switch (p.type) {
      case GL_BYTE:
        offset = static_cast<uint32_t>(static_cast<int8_t>(*at));
        break;
      case GL_UNSIGNED_BYTE:
        offset = *at;
        break;
      case GL_SHORT: {
        int16_t v;
        std::memcpy(&v, at, 2);
        offset = static_cast<uint32_t>(v);
        break;
      }
      case GL_UNSIGNED_SHORT: {
        uint16_t v;
        std::memcpy(&v, at, 2);
        offset = v;
        break;
      }
      case GL_FLOAT: {
        float v;
        std::memcpy(&v, at, 4);
        offset = static_cast<uint32_t>(v);
        break;
      }
      case GL_2_BYTES:
        offset = at[0] * 256U + at[1];
        break;
      case GL_3_BYTES:
        offset = (at[0] * 256U + at[1]) * 256U + at[2];
        break;
      case GL_4_BYTES:
        offset = ((at[0] * 256U + at[1]) * 256U + at[2]) * 256U + at[3];
        break;
      default:
        std::memcpy(&offset, at, 4);
    }
    call_list(c, base + offset);
  }
}

// --- Replay

class Log::Emitter {
 public:
  explicit Emitter(std::string& out) : out_(out) {}

  void put(const std::string& packets) { out_ += packets; }
  template <typename P>
  P* add(uint16_t op, size_t more = 0) {
    const size_t size = ((sizeof(P) + 7) & ~size_t{7}) + ((more + 7) & ~size_t{7});
    const size_t at = out_.size();
    out_.resize(at + size);
    auto* packet = reinterpret_cast<P*>(out_.data() + at);
    packet->header = {static_cast<uint32_t>(size), op, 0};
    return packet;
  }
  // Valid until the next packet.
  template <typename P>
  static char* payload(P* packet) {
    return reinterpret_cast<char*>(packet) + ((sizeof(P) + 7) & ~size_t{7});
  }

  void use(uint32_t context, uint64_t draw, uint64_t read) {
    auto* packet = add<MakeCurrent>(kOpMakeCurrent);
    packet->context = context;
    packet->draw = draw;
    packet->read = read;
  }
  void bind_texture(uint32_t target, uint32_t name) {
    auto* packet = add<PBindTexture>(kOpBindTexture);
    packet->target = target;
    packet->texture = name;
  }
  void bind_buffer(uint32_t target, uint32_t name) {
    auto* packet = add<PBindBuffer>(kOpBindBuffer);
    packet->target = target;
    packet->buffer = name;
  }
  void unit(uint32_t unit) {
    if (unit_ == unit) return;
    unit_ = unit;
    add<PActiveTexture>(kOpActiveTexture)->texture = GL_TEXTURE0 + unit;
  }
  void matrix_mode(uint32_t mode) {
    if (mode_ == mode) return;
    mode_ = mode;
    add<PMatrixMode>(kOpMatrixMode)->mode = mode;
  }
  void new_context() {
    unit_ = 0;
    mode_ = GL_MODELVIEW;
  }
  uint32_t current_unit() const { return unit_; }

  template <typename Calls>
  static std::vector<const Kept*> in_order(const Calls& calls) {
    std::vector<const Kept*> sorted;
    for (const auto& [key, call] : calls) sorted.push_back(&call);
    std::sort(sorted.begin(), sorted.end(), [](const Kept* a, const Kept* b) { return a->order < b->order; });
    return sorted;
  }

  void generate(uint16_t op, uint32_t name) {
    auto* packet = add<PGenTextures>(op, sizeof name);  // all have the same form
    packet->n = 1;
    std::memcpy(payload(packet), &name, sizeof name);
  }

  void share(const KeptShare& share) {
    for (const auto& [key, object] : share.objects) {
      const auto& [type, name] = key;
      switch (type) {
        case kTexture:
          generate(kOpGenTextures, name);
          break;
        case kBuffer:
          generate(kOpGenBuffers, name);
          break;
        case kRenderbuffer:
          generate(kOpGenRenderbuffers, name);
          break;
        case kSampler:
          generate(kOpGenSamplers, name);
          break;
        case kArbProgram:
          generate(kOpGenProgramsARB, name);
          break;
        case kQuery:
          generate(kOpGenQueries, name);
          put(object.made.packet);
          break;
        default:
          break;
      }
    }
    for (const auto& [key, object] : share.objects) {
      if (key.first == kBuffer) buffer(key.second, object);
    }
    for (const auto& [key, object] : share.objects) {
      if (key.first == kTexture && object.target != 0) texture(key.second, object);
      if (key.first == kArbProgram && object.target != 0) arb_program(key.second, object);
      if (key.first == kSampler) {
        for (const Kept* call : in_order(object.set)) put(call->packet);
      }
      if (key.first == kRenderbuffer) renderbuffer(key.second, object);
    }
    programs(share);
    for (const auto& [name, calls] : share.lists) list(name, calls);
  }

  void buffer(uint32_t name, const KeptObject& object) {
    bind_buffer(GL_ARRAY_BUFFER, name);
    if (object.has_content) {
      auto* packet = add<PBufferData>(kOpBufferData, object.content.size());
      packet->target = GL_ARRAY_BUFFER;
      packet->size = static_cast<GLsizeiptr>(object.content.size());
      packet->usage = object.usage;
      packet->data_bytes = static_cast<uint32_t>(object.content.size());
      std::memcpy(payload(packet), object.content.data(), object.content.size());
    }
    bind_buffer(GL_ARRAY_BUFFER, 0);
  }

  void texture(uint32_t name, const KeptObject& object) {
    bind_texture(object.target, name);
    std::vector<const Kept*> calls = in_order(object.set);
    for (const Kept& step : object.steps) calls.push_back(&step);
    std::sort(calls.begin(), calls.end(), [](const Kept* a, const Kept* b) { return a->order < b->order; });
    for (const Kept* call : calls) put(call->packet);
    bind_texture(object.target, 0);
  }

  void bind_arb_program(uint32_t target, uint32_t name) {
    auto* packet = add<PBindProgramARB>(kOpBindProgramARB);
    packet->target = target;
    packet->program = name;
  }
  void arb_program(uint32_t name, const KeptObject& object) {
    bind_arb_program(object.target, name);
    for (const Kept* call : in_order(object.set)) put(call->packet);
    bind_arb_program(object.target, 0);
  }

  void renderbuffer(uint32_t name, const KeptObject& object) {
    add<PBindRenderbuffer>(kOpBindRenderbuffer)->target = GL_RENDERBUFFER;
    reinterpret_cast<PBindRenderbuffer*>(out_.data() + out_.size() - sizeof(PBindRenderbuffer))
        ->renderbuffer = name;
    for (const Kept* call : in_order(object.set)) put(call->packet);
  }

  // Shaders first, but in the order in which they were made, as programs are.
  void programs(const KeptShare& share) {
    std::vector<const Kept*> steps;
    std::vector<std::pair<uint32_t, const KeptObject*>> with_uniforms;
    std::vector<uint32_t> deleted;
    for (const auto& [key, object] : share.objects) {
      if (key.first != kProgram || object.made.packet.empty()) continue;
      const bool is_shader = packet_of(object.made.packet).op == kOpCreateShader;
      steps.push_back(&object.made);
      if (is_shader) {
        for (const auto& [part, call] : object.set) steps.push_back(&call);
      } else {
        for (const Kept& step : object.steps) steps.push_back(&step);
        with_uniforms.push_back({key.second, &object});
      }
      if (object.deleted) deleted.push_back(key.second);
    }
    std::sort(steps.begin(), steps.end(), [](const Kept* a, const Kept* b) { return a->order < b->order; });
    for (const Kept* step : steps) put(step->packet);
    for (const auto& [name, object] : with_uniforms) {
      if (object->set.empty()) continue;
      add<PUseProgram>(kOpUseProgram)->program = name;
      for (const Kept* call : in_order(object->set)) put(call->packet);
    }
    if (!with_uniforms.empty()) add<PUseProgram>(kOpUseProgram)->program = 0;
    for (uint32_t name : deleted) {
      const auto& object = share.objects.at({kProgram, name});
      if (packet_of(object.made.packet).op == kOpCreateShader)
        add<PDeleteShader>(kOpDeleteShader)->shader = name;
    }
  }

  void list(uint32_t name, const KeptList& calls) {
    if (!calls.empty()) {
      for (const Kept& call : calls) {
        if (packet_of(call.packet).op == kOpNewList) {
          auto* packet = add<PNewList>(kOpNewList);
          packet->list = name;
          packet->mode = GL_COMPILE;
        } else {
          put(call.packet);
        }
      }
      return;
    }
    auto* packet = add<PNewList>(kOpNewList);
    packet->list = name;
    packet->mode = GL_COMPILE;
    add<PEndList>(kOpEndList);
  }

  void containers(const KeptContext& c) {
    for (const auto& [target, object] : c.default_textures) {
      for (const Kept* call : in_order(object.set)) put(call->packet);
    }
    for (const auto& [target, object] : c.default_arb_programs) {
      for (const Kept* call : in_order(object.set)) put(call->packet);
    }
    for (const auto& [name, array] : c.arrays) {
      if (name != 0) {
        generate(kOpGenVertexArrays, name);
        add<PBindVertexArray>(kOpBindVertexArray)->array = name;
      }
      for (const Kept* call : in_order(array.set)) put(call->packet);
      if (name != 0) add<PBindVertexArray>(kOpBindVertexArray)->array = 0;
    }
    bind_buffer(GL_ARRAY_BUFFER, 0);
    for (const auto& [name, framebuffer] : c.framebuffers) {
      if (name != 0) {
        generate(kOpGenFramebuffers, name);
        bind_framebuffer(name);
      }
      for (const Kept* call : in_order(framebuffer.set)) put(call->packet);
      if (name != 0) bind_framebuffer(0);
    }
  }
  void bind_framebuffer(uint32_t name) {
    auto* packet = add<PBindFramebuffer>(kOpBindFramebuffer);
    packet->target = GL_FRAMEBUFFER;
    packet->framebuffer = name;
  }

  void matrix(const KeptList& calls) {
    if (calls.empty() || rule_of(packet_of(calls.front().packet).op).effect != Effect::k_load)
      add<PLoadIdentity>(kOpLoadIdentity);
    for (const Kept& call : calls) put(call.packet);
  }

  void state(const StateMap& calls) {
    std::vector<const StateCall*> sorted;
    for (const auto& [key, call] : calls) sorted.push_back(&call);
    std::sort(sorted.begin(), sorted.end(), [](const Kept* a, const Kept* b) { return a->order < b->order; });
    for (const auto& [key, call] : calls) units_[&call] = key.unit;
    for (const StateCall* call : sorted) {
      const uint16_t op = packet_of(call->packet).op;
      if (op == kOpActiveTexture || op == kOpMatrixMode) continue;  // last of all
      if (call->of_unit) unit(units_[call] - 1U);
      if (call->eye) {
        matrix_mode(GL_MODELVIEW);
        matrix(*call->eye);
      }
      put(call->packet);
    }
    units_.clear();
  }

  void matrices(const KeptContext& c) {
    for (const auto& [where, stack] : c.matrices) {
      if (where.first == GL_TEXTURE) unit(where.second);
      matrix_mode(where.first);
      for (size_t i = 0; i < stack.levels.size(); ++i) {
        if (i != 0) add<PPushMatrix>(kOpPushMatrix);
        matrix(*stack.levels[i]);
      }
    }
    // Something may have been seen through another matrix.
    if (!c.matrices.contains({GL_MODELVIEW, 0})) {
      matrix_mode(GL_MODELVIEW);
      add<PLoadIdentity>(kOpLoadIdentity);
    }
  }

  void context(const KeptContext& c, bool is_compatible) {
    containers(c);
    for (const AttributeLevel& level : c.attributes) {
      state(level.state);
      put(level.push.packet);
    }
    state(c.state);
    if (is_compatible) matrices(c);
    unit(c.active_unit);
    if (is_compatible) {
      matrix_mode(c.matrix_mode);
      // Mesa 22 goes on with a current value that was set before contexts changed, even after glPopAttrib,
      // unless a primitive came in between.
      add<PBegin>(kOpBegin)->mode = GL_POINTS;
      add<PEnd>(kOpEnd);
    }
    if (c.list != 0) {
      for (const Kept& call : c.list_calls) put(call.packet);
    }
    for (const Kept& call : c.primitive) put(call.packet);
  }

 private:
  std::string& out_;
  uint32_t unit_ = 0;
  uint32_t mode_ = GL_MODELVIEW;
  std::unordered_map<const StateCall*, uint16_t> units_;
};

namespace {

// The fixed-function matrices exist in compatible contexts only.
bool has_matrices(const std::string& create) {
  const int32_t profile = attribute_of(create, kProfile, kCoreProfile);
  if ((profile & kEsProfile) != 0) return false;
  const int32_t version =
      attribute_of(create, kMajorVersion, 1) * 10 + attribute_of(create, kMinorVersion, 0);
  return version < 31 || (version >= 32 && (profile & kCompatibilityProfile) != 0);
}

}  // namespace

// With the surfaces that a context has or had, else some that there are; one that was never current has no
// state.
KeptThread Log::place_of(uint32_t context) const {
  const auto found = contexts_.find(context);
  if (found != contexts_.end() && found->second.last.draw != 0) return found->second.last;
  for (const auto& [number, other] : contexts_) {
    if (other.last.draw != 0 && other.last.draw < kFirstEglSurface) return other.last;
  }
  return {};
}

std::string Log::replay() const {
  std::string out;
  Emitter emitter(out);
  for (const auto& [number, surface] : surfaces_) emitter.put(surface);
  for (const auto& [number, context] : contexts_) emitter.put(context.create);
  std::vector<const KeptShare*> done;
  for (const auto& [number, context] : contexts_) {
    const KeptThread where = place_of(number);
    if (where.draw == 0) continue;
    emitter.use(number, where.draw, where.read);
    emitter.new_context();
    if (std::find(done.begin(), done.end(), context.share.get()) == done.end()) {
      emitter.share(*context.share);
      done.push_back(context.share.get());
    }
    if (auto drawn = drawn_.find(where.draw); drawn != drawn_.end() && where.context == number) {
      for (const auto& [target, contents] : drawn->second.contents) emitter.put(contents.packet);
    }
    emitter.context(context, has_matrices(context.create));
    emitter.put(context.swap_interval);
  }
  emitter.use(0, 0, 0);
  // Nobody waits for these answers.
  for (size_t at = 0; at < out.size();) {
    auto* packet = reinterpret_cast<Packet*>(out.data() + at);
    packet->flags &= static_cast<uint16_t>(~kWantsReply);
    at += packet->size;
  }
  return out;
}

std::map<uint32_t, std::string> Log::threads() const {
  std::map<uint32_t, std::string> found;
  for (const auto& [ring, thread] : threads_)
    Emitter(found[ring]).use(thread.context, thread.draw, thread.read);
  return found;
}

LogStatistics Log::statistics() const {
  LogStatistics statistics;
  statistics.recorded = order_;
  const std::string log = replay();
  statistics.bytes = log.size();
  for (size_t at = 0; at < log.size(); at += reinterpret_cast<const Packet*>(log.data() + at)->size)
    ++statistics.kept;
  for (const auto& [number, context] : contexts_) statistics.objects += context.share->objects.size();
  return statistics;
}

}  // namespace stasis::gl
