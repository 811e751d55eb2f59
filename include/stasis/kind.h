// One kind of thing that the kernel keeps for a process: what `docs/support.md` lists.
#pragma once

#include <string_view>

namespace stasis::resource {

enum class Support {
  kFull,     // saved and restored completely
  kPartial,  // with the limits that `note` names
  kRefused,  // a checkpoint is refused when the program has one, for the reason in `note`
};

struct KindInfo {
  std::string_view name;   // stable; stored in images: "eventfd"
  std::string_view group;  // heading in the table: "Descriptors", "Memory", ...
  std::string_view title;  // for people: "eventfd with its count"
  Support support = Support::kFull;
  std::string_view note;  // limits or the reason of a refusal
};

}  // namespace stasis::resource
