// The numbers of tasks, groups and sessions in pid namespaces below the session's.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "schema/manifest.pb.h"
#include "stasis/types.h"

namespace stasis::restore {

class Numbers {
 public:
  struct Of {
    std::vector<int> levels;  // the number in the session first, that in its own namespace last
    uint32_t space = 0;       // its pid namespace: Manifest.namespaces; 0: the session's
  };

  Numbers() = default;
  explicit Numbers(const schema::Manifest& manifest);

  // Whether there are such namespaces at all.
  bool nested() const { return !parents_.empty(); }
  // Of a task, or of the leader of a group or session that may have ended, by the number in the session.
  Of find(int number) const;
  // As a process in `space` knows it; 0: not at all.
  int seen_from(uint32_t space, int number) const;
  uint32_t parent(uint32_t space) const;
  // The user namespace to which it belongs; 0: the session's.
  uint32_t owner(uint32_t space) const;
  // Whether whoever has all rights in the user namespace `users` has them in `other`, too.
  bool rules(uint32_t users, uint32_t other) const;
  // Whether there are user namespaces.
  bool has_users() const { return !above_users_.empty(); }
  // How many are above it; of the session's 0.
  size_t depth(uint32_t space) const;
  // A number that nothing has anywhere, for a helper in this namespace: one for each level.
  Of spare(uint32_t space) const;

 private:
  void add(int number, const google::protobuf::RepeatedField<int32_t>& inner, uint32_t space);
  bool is_below(uint32_t space, uint32_t other) const;

  std::map<int, Of> inner_;  // those that are below
  std::map<uint32_t, uint32_t> parents_, owners_;
  std::map<uint32_t, uint32_t> above_users_;  // of user namespaces
  int spare_ = 2;
};

// By which the process knows itself.
NsTid own_number(const schema::Process& process);
NsTid own_number(const schema::Thread& thread);

}  // namespace stasis::restore
