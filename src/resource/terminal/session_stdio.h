// What launch was given as its own 0, 1 and 2 from outside, which a restart replaces by its own.
#pragma once

#include "stasis/descriptor.h"

namespace stasis::resource {

class SessionStdioKind final : public DescriptorKind {
 public:
  KindInfo info() const override;
  bool recognises(const OpenFile& file, const Observation& tree) const override;
  Result<std::string> observe(const OpenFile& file, Observation& tree) const override;
  Result<Fd> make(const Record& record, Making& context) const override;
};

}  // namespace stasis::resource
