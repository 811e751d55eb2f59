// The log as packets that bring a fresh driver into the same state.
#include <GL/gl.h>
#include <GL/glext.h>

#include <algorithm>
#include <cstring>

#include "generated/commands.h"
#include "keeper/log.h"
#include "keeper/packets.h"
#include "wire/egl.h"

namespace stasis::gl {

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

  // The driver that has counted has died before anybody asked it. To draw too much is better than to leave
  // away what was to be seen.
  void unknown_result(uint32_t name, const KeptObject& query) {
    if (query.made.packet.empty() || packet_of(query.made.packet).op != kOpBeginQuery) return;
    const uint32_t target = view<PBeginQuery>(packet_of(query.made.packet)).target;
    if (target != GL_SAMPLES_PASSED && target != GL_ANY_SAMPLES_PASSED) return;
    constexpr uint64_t kVisible = 1;
    auto* contents = add<Contents>(kOpContents, sizeof kVisible);
    contents->of = kOfQuery;
    contents->name = name;
    contents->width = 1;
    contents->bytes = sizeof kVisible;
    std::memcpy(payload(contents), &kVisible, sizeof kVisible);
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
          for (const Kept* call : in_order(object.set)) put(call->packet);
          if (object.set.empty()) unknown_result(name, object);
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
    for (const auto& [number, fence] : share.fences) put(fence);
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

  // `there`: the matrix that the driver has at that moment.
  void matrix(const Matrix& wanted, const Matrix& there = nullptr) {
    std::vector<const MatrixCall*> calls;
    const MatrixCall* at = wanted.get();
    for (; at != nullptr && at != there.get(); at = at->before.get()) calls.push_back(at);
    const bool is_loaded =
        !calls.empty() && rule_of(packet_of(calls.back()->packet).op).effect == Effect::k_load;
    if (at == nullptr && !is_loaded) add<PLoadIdentity>(kOpLoadIdentity);
    for (; !calls.empty(); calls.pop_back()) put(calls.back()->packet);
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
      if (call->has_eye) {
        matrix_mode(GL_MODELVIEW);
        matrix(call->eye);
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
        matrix(stack.levels[i], i != 0 ? stack.levels[i - 1] : nullptr);
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
