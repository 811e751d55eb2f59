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

// Lets a child of ours enter a user namespace and make something there; while it waits `take` gets what it
// has made, as /proc/PID of it shows. For namespaces that belong to that user namespace.
Result<void> in_users(int users, const std::function<Result<void>()>& make,
                      const std::function<Result<void>(HostTid child)>& take);

// The number inside of an id that the session's user namespace has; kNoId: there is none.
inline constexpr uint32_t kNoId = ~uint32_t{0};
uint32_t id_inside(const google::protobuf::RepeatedPtrField<schema::IdRange>& ranges, uint32_t id);

}  // namespace stasis::restore
