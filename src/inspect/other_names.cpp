#include "inspect/other_names.h"

#include <sys/stat.h>

#include "kernel/proc.h"
#include "resource/file_search.h"
#include "resource/reopen.h"

namespace stasis::inspect {

using resource::directory_of;

std::string find_other_name(const resource::OpenFile& file,
                            const std::vector<std::unique_ptr<resource::OpenFile>>& files,
                            const std::vector<std::string>& points) {
  const dev_t device = file.status.st_dev;
  resource::FileSearch search(
      file.task, file.status.st_ino, [device](const struct stat& status) { return status.st_dev == device; },
      file.root);
  std::string found = search.in(directory_of(resource::name_of(file).path));
  for (const auto& other : files) {
    if (!found.empty()) return found;
    if (!other->link.starts_with('/') || other->status.st_dev != device || other->root != file.root) continue;
    found = search.in(S_ISDIR(other->status.st_mode) ? other->link : directory_of(other->link));
  }
  auto working = kernel::read_proc_link(file.task, "cwd");
  if (found.empty() && working.ok() && file.root < 0) found = search.in(*working);
  for (const std::string& point : points) {
    if (found.empty()) found = search.in(point);
  }
  return found.empty() ? search.below() : found;
}

}  // namespace stasis::inspect
