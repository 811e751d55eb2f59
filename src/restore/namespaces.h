// The namespaces that the program had made for itself inside the session.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "image/reader.h"
#include "kernel/proc.h"
#include "restore/mounts.h"
#include "schema/manifest.pb.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::restore {

class Namespaces {
 public:
  // How those of the session will differ from the host's. Before make().
  void set_clocks(const kernel::ClockOffsets& clocks) { clocks_ = clocks; }
  // In the builder, in the namespaces of the session, before anything else is made. Our own descriptors of
  // them are kept at `base` and above. `held`: see make_networks().
  Result<void> make(const image::Image& image, int base, std::map<std::string, Fd>& held);
  // In init, when the session has its /proc.
  Result<void> complete();
  // Of all networks, when their sockets are connected: they may forbid that.
  Result<void> make_filters(const schema::Manifest& manifest);
  // See there.
  Result<void> complete_inner(const Mounts::MountProcesses& mount);

  int descriptor(uint32_t id) const;
  // Of users.
  const schema::Namespace* users(uint32_t id) const;
  uint64_t type(uint32_t id) const;

  // Where something is made: in these namespaces, and in those of the session for all other types; and, if
  // that is not 0, with the root of a mount as the root directory, or the directory on which the mount is.
  struct Where {
    std::vector<uint32_t> ids;
    uint32_t mount = 0;
    bool beneath = false;
    bool operator==(const Where&) const = default;
  };
  void close() { mounts_of_image_.close(); }

  // Lets our own process do something there, or, when it could not come back, one that shares our memory and
  // our descriptors.
  Result<void> within(const Where& where, const std::function<Result<void>()>& act);
  // Our own process in mount namespaces, as long as it lives.
  class Inside {
   public:
    static Result<Inside> enter(Namespaces& all, const Where& where);
    Inside(Inside&& other) noexcept;
    Inside& operator=(Inside&&) = delete;
    ~Inside();

   private:
    Inside() = default;
    Namespaces* all_ = nullptr;
    Where before_;
  };

 private:
  struct Made {
    uint64_t type = 0;
    const schema::Namespace* record = nullptr;
    Fd fd;
  };
  Result<Fd> unshare(const schema::Namespace& wanted);
  Result<void> make_one(const schema::Namespace& wanted, int base);
  Result<void> make_time(const schema::Namespace& wanted, int base);
  Result<void> keep(const schema::Namespace& wanted, Fd fd, int base);
  Result<void> go(const Where& where);
  bool leaves_for_good(const Where& where);
  void note_place(const Where& where);

  kernel::ClockOffsets clocks_;
  std::map<uint32_t, Made> made_;
  Fd network_, mounts_, directory_;  // of the session, and where we are in it
  Where now_;
  std::optional<bool> may_return_;
  Mounts mounts_of_image_;
};

}  // namespace stasis::restore
