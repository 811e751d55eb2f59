// Where checkpoints are kept, and how they are found: <store>/<SESSION>/<ID>/.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "stasis/result.h"

namespace stasis::image {

// $STASIS_HOME, else $XDG_STATE_HOME/stasis, else $HOME/.local/state/stasis. An error when none is set.
Result<std::string> state_directory();
// <state>/store
Result<std::string> default_store();

struct Entry {
  std::string session;
  uint32_t id = 0;
  std::string directory;
  std::string tag;
  int64_t created_ns = 0;  // real time
  uint64_t processes = 0;
  uint64_t logical = 0;  // bytes of its contents, holes included
  uint64_t stored = 0;   // bytes without holes of all files that it uses
  uint64_t own = 0;      // of these in files that it shares with no other checkpoint
  uint32_t base = 0;     // the checkpoint to which it adds what had changed; 0: none
  int64_t pause_ns = 0;
  std::string picture;  // path of the picture of its screen; empty: it has none
  std::string problem;  // why it cannot be used; empty for a good one
};

// The checkpoints of one session, oldest first; those that cannot be opened have `problem`. No such
// directory: empty.
Result<std::vector<Entry>> list(const std::string& session_store);
// The newest of them that can be opened; nothing else is opened.
std::optional<Entry> newest(const std::string& session_store);
// The names of the sessions that have a directory in a store, sorted.
Result<std::vector<std::string>> list_sessions(const std::string& store);

// SESSION, SESSION@ID, or a path (anything with a slash, "." or ".."). SESSION alone is its newest
// checkpoint.
struct Reference {
  std::string session;    // empty when a path was given
  uint32_t id = 0;        // 0: newest
  std::string directory;  // when a path was given
};
Result<Reference> parse_reference(const std::string& text);

// The directory of the checkpoint: found, but not opened. `store` is not looked at for a path.
Result<std::string> resolve(const Reference& reference, const std::string& store);
Result<std::string> resolve(const std::string& text, const std::string& store);

// <store>/<SESSION>/files-N: files of a session that runs on copies (session/restart). Not a checkpoint's.
inline constexpr const char* kOwnFilesPrefix = "files-";
// Removes those, with all that is in them. The names of the directories that are gone.
Result<std::vector<std::string>> remove_own_files(const std::string& session_store);

// Removes one checkpoint: it stops being one by a rename, atomically, before its files go. A program that was
// restarted from it keeps running, since its mappings hold the files. Refuses what does not look like a
// checkpoint of ours.
Result<void> remove(const std::string& directory);

}  // namespace stasis::image
