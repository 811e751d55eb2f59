#include "encoder/contexts.h"

#include <cstdlib>

#include "encoder/connection.h"

namespace stasis::gl {

Context* make_context(uint32_t number, Context* share) {
  auto* made = static_cast<Context*>(zeroed(sizeof(Context)));
  made->number = number;
  made->vertices = &made->default_vertices;
  made->pack.alignment = made->unpack.alignment = 4;
  made->render_mode = GL_RENDER;
  if (share != nullptr) {
    made->share = share->share;
  } else {
    made->share = static_cast<Share*>(zeroed(sizeof(Share)));
    for (auto& next : made->share->next_name) next = 1;
  }
  ++made->share->users;
  return made;
}

void release_context(Context* context) {
  if (--context->share->users == 0) free(context->share);
  for (Text& text : context->texts) free(text.text);
  free(context);
}

EglAnswer make_current(Context* context, void* display, uint64_t draw, uint64_t read) {
  Stream* s = Connection::thread_stream();
  if (s == nullptr) return {};
  auto* packet = static_cast<MakeCurrent*>(s->begin(kOpMakeCurrent, sizeof(MakeCurrent)));
  packet->context = context != nullptr ? context->number : 0;
  packet->pad = 0;
  packet->draw = draw;
  packet->read = read;
  const auto answer = s->ask().result<EglAnswer>();
  if (answer.done == 0) return answer;
  if (s->context != nullptr && s->context != context) s->context->user = nullptr;
  s->context = context;
  if (context != nullptr) {
    context->user = s;
    context->display = display;
    context->draw = draw;
    context->read = read;
  }
  current_stream = context != nullptr ? s : nullptr;
  return answer;
}

}  // namespace stasis::gl
