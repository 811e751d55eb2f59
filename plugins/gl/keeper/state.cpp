// State of contexts: what supersedes what, matrices, glPushAttrib.
#include <GL/gl.h>
#include <GL/glext.h>

#include <algorithm>
#include <cstring>

#include "generated/commands.h"
#include "keeper/log.h"
#include "keeper/packets.h"

namespace stasis::gl {

namespace {

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

// What is pushed beyond these is an error, and nothing is pushed. These are the limits of all of Mesa's
// drivers.
constexpr size_t kMostAttributes = 16, kMostMatrices = 32;

}  // namespace

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
    call.has_eye = !stack.levels.empty();
    call.eye = call.has_eye ? stack.levels.back() : nullptr;
  }
}

void Log::change_matrix(KeptContext& c, const Packet& packet, const EffectRule& rule) {
  auto& stack = c.matrices[{c.matrix_mode, c.matrix_mode == GL_TEXTURE ? c.active_unit : 0}];
  if (stack.levels.empty()) stack.levels.emplace_back();
  Matrix& current = stack.levels.back();
  switch (rule.effect) {
    case Effect::k_load:
      current = std::make_shared<MatrixCall>(keep(packet), nullptr);
      return;
    case Effect::k_pushmatrix:
      if (stack.levels.size() < kMostMatrices) stack.levels.push_back(Matrix(current));
      return;
    case Effect::k_popmatrix:
      if (stack.levels.size() > 1) stack.levels.pop_back();
      return;
    default:
      current = std::make_shared<MatrixCall>(keep(packet), current);
  }
}

void Log::push_attributes(KeptContext& c, const Packet& packet) {
  if (c.attributes.size() >= kMostAttributes) return;
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

}  // namespace stasis::gl
