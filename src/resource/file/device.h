// Devices whose state is nothing but the open file: null, zero, full, random, urandom, block devices.
#pragma once

#include "stasis/descriptor.h"

namespace stasis::resource {

class DeviceKind final : public DescriptorKind {
 public:
  KindInfo info() const override;
  bool recognises(const OpenFile& file, const Observation& tree) const override;
  Result<std::string> observe(const OpenFile& file, Observation& tree) const override;
  Result<void> relocate(Record& record, const Place& place) const override;
  Result<Fd> make(const Record& record, Making& context) const override;
  Result<void> fill(const Record& record, int fd, Making& context) const override;
};

}  // namespace stasis::resource
