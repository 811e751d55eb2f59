// User namespaces that the program had made for itself inside the session, and what is done in them.
#pragma once

#include <functional>

#include "schema/manifest.pb.h"
#include "stasis/fd.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::restore {

// In the builder. `above`: that in which it was made, and its record; nullptr: the session's.
Result<Fd> make_users(const schema::Namespace& wanted, int above, const schema::Namespace* above_record);

// Our own process, which cannot come back, with all rights there and as one of its users. For a child of
// ours.
Result<void> enter_users(int users, const schema::Namespace& record);

// Lets a process that shares our memory and our descriptors enter a user namespace and do something there.
// `users` < 0: in that of the session.
Result<void> in_users(int users, const schema::Namespace& record, const std::function<Result<void>()>& act);

// The number inside of an id that the session's user namespace has; kNoId: there is none.
inline constexpr uint32_t kNoId = ~uint32_t{0};
uint32_t id_inside(const google::protobuf::RepeatedPtrField<schema::IdRange>& ranges, uint32_t id);

// With ids, also in its options, as the user namespace has them.
schema::FileSystem as_seen_inside(const schema::FileSystem& system, const schema::Namespace& users);

}  // namespace stasis::restore
