// Descriptors opened with O_PATH: a place in the tree of files, not an open file.
#pragma once

#include "stasis/descriptor.h"

namespace stasis::resource {

class PathOnlyKind final : public DescriptorKind {
 public:
  KindInfo info() const override;
  bool recognises(const OpenFile& file, const Observation& tree) const override;
  Result<std::string> observe(const OpenFile& file, Observation& tree) const override;
  Result<void> relocate(Record& record, const Place& place) const override;
  Result<Fd> make(const Record& record, Making& context) const override;
  Result<void> fill(const Record& record, int fd, Making& context) const override;
};

}  // namespace stasis::resource
