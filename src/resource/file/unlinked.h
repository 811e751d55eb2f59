// Regular files without a name: O_TMPFILE, or removed while open. Their content is part of the checkpoint.
#pragma once

#include "stasis/descriptor.h"

namespace stasis::resource {

class UnlinkedFileKind final : public DescriptorKind {
 public:
  KindInfo info() const override;
  bool recognises(const OpenFile& file, const Observation& tree) const override;
  Result<std::string> observe(const OpenFile& file, Observation& tree) const override;
  Result<void> relocate(Record& record, const Place& place) const override;
  Result<Fd> make(const Record& record, Making& context) const override;
  Result<void> fill(const Record& record, int fd, Making& context) const override;
  std::string summary(const Record& record) const override;
};

}  // namespace stasis::resource
