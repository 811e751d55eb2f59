#include "image/writer.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <charconv>
#include <map>

#include "image/background.h"
#include "image/directory.h"
#include "image/format.h"
#include "kernel/proc.h"

namespace stasis::image {
namespace {

constexpr std::string_view kIncomplete = "incomplete-";
constexpr std::string_view kRemoving = "removing-";

uint64_t start_time(pid_t pid) {
  auto stat = kernel::read_stat(HostTid{pid});
  return stat ? stat->start_time : 0;
}

// incomplete-PID-STARTTIME-N: unique, and on file systems without flock it still tells whether the writer
// lives.
std::string incomplete_name() {
  static std::atomic<unsigned> counter = 0;
  return fmt::format("{}{}-{}-{}", kIncomplete, getpid(), start_time(getpid()), counter++);
}

bool named_writer_lives(std::string_view name) {
  name.remove_prefix(kIncomplete.size());
  pid_t pid = 0;
  uint64_t started = 0;
  const char* end = name.data() + name.size();
  auto first = std::from_chars(name.data(), end, pid);
  if (first.ec != std::errc() || first.ptr == end) return false;
  auto second = std::from_chars(first.ptr + 1, end, started);
  return second.ec == std::errc() && started != 0 && start_time(pid) == started;
}

// With the flock of the session's store held: no writer is between mkdir and its own flock.
void remove_leftovers(int store, const std::string& path) {
  auto names = directory_names(store, path);
  if (!names) return;
  for (const auto& name : *names) {
    const bool incomplete = name.starts_with(kIncomplete);
    if (!incomplete && !name.starts_with(kRemoving)) continue;
    if (incomplete) {
      auto directory = open_file(store, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
      if (!directory) continue;
      if (flock(directory->get(), LOCK_EX | LOCK_NB) != 0 &&
          (errno == EWOULDBLOCK || named_writer_lives(name))) {
        continue;
      }
    }
    // What cannot be removed now does no harm and is tried again next time.
    (void)remove_directory(store, name).ok();
  }
}

}  // namespace

struct Writer::State {
  std::string store_path;
  Fd store;
  std::string name;  // in store; renamed when published
  std::string path;
  Fd directory;  // holds the flock
  bool store_is_new = false;
  bool published = false;
  Background background;
  std::vector<schema::ImageFile> shared;
  std::map<std::string, uint32_t> origins;  // of created files, if not 0

  ~State() {
    if (published) return;
    if (directory) (void)remove_directory(store.get(), name).ok();
    if (store_is_new) (void)::rmdir(store_path.c_str());  // which leaves what others have put there
  }

  Result<void> finish_files(schema::Manifest& manifest);
  void describe_files(schema::Manifest& manifest) const;
  Result<void> write_manifest(const std::string& bytes);
};

Writer::Writer(std::unique_ptr<State> state) : state_(std::move(state)) {}
Writer::Writer(Writer&&) noexcept = default;
Writer& Writer::operator=(Writer&&) noexcept = default;
Writer::~Writer() = default;

Result<Writer> Writer::create(const std::string& session_store) {
  auto state = std::make_unique<State>();
  state->store_path = session_store;
  while (state->store_path.size() > 1 && state->store_path.back() == '/') state->store_path.pop_back();
  state->store_is_new = ::access(state->store_path.c_str(), F_OK) != 0;
  STASIS_CHECK(make_directories(state->store_path));
  STASIS_TRY(state->store, open_directory(state->store_path));
  STASIS_CHECK(check_ours(state->store.get(), state->store_path));

  // Held from before mkdir until our own directory is locked, so that nobody takes it for a dead writer's.
  // File systems without flock on directories (NFS) do without; there the name decides.
  STASIS_TRY(Fd lock, open_file(state->store.get(), ".", O_RDONLY | O_DIRECTORY));
  while (flock(lock.get(), LOCK_EX) != 0 && errno == EINTR) {
  }
  remove_leftovers(state->store.get(), state->store_path);

  std::string name = incomplete_name();
  state->path = state->store_path + "/" + name;
  if (mkdirat(state->store.get(), name.c_str(), 0700) != 0)
    return write_error("make checkpoint", state->path, errno);
  state->name = name;
  STASIS_TRY(state->directory, open_file(state->store.get(), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
  (void)flock(state->directory.get(), LOCK_EX | LOCK_NB);
  return Writer(std::move(state));
}

const std::string& Writer::directory() const { return state_->path; }

Result<Fd> Writer::create_file(const std::string& name, uint32_t origin, Sums sums) {
  if (!valid_file_name(name)) {
    return Error{"write checkpoint", name, "this cannot be the name of a file in a checkpoint", "",
                 ErrorCode::kFailed};
  }
  const std::string path = state_->path + "/" + name;
  const int fd =
      openat(state_->directory.get(), name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return write_error("write checkpoint", path, errno);
  Fd file(fd);
  // Write errors are reported once to every open file description that existed when they happened; ours
  // exists from the beginning, so our fdatasync hears of all of them.
  STASIS_TRY(Fd own, open_file(state_->directory.get(), name, O_RDONLY | O_NOFOLLOW));
  state_->background.add(name, std::move(own), sums == Sums::kYes);
  if (origin != 0) state_->origins[name] = origin;
  return file;
}

Result<std::optional<Fd>> Writer::clone_file(const std::string& name, int from, Sums sums) {
  if (!valid_file_name(name)) {
    return Error{"write checkpoint", name, "this cannot be the name of a file in a checkpoint", "",
                 ErrorCode::kFailed};
  }
  const std::string path = state_->path + "/" + name;
  Fd file(openat(state_->directory.get(), name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
                 0600));
  if (!file) return write_error("write checkpoint", path, errno);
  if (ioctl(file.get(), FICLONE, from) != 0) {
    const int error = errno;
    unlinkat(state_->directory.get(), name.c_str(), 0);
    if (error == ENOSPC || error == EDQUOT || error == EIO) return write_error("clone into", path, error);
    return std::optional<Fd>();
  }
  STASIS_TRY(Fd own, open_file(state_->directory.get(), name, O_RDONLY | O_NOFOLLOW));
  state_->background.add(name, std::move(own), sums == Sums::kYes);
  return std::optional<Fd>(std::move(file));
}

std::optional<Fd> Writer::share_file(const std::string& name, const Image& from,
                                     const std::string& name_there, uint32_t origin) {
  const schema::ImageFile* entry = from.find_file(name_there);
  if (entry == nullptr || !valid_file_name(name)) return {};
  auto checked = from.open_file(name_there);
  if (!checked || !from.link_file(name_there, state_->directory.get(), name)) return {};
  // What was checked and what was linked are the same file.
  struct stat opened, linked;
  if (fstat(checked->get(), &opened) != 0 ||
      fstatat(state_->directory.get(), name.c_str(), &linked, AT_SYMLINK_NOFOLLOW) != 0 ||
      opened.st_ino != linked.st_ino || opened.st_dev != linked.st_dev) {
    unlinkat(state_->directory.get(), name.c_str(), 0);
    return {};
  }
  auto& added = state_->shared.emplace_back(*entry);
  added.set_name(name);
  added.set_origin(origin);
  return std::move(*checked);
}

void Writer::drop_shared_file(const std::string& name) {
  std::erase_if(state_->shared, [&](const auto& file) {
    return file.name() == name && unlinkat(state_->directory.get(), name.c_str(), 0) == 0;
  });
}

void Writer::written(const std::string& name, uint64_t up_to) { state_->background.written(name, up_to); }

void Writer::State::describe_files(schema::Manifest& manifest) const {
  manifest.clear_files();
  for (const auto& file : background.files()) {
    auto* entry = manifest.add_files();
    entry->set_name(file.name);
    entry->set_size(file.size);
    entry->set_block_size(kBlockSize);
    entry->mutable_sums()->Assign(file.sums.begin(), file.sums.end());
    entry->set_stored(file.stored);
    entry->set_unsummed(!file.summed);
    if (auto origin = origins.find(file.name); origin != origins.end()) entry->set_origin(origin->second);
  }
  for (const auto& file : shared) *manifest.add_files() = file;
}

Result<void> Writer::State::write_manifest(const std::string& bytes) {
  const std::string file_path = path + "/" + std::string(kManifestName);
  const int fd = openat(directory.get(), kManifestName.data(),
                        O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return write_error("write checkpoint", file_path, errno);
  Fd file(fd);
  std::string back(bytes.size(), '\0');
  if (auto written = write_all(fd, bytes); !written.ok())
    return write_error("write checkpoint", file_path, errno);
  if (fdatasync(fd) != 0) return write_error("write checkpoint", file_path, errno);
  if (auto read = pread_all(fd, back, 0); !read || back != bytes) {
    return Error{"write checkpoint", file_path, "it does not read as it was written", "check this disk",
                 ErrorCode::kFailed};
  }
  // What a restart would refuse must not be published as a good checkpoint.
  if (auto parsed = parse_manifest(std::as_bytes(std::span(back))); !parsed) {
    Error error = std::move(parsed).error().within("write checkpoint");
    error.code = ErrorCode::kFailed;
    error.hint = "the program runs on; please report this";
    return error;
  }
  return {};
}

Result<void> Writer::State::finish_files(schema::Manifest& manifest) {
  if (auto finished = background.finish(); !finished) {
    Error error = std::move(finished).error();
    error.object = path + "/" + error.object;
    return error;
  }
  describe_files(manifest);
  return {};
}

Result<void> Writer::replace(schema::Manifest& manifest, const Image& old) {
  State& state = *state_;
  STASIS_CHECK(state.finish_files(manifest));
  STASIS_CHECK(old.link_carried_files(state.directory.get()));
  STASIS_CHECK(state.write_manifest(encode_manifest(manifest)));
  if (fsync(state.directory.get()) != 0) return write_error("write checkpoint", state.path, errno);
  const int store = state.store.get();
  const std::string number = fmt::format("{}", manifest.id());
  const std::string what = state.store_path + "/" + number;
  auto exchange = [&] {
    return renameat2(store, state.name.c_str(), store, number.c_str(), RENAME_EXCHANGE) == 0;
  };
  const Error gone{"replace checkpoint", what, "it was removed meanwhile", {}, ErrorCode::kNotFound};
  if (!old.is_entry(store, number)) return gone;
  if (!exchange()) {
    Error error = write_error("replace checkpoint", what, errno);
    if (errno == EINVAL || errno == ENOSYS) error.code = ErrorCode::kUnsupported;
    return error;
  }
  // What has our name now is the old one: it goes with us, or, should we be killed, with the next writer.
  if (!old.is_entry(store, state.name) && exchange()) return gone;
  if (fsync(store) != 0) return write_error("replace checkpoint", what, errno);
  return {};
}

Result<Writer::Published> Writer::publish(schema::Manifest& manifest) {
  State& state = *state_;
  STASIS_CHECK(state.finish_files(manifest));

  uint32_t id = 0;
  uint64_t manifest_size = 0;
  uint64_t sum = 0;
  for (;;) {
    STASIS_TRY(auto names, directory_names(state.store.get(), state.store_path));
    uint32_t last = id;
    for (const auto& other : names) last = std::max(last, checkpoint_number(other));
    id = last + 1;
    manifest.set_id(id);
    const std::string bytes = encode_manifest(manifest);
    manifest_size = bytes.size();
    sum = block_sum(std::as_bytes(std::span(bytes)));
    STASIS_CHECK(state.write_manifest(bytes));
    if (fsync(state.directory.get()) != 0) return write_error("write checkpoint", state.path, errno);

    const std::string number = fmt::format("{}", id);
    int renamed =
        renameat2(state.store.get(), state.name.c_str(), state.store.get(), number.c_str(), RENAME_NOREPLACE);
    if (renamed != 0 && (errno == EINVAL || errno == ENOSYS)) {
      // Without RENAME_NOREPLACE (NFS): a plain rename replaces only an empty directory, and a checkpoint is
      // not empty.
      renamed = renameat(state.store.get(), state.name.c_str(), state.store.get(), number.c_str());
    }
    if (renamed == 0) break;
    if (errno != EEXIST && errno != ENOTEMPTY) {
      return write_error("publish checkpoint", state.store_path + "/" + number, errno);
    }
    // Somebody else took the number meanwhile.
  }
  state.published = true;
  state.name = fmt::format("{}", id);
  state.path = state.store_path + "/" + state.name;
  if (fsync(state.store.get()) != 0) return write_error("publish checkpoint", state.path, errno);

  Published published;
  published.id = id;
  published.directory = state.path;
  published.sum = sum;
  published.stored = manifest_size;
  for (const auto& file : state.shared) published.shared += file.stored();
  for (const auto& file : state.background.files()) published.stored += file.stored;
  published.stored += published.shared;
  return published;
}

}  // namespace stasis::image
