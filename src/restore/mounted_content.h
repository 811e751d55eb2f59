// Puts back what was in a file system that is in memory only.
#pragma once

#include "schema/namespaces.pb.h"
#include "stasis/result.h"

namespace stasis::restore {

// `root`: of the file system. `content`: the file of the checkpoint. Changes the working directory.
Result<void> put_content(const schema::FileSystem& system, int root, int content);

// Makes one file at a path from the working directory, with all that belongs to it but its time.
Result<void> put_file(const schema::MountedFile& file, const std::string& path, int content);

}  // namespace stasis::restore
