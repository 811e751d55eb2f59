// Kinds of descriptors that cannot be saved: each by its name, with the reason and the remedy.
#pragma once

#include <string_view>

#include "stasis/descriptor.h"

namespace stasis::resource {

struct RefusedRow {
  std::string_view name;
  std::string_view group;
  std::string_view title;
  std::string_view cause;
  std::string_view remedy;
  bool (*matches)(const OpenFile& file);
};

class RefusedKind final : public DescriptorKind {
 public:
  explicit constexpr RefusedKind(const RefusedRow& row) : row_(row) {}
  KindInfo info() const override;
  bool recognises(const OpenFile& file, const Observation& tree) const override;
  Result<std::string> observe(const OpenFile& file, Observation& tree) const override;
  Result<Fd> make(const Record& record, Making& context) const override;

 private:
  const RefusedRow& row_;
};

// To be asked before the kinds that are saved: an io_uring is a file, too.
std::span<const RefusedRow> refused_rows();
// To be asked last: it matches everything.
const RefusedRow& unknown_row();

}  // namespace stasis::resource
