// Which part of the log a call concerns.
#include "keeper/log.h"

#include <GL/gl.h>
#include <GL/glext.h>

#include <algorithm>
#include <cstring>

#include "generated/commands.h"
#include "keeper/packets.h"
#include "reader/ring_reader.h"
#include "wire/egl.h"

namespace stasis::gl {

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
      if (auto drawn = drawn_.find(view<SurfaceCall>(packet).surface); drawn != drawn_.end()) {
        drawn->second.written = false;
        std::erase_if(drawn->second.contents, [](const auto& one) { return one.first != GL_ACCUM; });
      }
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
  bool marked = draws && (c.list == 0 || c.list_executes) && mark_drawn(thread, c);
  if (draws && (c.list == 0 || c.list_executes)) marked |= mark_accumulated(c, packet);
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

}  // namespace stasis::gl
