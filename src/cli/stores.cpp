#include "cli/stores.h"

#include <algorithm>

#include "image/store.h"
#include "session/record.h"

namespace stasis::cli {

Result<std::string> store_of(const std::string& session, const std::string& given) {
  if (!given.empty()) return given;
  if (auto record = session::load_record(session); record.ok() && !record->store.empty())
    return record->store;
  return image::default_store();
}

Result<std::vector<std::string>> all_stores(const std::string& given) {
  if (!given.empty()) return std::vector{given};
  STASIS_TRY(std::string usual, image::default_store());
  std::vector<std::string> stores = {usual};
  if (auto records = session::all_records(); records.ok()) {
    for (const auto& record : *records) {
      if (!record.store.empty() && std::find(stores.begin(), stores.end(), record.store) == stores.end()) {
        stores.push_back(record.store);
      }
    }
  }
  return stores;
}

Result<std::string> checkpoint_directory(const std::string& reference, const std::string& given_store) {
  STASIS_TRY(auto parsed, image::parse_reference(reference));
  if (!parsed.directory.empty()) return image::resolve(parsed, "");
  STASIS_TRY(auto store, store_of(parsed.session, given_store));
  return image::resolve(parsed, store);
}

}  // namespace stasis::cli
