// What a restart does with the files that a checkpoint captured: puts their content back, or gives the
// session copies of its own. See docs/decisions/0004-files-of-one-instant.md.
#pragma once

#include <sys/stat.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "image/reader.h"
#include "stasis/result.h"

namespace stasis::restore {

enum class FileUse {
  kPutBack,  // the files are what they were; what is newer is kept aside
  kCopies,   // the session gets copies in `directory` and leaves the files alone
  kKeep,     // the files stay as they are
};

// Owns what it has changed: the destructor undoes it unless accept() was called. Works in the namespaces and
// with the rights of whoever restarts, before the program exists.
class CapturedFiles {
 public:
  // Looks, and changes nothing. `directory` is where copies, and in need what is kept aside, may be put; it
  // is made when it is needed. Both must outlive this object.
  CapturedFiles(const image::Image& image, FileUse use, std::string directory);
  ~CapturedFiles();
  CapturedFiles(const CapturedFiles&) = delete;
  CapturedFiles& operator=(const CapturedFiles&) = delete;

  // An Error has undone everything.
  Result<void> apply();
  void accept() { undo_.clear(); }

  // By the path of the checkpoint, the file that stands in for it.
  const std::map<std::string, std::string>& copies() const { return copies_; }
  // For the user: what was put back, and where that is which was there.
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  struct Undo {
    enum class What { kRemove, kExchange, kRewrite, kAppend } what;
    std::string path;
    std::string aside;  // what was there: the whole file, or its end
    uint64_t size = 0;  // where the end was
  };

  Result<void> put_back(const schema::CapturedFile& file);
  bool is_mapped(const schema::CapturedFile& file) const;
  bool untouched(const schema::CapturedFile& file, const struct stat& present) const;
  Result<void> keep_identity(const schema::CapturedFile& file) const;
  Result<void> replace(const schema::CapturedFile& file, const struct stat& present);
  Result<bool> replace_by_exchange(const schema::CapturedFile& file, const struct stat& present);
  Result<void> rewrite(const schema::CapturedFile& file);
  Result<void> create(const schema::CapturedFile& file);
  Result<void> cut(const schema::CapturedFile& file, const struct stat& present);
  Result<void> copy(const schema::CapturedFile& file);
  Result<bool> has_content(const schema::CapturedFile& file, const std::string& path) const;
  Result<std::string> own_directory();
  Result<std::string> fresh_aside(const std::string& path);
  void undo();

  const image::Image& image_;
  FileUse use_;
  std::string directory_;
  bool directory_made_ = false;
  std::set<std::string> mapped_;  // paths of what the program had mapped shared and writable
  std::map<std::string, std::string> copies_;
  std::vector<std::string> notes_;
  std::vector<Undo> undo_;
};

}  // namespace stasis::restore
