// Socket options: one table of those that a program can set and ask for.
#pragma once

#include <google/protobuf/repeated_ptr_field.h>

#include "schema/kinds/socket.pb.h"
#include "stasis/descriptor.h"

namespace stasis::resource {

enum class OptionStage {
  kBeforeBind,  // decides which addresses may be bound
  kMade,        // as soon as the socket is what it was
  kFilled,      // would disturb the restoring: what holds back data or connections
};

using SocketOptions = google::protobuf::RepeatedPtrField<schema::SocketOption>;

// Asks for all options of the table that the socket has. An Error when it has state that cannot be asked for.
Result<void> observe_options(const OpenFile& file, SocketOptions& options);

// All but one.
SocketOptions without(const SocketOptions& options, int level, int name);

// Sets a single one, if it was saved.
Result<void> apply_option(const Record& record, int fd, const SocketOptions& options, int level, int name);
// Sets those of one stage whose value differs from the socket's present one: setting even the default value
// of a buffer size would switch off its automatic growth.
Result<void> apply_options(const Record& record, int fd, const SocketOptions& options, OptionStage stage);

}  // namespace stasis::resource
