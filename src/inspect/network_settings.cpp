#include "inspect/network_settings.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <string>

#include "kernel/proc.h"
#include "stasis/fd.h"

namespace stasis::inspect {
namespace {

// Long ones are lists that the kernel makes.
constexpr size_t kLongest = 4096;

void read_one(int directory, const char* name, const std::string& path, schema::Network& out) {
  Fd file(::openat(directory, name, O_RDONLY | O_CLOEXEC));
  if (!file) return;
  std::array<char, kLongest> value;
  const ssize_t count = ::read(file.get(), value.data(), value.size());
  // A secret that was never set cannot be read.
  if (count <= 0 || static_cast<size_t>(count) == value.size()) return;
  auto* setting = out.add_settings();
  setting->set_name(path);
  setting->set_value(std::string(value.data(), static_cast<size_t>(count)));
}

void read_directory(Fd directory, const std::string& prefix, schema::Network& out) {
  const int at = directory.get();
  std::unique_ptr<DIR, int (*)(DIR*)> entries(::fdopendir(directory.release()), ::closedir);
  if (!entries) return;
  while (const dirent* entry = ::readdir(entries.get())) {
    const std::string_view name = entry->d_name;
    if (name == "." || name == "..") continue;
    if (entry->d_type == DT_DIR) {
      Fd below(::openat(at, entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
      if (below) read_directory(std::move(below), prefix + entry->d_name + '/', out);
      continue;
    }
    struct stat status = {};
    constexpr mode_t kBoth = S_IRUSR | S_IWUSR;
    if (::fstatat(at, entry->d_name, &status, 0) != 0 || (status.st_mode & kBoth) != kBoth) continue;
    read_one(at, entry->d_name, prefix + entry->d_name, out);
  }
}

}  // namespace

Result<void> read_network_settings(schema::Network& out) {
  STASIS_TRY(Fd top, open_file(kernel::host_proc(), "sys/net", O_RDONLY | O_DIRECTORY));
  read_directory(std::move(top), {}, out);
  return {};
}

}  // namespace stasis::inspect
