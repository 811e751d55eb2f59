// Multicast groups of internet sockets.
#pragma once

#include <google/protobuf/repeated_ptr_field.h>

#include "schema/kinds/socket.pb.h"
#include "stasis/descriptor.h"

namespace stasis::resource {

using Memberships = google::protobuf::RepeatedPtrField<schema::Membership>;

// The kernel lists the groups of an interface and not those of a socket; a socket can be asked about one.
void observe_memberships(const OpenFile& file, Memberships& memberships);
Result<void> join_groups(const Record& record, int fd, const Memberships& memberships);

}  // namespace stasis::resource
