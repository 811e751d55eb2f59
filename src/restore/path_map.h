// Files that are in other places than where they were: restart --map-path.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "schema/manifest.pb.h"
#include "stasis/result.h"

namespace stasis::restore {

class PathMap {
 public:
  // "OLD=NEW", both absolute: what was at OLD, or below it, is at NEW.
  Result<void> add(const std::string& rule);
  bool empty() const { return rules_.empty(); }
  // Where the file is that was at `path`. The longest OLD counts. A path that leads to nothing in the new
  // place is left as it was if it leads to something there, or if there is not even a directory in which it
  // could be made.
  std::string place_of(const std::string& path) const;

 private:
  std::vector<std::pair<std::string, std::string>> rules_;
};

// Every path in the manifest: of mappings, programs, directories, captured files and descriptors.
Result<void> relocate(schema::Manifest& manifest, const PathMap& paths);

}  // namespace stasis::restore
