// What the parts of the log know of packets and keys.
#pragma once

#include <GL/gl.h>
#include <GL/glext.h>

#include <cstdint>
#include <cstring>
#include <string>

#include "generated/commands.h"
#include "keeper/log.h"
#include "keeper/rules.h"
#include "reader/ring_reader.h"
#include "wire/packet.h"

namespace stasis::gl {

// Slots beyond those of the rules.
enum OwnSlot : uint16_t {
  // All calls that make an image of a level are one slot, all that change a part of it another.
  kImage = 0xfe00,
  kPart,
  kContents,
  kBindTexture = 0xff00,
  kBindBuffer,
  kBindFramebuffer,
  kBindRenderbuffer,
  kUseProgram,
  kBindArray,
  kBindElements,
  kBindArbProgram
};

inline const EffectRule& rule_of(uint16_t op) {
  if (op >= kOpGlEnd) throw BadStream{"an unknown operation"};
  return kEffects[op - kOpFirstGl];
}

// Targets that share a binding.
inline uint32_t binding_target(uint32_t target) {
  if (target >= GL_TEXTURE_CUBE_MAP_POSITIVE_X && target <= GL_TEXTURE_CUBE_MAP_NEGATIVE_Z)
    return GL_TEXTURE_CUBE_MAP;
  return target;
}

inline uint64_t field_of(const Packet& packet, Field field) {
  uint64_t value = 0;
  if (size_t{field.offset} + field.size > packet.size) throw BadStream{"a packet is too short"};
  std::memcpy(&value, reinterpret_cast<const char*>(&packet) + field.offset, field.size);
  return value;
}

inline Key key_of(const Packet& packet, const EffectRule& rule) {
  Key key;
  key.slot = rule.slot;
  for (int i = 0; i < rule.keys; ++i) key.part[i] = field_of(packet, rule.key[i]);
  return key;
}

inline std::string bytes_of(const Packet& packet) {
  return std::string(reinterpret_cast<const char*>(&packet), packet.size);
}

inline const Packet& packet_of(const std::string& bytes) {
  return *reinterpret_cast<const Packet*>(bytes.data());
}

inline const char* payload_of(const Packet& packet, size_t fixed, size_t bytes) {
  const size_t start = (fixed + 7) & ~size_t{7};
  if (start + bytes > packet.size) throw BadStream{"a payload is larger than its packet"};
  return reinterpret_cast<const char*>(&packet) + start;
}

// Of glXCreateContextAttribsARB.
inline int32_t attribute_of(const std::string& create, int32_t name, int32_t otherwise) {
  const Packet& packet = packet_of(create);
  const auto& p = view<CreateContext>(packet);
  if (p.attributes == kNull) return otherwise;
  for (size_t at = sizeof p; at + 8 <= packet.size && at < sizeof p + p.attributes * size_t{4}; at += 8) {
    int32_t pair[2];
    std::memcpy(pair, create.data() + at, sizeof pair);
    if (pair[0] == name) otherwise = pair[1];
  }
  return otherwise;
}
constexpr int32_t kMajorVersion = 0x2091, kMinorVersion = 0x2092, kProfile = 0x9126;
enum ProfileBit : int32_t { kCoreProfile = 1, kCompatibilityProfile = 2, kEsProfile = 4 };

}  // namespace stasis::gl
