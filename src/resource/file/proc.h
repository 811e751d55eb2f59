// Files and directories in /proc.
#pragma once

#include "stasis/descriptor.h"

namespace stasis::resource {

class ProcKind : public DescriptorKind {
 public:
  KindInfo info() const override;
  bool recognises(const OpenFile& file, const Observation& tree) const override;
  Result<std::string> observe(const OpenFile& file, Observation& tree) const override;
  Result<Fd> make(const Record& record, Making& context) const override;
  Result<void> settle(const Record& record, int fd, Making& context, Round round) const override;
  Result<void> finish(const Record& record, Finishing& owner) const override;
  bool is_opened_by_owner() const override { return true; }
  std::string summary(const Record& record) const override;
};

}  // namespace stasis::resource
