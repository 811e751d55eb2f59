// Descriptors of /dev/net/tun: programs that are the far end of a network interface.
#pragma once

#include "stasis/descriptor.h"

namespace stasis::resource {

bool is_tun(const OpenFile& file);

// The interface itself belongs to its network (restore/network.h), which is made first. Until the program's
// descriptors are there, one of the builder's holds it: in Making::shared_objects(), under this key of the
// network that the builder is in.
std::string tun_holder_key(const std::string& device);

class TunKind final : public DescriptorKind {
 public:
  KindInfo info() const override;
  bool recognises(const OpenFile& file, const Observation& tree) const override;
  Result<std::string> observe(const OpenFile& file, Observation& tree) const override;
  Result<Fd> make(const Record& record, Making& context) const override;
  Result<void> fill(const Record& record, int fd, Making& context) const override;
  std::string summary(const Record& record) const override;
};

}  // namespace stasis::resource
