// inotify(7).
#pragma once

#include "stasis/descriptor.h"

namespace stasis::resource {

class InotifyKind final : public DescriptorKind {
 public:
  KindInfo info() const override;
  bool recognises(const OpenFile& file, const Observation& tree) const override;
  Result<std::string> observe(const OpenFile& file, Observation& tree) const override;
  Result<void> relocate(Record& record, const Place& place) const override;
  Result<Fd> make(const Record& record, Making& context) const override;
  Result<void> settle(const Record& record, int fd, Making& context, Round round) const override;
  std::string summary(const Record& record) const override;
};

}  // namespace stasis::resource
