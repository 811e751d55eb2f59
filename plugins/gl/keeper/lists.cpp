// Display lists: what they do to the state when they are called.
#include <GL/gl.h>
#include <GL/glext.h>

#include <algorithm>
#include <cstring>

#include "generated/commands.h"
#include "keeper/log.h"
#include "keeper/packets.h"
#include "wire/names.h"

namespace stasis::gl {

void Log::call_list(KeptContext& c, uint32_t list) {
  constexpr int kDeepest = 64;
  auto found = c.share->lists.find(list);
  if (found == c.share->lists.end() || list_depth_ > kDeepest) return;
  if (list_depth_ == 0) list_calls_left_ = kMostListCalls;
  if (--list_calls_left_ < 0) return;
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
    if (packet.op < kOpFirstGl || packet.op == kOpNewList || packet.op == kOpEndList) continue;
    const EffectRule& rule = rule_of(packet.op);
    switch (rule.effect) {
      case Effect::k_draw:
        (void)mark_accumulated(c, packet);
        break;
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
  const size_t size = size_of_list_name(p.type);
  if (size == 0) return;  // an error of the program's
  if (static_cast<size_t>(p.n) > p.lists_bytes / size) throw BadStream{"more lists than there are names of"};
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

}  // namespace stasis::gl
