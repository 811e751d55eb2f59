// Objects: which call sets, makes, binds, fills or ends which.
#include <GL/gl.h>
#include <GL/glext.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "generated/commands.h"
#include "keeper/log.h"
#include "keeper/packets.h"

namespace stasis::gl {

namespace {

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

}  // namespace

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
    constexpr size_t kMost = 1 << 20;
    if (p.range < 0 || static_cast<size_t>(p.range) + c.share->lists.size() > kMost)
      throw BadStream{"too many lists"};
    for (GLsizei i = 0; i < p.range; ++i) (void)c.share->lists[p.first + static_cast<GLuint>(i)];
    return;
  }
  if (packet.op == kOpFenceSync) {
    struct Request : PFenceSync {
      uint64_t number;
    };
    const auto& p = view<Request>(packet);
    if (p.condition == GL_SYNC_GPU_COMMANDS_COMPLETE && p.flags == 0)
      c.share->fences[p.number] = bytes_of(packet);
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
  if (packet.op == kOpDeleteSync) {
    c.share->fences.erase(view<PDeleteSync>(packet).sync);
    return;
  }
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

}  // namespace stasis::gl
