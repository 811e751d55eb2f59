// The pruned log: of all calls of a program those that a fresh driver needs to get into the same state. Kept
// while the program runs; what a call supersedes is freed at once, so the log is as large as the state.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "keeper/rules.h"
#include "wire/packet.h"

namespace stasis::gl {

// One call. `order` counts the calls of the program.
struct Kept {
  uint64_t order = 0;
  std::string packet;
};
using KeptList = std::vector<Kept>;

// A matrix: the call that made it, of one that is made as the product of another. Those of a stack share what
// they have in common.
struct MatrixCall : Kept {
  MatrixCall(Kept call, std::shared_ptr<MatrixCall> made_of)
      : Kept(std::move(call)), before(std::move(made_of)) {}
  // Not one destructor within the other: there may be a million of them.
  ~MatrixCall() {
    while (before && before.use_count() == 1) before = std::shared_ptr<MatrixCall>(std::move(before->before));
  }
  MatrixCall(const MatrixCall&) = delete;
  MatrixCall& operator=(const MatrixCall&) = delete;
  std::shared_ptr<MatrixCall> before;
};
using Matrix = std::shared_ptr<MatrixCall>;  // null: the identity

// What calls supersede each other by.
struct Key {
  uint16_t slot = 0;
  uint16_t unit = 0;
  uint64_t part[8] = {};
  bool operator==(const Key&) const = default;
};
struct KeyHash {
  size_t operator()(const Key& key) const {
    uint64_t hash = key.slot * 0x9e3779b97f4a7c15U + key.unit;
    for (int i = 0; i < 3; ++i) hash = (hash ^ key.part[i]) * 0x9e3779b97f4a7c15U;
    return hash ^ hash >> 32;
  }
};

struct StateCall : Kept {
  uint32_t groups = 0;  // of glPushAttrib
  bool of_unit = false;
  bool has_eye = false;
  Matrix eye;  // the modelview matrix that it was seen through
};
using StateMap = std::unordered_map<Key, StateCall, KeyHash>;

struct KeptObject {
  bool exists = false;
  bool deleted = false;  // by the program, but something may still need it
  uint32_t target = 0;   // of the first binding
  Kept made;             // the call that made it, where that has arguments
  std::unordered_map<Key, Kept, KeyHash> set;
  KeptList steps;        // that depend on their order: attach, detach, link; images that mipmaps were made of
  uint64_t mipmaps = 0;  // when they were made of the images
  // Of a buffer: its contents, and the call that gave it its size.
  std::string content;
  uint32_t usage = 0;
  bool has_content = false;
  // Images, by face and level, that the driver has drawn or copied since they were read back.
  std::set<std::pair<uint32_t, int32_t>> written;
};

struct KeptShare {
  std::map<std::pair<uint32_t, uint32_t>, KeptObject> objects;  // by type and name
  std::map<uint32_t, KeptList> lists;
  std::map<uint64_t, std::string> fences;  // the next driver's are reached at once
};

struct MatrixStack {
  std::vector<Matrix> levels;
};

struct AttributeLevel {
  uint32_t mask = 0;
  Kept push;
  StateMap state;  // as it was
  uint32_t active_unit = 0, matrix_mode = 0;
};

struct KeptThread {
  uint32_t context = 0;
  uint64_t draw = 0, read = 0;
};

struct KeptContext {
  std::string create;
  KeptThread last;  // where it is or was current
  std::string swap_interval;
  std::shared_ptr<KeptShare> share;
  StateMap state;
  std::map<std::pair<uint32_t, uint32_t>, MatrixStack> matrices;  // by mode and texture unit
  std::vector<AttributeLevel> attributes;
  std::map<uint32_t, KeptObject> arrays, framebuffers, default_textures;
  std::map<std::pair<uint32_t, uint32_t>, uint32_t> textures;  // by unit and target
  std::map<uint32_t, uint32_t> buffers;                        // by target
  std::map<uint32_t, uint32_t> arb_programs;                   // by target
  std::map<uint32_t, KeptObject> default_arb_programs;
  uint32_t active_unit = 0, client_unit = 0, matrix_mode = 0x1700 /* GL_MODELVIEW */;
  uint32_t array = 0, draw_framebuffer = 0, read_framebuffer = 0, renderbuffer = 0, program = 0;
  // A list that is being compiled.
  uint32_t list = 0;
  bool list_executes = false;
  KeptList list_calls;
  uint64_t marked = 0;  // when what is drawn into was last marked as written
  bool feedback = false;
  // A primitive that has been begun.
  KeptList primitive;
  bool in_primitive = false;
};

// A window or pbuffer.
struct KeptSurface {
  bool written = false;               // since its buffers were last swapped or read back
  bool accumulated = false;           // into its accumulation buffer, which swapping leaves as it is
  std::map<uint32_t, Kept> contents;  // by the target of the packet
};

struct LogStatistics {
  uint64_t recorded = 0, kept = 0, bytes = 0, objects = 0;
};

class Log {
 public:
  // A call that came through the ring of that number. False: the log is as before.
  bool add(uint32_t ring, const Packet& packet);
  void end_thread(uint32_t ring) { threads_.erase(ring); }

  // Packets that bring a fresh driver into this state, and for each ring those that give its thread its
  // context.
  std::string replay() const;
  std::map<uint32_t, std::string> threads() const;
  LogStatistics statistics() const;

  // What only the driver knows. Questions are for a renderer that stands where the log ends; its answers are
  // kept as if the program had uploaded them.
  bool has_written() const;
  std::string questions() const;
  void take_answers(const std::string& questions, const std::string& answers);
  // Something could not be read.
  bool is_incomplete() const { return incomplete_; }

 private:
  class Emitter;
  bool control(KeptThread& thread, const Packet& packet);
  bool call(const KeptThread& thread, KeptContext& c, const Packet& packet);
  void apply(KeptContext& c, const Packet& packet, const EffectRule& rule);
  bool compile(KeptContext& c, const Packet& packet, const EffectRule& rule);
  void set_state(KeptContext& c, const Packet& packet, const EffectRule& rule);
  void set_object(KeptContext& c, const Packet& packet, const EffectRule& rule);
  void set_image(KeptContext& c, const Packet& packet, const EffectRule& rule);
  void set_data(KeptContext& c, const Packet& packet);
  void set_subdata(KeptContext& c, const Packet& packet);
  void bind(KeptContext& c, const Packet& packet, const EffectRule& rule);
  void create(KeptContext& c, const Packet& packet, const EffectRule& rule);
  void destroy(KeptContext& c, const Packet& packet, const EffectRule& rule);
  void sweep_programs(KeptShare& share);
  void add_step(KeptContext& c, const Packet& packet);
  void change_matrix(KeptContext& c, const Packet& packet, const EffectRule& rule);
  void push_attributes(KeptContext& c, const Packet& packet);
  void pop_attributes(KeptContext& c);
  void call_list(KeptContext& c, uint32_t list);
  void call_lists(KeptContext& c, const Packet& packet);
  KeptObject* object_of(KeptContext& c, const Packet& packet, const EffectRule& rule);
  Kept keep(const Packet& packet);
  bool mark_drawn(const KeptThread& thread, KeptContext& c);
  bool mark_accumulated(const KeptContext& c, const Packet& packet);
  void mark_attachments(KeptContext& c);
  void mark_feedback(KeptContext& c);
  KeptObject* bound_texture(KeptContext& c, uint32_t target);
  KeptObject* bound_buffer(KeptContext& c, uint32_t target);
  bool add_by_driver(KeptContext& c, const Packet& packet);
  void end_query(KeptContext& c, const Packet& packet);
  void copy_image(KeptContext& c, const Packet& packet);
  void copy_buffer(KeptContext& c, const Packet& packet);
  void make_mipmaps(KeptContext& c, const Packet& packet);
  void mark_again(KeptContext& c, const Contents& question);
  void add_contents(const KeptThread& thread, const Packet& packet);
  KeptThread place_of(uint32_t context) const;

  uint64_t order_ = 0;
  // Lists that call themselves call more than anybody could wait for.
  static constexpr int kMostListCalls = 1 << 16;
  int list_calls_left_ = 0, list_depth_ = 0;
  bool has_deleted_ = false;
  bool incomplete_ = false;
  std::map<uint32_t, KeptThread> threads_;
  std::map<uint32_t, KeptContext> contexts_;
  std::map<uint64_t, std::string> surfaces_;
  std::map<uint64_t, KeptSurface> drawn_;
  uint64_t epoch_ = 1;  // changes whenever calls may draw somewhere else than before
};

}  // namespace stasis::gl
