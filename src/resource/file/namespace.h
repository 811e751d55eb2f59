// Descriptors of namespaces (/proc/PID/ns/...).
#pragma once

#include "resource/file/proc.h"

namespace stasis::resource {

class NamespaceKind final : public ProcKind {
 public:
  KindInfo info() const override;
  bool recognises(const OpenFile& file, const Observation& tree) const override;
  Result<std::string> observe(const OpenFile& file, Observation& tree) const override;
};

}  // namespace stasis::resource
