// What each command does to the driver's state. The table is generated from registry/commands.rules.
#pragma once

#include <cstdint>

#include "wire/names.h"

namespace stasis::gl {

enum class Effect : uint8_t {
  k_none,
  k_query,
  k_draw,
  k_state,
  k_object,
  k_create,
  k_destroy,
  k_bind,
  k_image,
  k_subimage,
  k_data,
  k_subdata,
  k_program,
  k_load,
  k_multiply,
  k_pushmatrix,
  k_popmatrix,
  k_begin,
  k_end,
  k_vertex,
  k_newlist,
  k_endlist,
  k_calllist,
  k_calllists,
  k_pushattrib,
  k_popattrib,
  k_readback,
};
enum class On : uint8_t {
  k_context,
  k_texture,
  k_buffer,
  k_array,
  k_framebuffer,
  k_renderbuffer,
  k_program,
  k_shader,
  k_sampler,
  k_arbprogram,
};
enum RuleFlags : uint8_t { kOfUnit = 1, kOfEye = 2 };

struct Field {
  uint16_t offset;
  uint16_t size;
};

struct EffectRule {
  Effect effect;
  On on;
  NameType type;  // of the names that the command makes, binds or destroys
  uint8_t flags;
  uint16_t slot;    // calls of the same slot and keys supersede each other
  uint32_t groups;  // of glPushAttrib
  Field object;     // the argument that tells the object; its size is 0 when there is none
  uint8_t keys;
  Field key[8];
};
extern const EffectRule kEffects[];

}  // namespace stasis::gl
