// Directories, devices, symbolic links and the like that were removed while somebody had them open.
#pragma once

#include "schema/kinds/file.pb.h"
#include "stasis/descriptor.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::resource {

// Makes the directories of a path that are missing; the destructor removes them again.
class Way {
 public:
  explicit Way(const std::string& path);
  ~Way();
  Way(const Way&) = delete;
  Way& operator=(const Way&) = delete;

 private:
  std::vector<std::string> made_;
};

// What is needed to make it again: for files that are not regular ones.
Result<schema::File> observe_removed(const OpenFile& file, const std::string& path);

// A description of it with the record's flags: made once for all that were of one inode, under the name that
// it had, or another one if that is taken, and removed at once.
Result<Fd> open_removed(const Record& record, const schema::File& message, Making& context);

// When all descriptions are open: mode and times, which may forbid opening, or would change by it.
Result<void> finish_removed(const Record& record, const schema::File& message, Making& context);

}  // namespace stasis::resource
