// Names of unix sockets: paths, relative or not, and abstract ones.
#pragma once

#include <string>

#include "base/result.h"
#include "resource/descriptor.h"
#include "resource/socket/unix_diag.h"
#include "schema/kinds/socket.pb.h"

namespace stasis::resource {

// The name of the socket and what its file is like.
void observe_unix_name(const OpenFile& file, const UnixDiag& diag, schema::UnixSocket& message);

// Gives the socket its name again. A file that a dead socket left behind is replaced, never one that is in
// use.
Result<void> bind_unix(const Record& record, int fd, const schema::UnixSocket& message);

// connect() to the name that `listener` was bound to, from where its path counts. 0 or -1 with errno.
int connect_unix(int fd, const schema::UnixSocket& listener);

// For people: "/run/x.sock", "@abstract".
std::string unix_name(const std::string& address);

}  // namespace stasis::resource
