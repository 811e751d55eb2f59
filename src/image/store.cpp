#include "image/store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "image/directory.h"
#include "image/format.h"
#include "image/mapped_files.h"
#include "image/reader.h"

namespace stasis::image {
namespace {

const char* environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : nullptr;
}

Entry make_entry(const std::string& session_store, const std::string& session, uint32_t id) {
  Entry entry;
  entry.session = session;
  entry.id = id;
  entry.directory = fmt::format("{}/{}", session_store, id);
  auto image = Image::open(entry.directory);
  if (!image) {
    entry.problem = image.error().message();
    return entry;
  }
  const auto& manifest = image->manifest();
  entry.tag = manifest.tag();
  entry.created_ns = manifest.clocks().realtime_ns();
  entry.processes = static_cast<uint64_t>(manifest.processes_size());
  entry.logical = image->content_size();
  entry.stored = image->stored_size();
  entry.own = image->own_size();
  entry.base = manifest.base();
  entry.pause_ns = manifest.pause_ns();
  if (!manifest.display().picture().empty())
    entry.picture = entry.directory + "/" + manifest.display().picture();
  return entry;
}

// Ascending; none when there is no such directory.
Result<std::vector<uint32_t>> checkpoint_numbers(const std::string& session_store) {
  auto directory = open_directory(session_store);
  if (!directory) {
    if (directory.error().code == ErrorCode::kNotFound) return std::vector<uint32_t>{};
    return std::move(directory).error();
  }
  STASIS_TRY(auto names, directory_names(directory->get(), session_store));
  std::vector<uint32_t> numbers;
  for (const auto& name : names) {
    if (uint32_t number = checkpoint_number(name); number != 0) numbers.push_back(number);
  }
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

}  // namespace

Result<std::string> state_directory() {
  if (const char* home = environment("STASIS_HOME")) return std::string(home);
  if (const char* state = environment("XDG_STATE_HOME")) return std::string(state) + "/stasis";
  if (const char* home = environment("HOME")) return std::string(home) + "/.local/state/stasis";
  return Error{"find the store", "", "neither STASIS_HOME, XDG_STATE_HOME nor HOME is set",
               "set STASIS_HOME, or say where with --store", ErrorCode::kUsage};
}

Result<std::string> default_store() {
  STASIS_TRY(auto state, state_directory());
  return state + "/store";
}

namespace {

struct Place {
  std::string directory;  // without slashes at its end
  std::string session;
};
Place place_of(const std::string& session_store) {
  std::string bare = session_store;
  while (bare.size() > 1 && bare.back() == '/') bare.pop_back();
  std::string session = bare.substr(bare.find_last_of('/') + 1);
  return {std::move(bare), std::move(session)};
}

}  // namespace

std::optional<Entry> newest(const std::string& session_store) {
  const auto [bare, session] = place_of(session_store);
  auto numbers = checkpoint_numbers(bare);
  if (!numbers.ok()) return {};
  for (auto number = numbers->rbegin(); number != numbers->rend(); ++number) {
    Entry entry = make_entry(bare, session, *number);
    if (entry.problem.empty()) return entry;
  }
  return {};
}

Result<std::vector<Entry>> list(const std::string& session_store) {
  const auto [bare, session] = place_of(session_store);
  STASIS_TRY(auto numbers, checkpoint_numbers(bare));
  std::vector<Entry> entries;
  entries.reserve(numbers.size());
  for (uint32_t number : numbers) entries.push_back(make_entry(bare, session, number));
  return entries;
}

Result<std::vector<std::string>> list_sessions(const std::string& store) {
  auto directory = open_file(store, O_RDONLY | O_DIRECTORY);
  if (!directory) {
    if (directory.error().code == ErrorCode::kNotFound) return std::vector<std::string>{};
    return std::move(directory).error();
  }
  STASIS_TRY(auto names, directory_names(directory->get(), store));
  std::erase_if(names, [&](const std::string& name) {
    struct stat status;
    return !valid_session_name(name) ||
           fstatat(directory->get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0 ||
           !S_ISDIR(status.st_mode);
  });
  return names;
}

Result<Reference> parse_reference(const std::string& text) {
  Reference reference;
  if (text.find('/') != std::string::npos || text == "." || text == "..") {
    reference.directory = text;
    return reference;
  }
  const size_t at = text.find('@');
  reference.session = text.substr(0, at);
  if (!valid_session_name(reference.session)) {
    return Error{"find checkpoint", text, "this is no session's name",
                 "write SESSION, SESSION@ID or a directory (./name)", ErrorCode::kUsage};
  }
  if (at != std::string::npos) {
    reference.id = checkpoint_number(text.substr(at + 1));
    if (reference.id == 0) {
      return Error{"find checkpoint", text, "what follows the @ is no checkpoint's number",
                   "write SESSION, SESSION@ID or a directory; `stasis list` shows the numbers",
                   ErrorCode::kUsage};
    }
  }
  return reference;
}

Result<std::string> resolve(const Reference& reference, const std::string& store) {
  if (!reference.directory.empty()) {
    struct stat status;
    if (stat(reference.directory.c_str(), &status) != 0)
      return errno_error("find checkpoint", reference.directory);
    if (!S_ISDIR(status.st_mode)) {
      return Error{"find checkpoint", reference.directory, "a checkpoint is a directory", "",
                   ErrorCode::kUsage};
    }
    return reference.directory;
  }
  const std::string session_store = store + "/" + reference.session;
  STASIS_TRY(auto numbers, checkpoint_numbers(session_store));
  if (numbers.empty()) {
    return Error{"find checkpoint", reference.session, fmt::format("there is none in {}", session_store),
                 "`stasis list` shows what there is, `stasis checkpoint` makes one", ErrorCode::kNotFound};
  }
  const uint32_t id = reference.id != 0 ? reference.id : numbers.back();
  if (!std::binary_search(numbers.begin(), numbers.end(), id)) {
    return Error{
        "find checkpoint", fmt::format("{}@{}", reference.session, id), "there is no such checkpoint",
        fmt::format("`stasis list {}` shows what there is", reference.session), ErrorCode::kNotFound};
  }
  return fmt::format("{}/{}", session_store, id);
}

Result<std::string> resolve(const std::string& text, const std::string& store) {
  STASIS_TRY(auto reference, parse_reference(text));
  return resolve(reference, store);
}

Result<std::vector<std::string>> remove_own_files(const std::string& session_store) {
  std::vector<std::string> removed;
  auto directory = open_directory(session_store);
  if (!directory) {
    if (directory.error().code == ErrorCode::kNotFound) return removed;
    return std::move(directory).error();
  }
  STASIS_CHECK(check_ours(directory->get(), session_store));
  STASIS_TRY(auto names, directory_names(directory->get(), session_store));
  for (const auto& name : names) {
    if (!name.starts_with(kOwnFilesPrefix)) continue;
    STASIS_CHECK(remove_directory(directory->get(), name));
    removed.push_back(name);
  }
  return removed;
}

Result<void> remove(const std::string& directory) {
  std::string bare = directory;
  while (bare.size() > 1 && bare.back() == '/') bare.pop_back();
  STASIS_TRY(Fd opened, open_directory(bare));
  STASIS_CHECK(check_ours(opened.get(), bare));
  // The device and inode decide what is renamed: "." and paths through links have a parent that their text
  // does not show.
  struct stat status, named;
  struct stat manifest;
  if (fstat(opened.get(), &status) != 0) return errno_error("remove checkpoint", bare);
  if (fstatat(opened.get(), "manifest", &manifest, AT_SYMLINK_NOFOLLOW) != 0) {
    return Error{"remove checkpoint", bare, "there is no manifest in it: this is not a checkpoint",
                 "an unfinished one is removed by the next checkpoint of its session", ErrorCode::kRefused};
  }
  STASIS_TRY(auto names, directory_names(opened.get(), bare));
  for (const auto& name : names) {
    struct stat file;
    if (fstatat(opened.get(), name.c_str(), &file, AT_SYMLINK_NOFOLLOW) != 0 ||
        (S_ISDIR(file.st_mode) && name != kCarriedDirectory)) {
      return Error{"remove checkpoint", fmt::format("{}/{}", bare, name),
                   "a checkpoint has no such directory in it", "", ErrorCode::kRefused};
    }
  }

  STASIS_TRY(Fd parent, open_file(opened.get(), "..", O_RDONLY | O_DIRECTORY));
  STASIS_TRY(auto siblings, directory_names(parent.get(), bare + "/.."));
  for (const auto& name : siblings) {
    if (fstatat(parent.get(), name.c_str(), &named, AT_SYMLINK_NOFOLLOW) != 0 ||
        named.st_ino != status.st_ino || named.st_dev != status.st_dev) {
      continue;
    }
    const std::string removing = fmt::format("removing-{}-{}", name, getpid());
    if (renameat(parent.get(), name.c_str(), parent.get(), removing.c_str()) != 0) {
      return errno_error("remove checkpoint", bare);
    }
    if (fsync(parent.get()) != 0) return errno_error("remove checkpoint", bare);
    return remove_directory(parent.get(), removing);
  }
  return Error{"remove checkpoint", bare, "it is gone", "", ErrorCode::kNotFound};
}

}  // namespace stasis::image
