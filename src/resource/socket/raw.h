// Sockets below UDP and TCP: raw, ping (ICMP datagrams) and packet sockets.
#pragma once

#include "stasis/descriptor.h"

namespace stasis::resource {

class RawSocketKind final : public DescriptorKind {
 public:
  KindInfo info() const override;
  bool recognises(const OpenFile& file, const Observation& tree) const override;
  Result<std::string> observe(const OpenFile& file, Observation& tree) const override;
  Result<Fd> make(const Record& record, Making& context) const override;
  Result<void> finish(const Record& record, Finishing& owner) const override;
  std::string summary(const Record& record) const override;
};

}  // namespace stasis::resource
