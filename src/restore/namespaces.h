// The namespaces that the program had made for itself inside the session.
#pragma once

#include <map>
#include <vector>

#include "image/reader.h"
#include "schema/manifest.pb.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::restore {

class Namespaces {
 public:
  // In the builder, in the namespaces of the session, before anything else is made. Our own descriptors of
  // them are kept at `base` and above.
  Result<void> make(const image::Image& image, int base);
  // In init, when the session has its /proc.
  Result<void> complete(const schema::Manifest& manifest);

  int descriptor(uint32_t id) const;
  // Of users.
  const schema::Namespace* users(uint32_t id) const;
  uint64_t type(uint32_t id) const;

  // Our own process in these namespaces, and in those of the session for all other types, as long as it
  // lives.
  class Inside {
   public:
    static Result<Inside> enter(Namespaces& all, const std::vector<uint32_t>& ids);
    Inside(Inside&& other) noexcept;
    Inside& operator=(Inside&&) = delete;
    ~Inside();

   private:
    Inside() = default;
    Namespaces* all_ = nullptr;
    std::vector<uint32_t> before_;
  };

 private:
  struct Made {
    uint64_t type = 0;
    const schema::Namespace* record = nullptr;
    Fd fd;
  };
  Result<void> keep(const schema::Namespace& wanted, Fd fd, int base);
  Result<void> make_time(const schema::Namespace& wanted, int base);
  Result<void> make_owned(const schema::Namespace& wanted, const image::Image& image, int base);
  Result<void> make_one(const schema::Namespace& wanted, const image::Image& image, int base);
  // Goes where `ids` say.
  Result<void> go(const std::vector<uint32_t>& ids);

  std::map<uint32_t, Made> made_;
  Fd network_, mounts_, directory_;  // of the session, and where we are in it
  std::vector<uint32_t> now_;
};

}  // namespace stasis::restore
