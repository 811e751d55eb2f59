// Names of unix sockets: paths, relative or not, and abstract ones.
#pragma once

#include <functional>
#include <string>

#include "resource/socket/unix_diag.h"
#include "schema/kinds/socket.pb.h"
#include "stasis/descriptor.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::resource {

// The name of the socket and what its file is like.
void observe_unix_name(const OpenFile& file, const UnixDiag& diag, schema::UnixSocket& message);

// Gives the socket its name again. A file that a dead socket left behind is replaced, never one that is in
// use. When the name was removed, so is it now; the handle (O_PATH) then leads to the socket.
Result<Fd> bind_unix(const Record& record, int fd, const schema::UnixSocket& message);
// The same with a name that another socket has, too, or had: that one's file stays as it is.
Result<Fd> bind_unix_again(const Record& record, int fd, const schema::UnixSocket& message);

// The address by which a socket can be reached, from where its path counts, or by its handle (-1: none).
class Reach {
 public:
  Reach(const schema::UnixSocket& target, int handle);
  // 0 or -1 with errno.
  int connect(int fd) const;
  // Lets `use` send to this address.
  Result<void> with_address(const Record& record,
                            const std::function<Result<void>(const std::string& address)>& use) const;

 private:
  std::string directory_, root_, address_;
};

// The address with its path in another place; what is no path stays. kUsage when no address has room for it.
Result<std::string> relocated(const std::string& address, const DescriptorKind::Place& place);

// For people: "/run/x.sock", "@abstract".
std::string unix_name(const std::string& address);

}  // namespace stasis::resource
