#include "image/validate.h"

#include "image/format.h"
#include "image/validate_internal.h"

namespace stasis::image {
namespace {

using namespace validation;

Result<void> check_head(const schema::Manifest& manifest) {
  if (!manifest.session().empty() && !valid_session_name(manifest.session())) {
    return bad("", "the session's name is not one");
  }
  if (constexpr size_t kMost = 1 << 20;
      manifest.vdso().size() > kMost || manifest.vdso().size() % kPageSize != 0)
    return bad("", fmt::format("a vDSO of {} bytes is impossible", manifest.vdso().size()));
  if (!sane_text(manifest.tag(), 4096)) return bad("", "the tag is too long or has a NUL in it");
  if (manifest.root_pid() < 0 || manifest.root_pid() >= kPidEnd) {
    return bad("", fmt::format("the root process {} is no pid", manifest.root_pid()));
  }
  for (const auto& word : manifest.command()) {
    if (word.find('\0') != std::string::npos) return bad("", "the command has a NUL in it");
  }
  constexpr int kMostPlugins = 64;
  if (manifest.plugins_size() > kMostPlugins) return bad("", "it has too many plugins");
  for (const auto& name : manifest.plugins()) {
    if (name.empty() || !sane_text(name, 64)) return bad("", "the name of a plugin is none");
  }
  const auto& host = manifest.host();
  if (host.xsave_size() > (1 << 20))
    return bad("host", fmt::format("an XSAVE area of {} bytes", host.xsave_size()));
  if (manifest.terminal().attributes().size() > 128) return bad("terminal", "its attributes are too long");
  if (manifest.terminal().rows() > 0xffff || manifest.terminal().columns() > 0xffff) {
    return bad("terminal", "its size is impossible");
  }
  return {};
}

// An X display is the number of a port above 6000, and its screen has sides of 15 bits.
Result<void> check_display(const schema::Manifest& manifest, const Known& known) {
  if (!manifest.has_display()) return {};
  const schema::Display& display = manifest.display();
  constexpr uint32_t kDisplays = 65536 - 6000, kMostPixels = 32767;
  constexpr size_t kMostCookie = 256;
  if (display.number() >= kDisplays) return bad("display", fmt::format("its number is {}", display.number()));
  if (display.server() < 2 || display.server() >= kPidEnd)
    return bad("display", fmt::format("its server {} is no process", display.server()));
  if (display.width() > kMostPixels || display.height() > kMostPixels)
    return bad("display", "its size is impossible");
  if (display.cookie().size() > kMostCookie) return bad("display", "its cookie is too long");
  if (!display.picture().empty() && !known.file_sizes.contains(display.picture()))
    return bad("display", "its picture is no file of the checkpoint");
  return {};
}

Result<void> check_files(const schema::Manifest& manifest, Known& known) {
  uint64_t total = 0;
  for (int i = 0; i < manifest.files_size(); ++i) {
    const auto& file = manifest.files(i);
    if (!valid_file_name(file.name())) return bad(fmt::format("file {}", i), "its name is not one");
    const std::string where = fmt::format("file {}", file.name());
    if (file.size() > kSizeLimit)
      return bad(where, fmt::format("{} bytes are more than a file can have", file.size()));
    total += file.size();
    if (total > kSizeLimit) return bad(where, "all files together are impossibly large");
    if (file.stored() > file.size()) return bad(where, "more of it is stored than it has");
    const uint64_t block = file.block_size();
    if (block < kPageSize || block > (1 << 30) || (block & (block - 1)) != 0) {
      return bad(where, fmt::format("its block size {} is not a power of two from 4096 to 1 GiB", block));
    }
    const uint64_t blocks = file.unsummed() ? 0 : (file.size() + block - 1) / block;
    if (blocks != static_cast<uint64_t>(file.sums_size())) {
      return bad(where, fmt::format("it has {} blocks but {} sums", blocks, file.sums_size()));
    }
    if (!known.file_sizes.emplace(file.name(), file.size()).second) return bad(where, "it is listed twice");
  }
  return {};
}

Result<void> check_descriptions(const schema::Manifest& manifest, Known& known) {
  for (const auto& description : manifest.descriptions()) {
    const std::string where = fmt::format("description {}", description.id());
    if (description.id() == 0) return bad(where, "descriptions are numbered from 1");
    if (description.kind().empty() || !sane_text(description.kind(), 64))
      return bad(where, "its kind is not a name");
    if (!sane_text(description.shown(), kPathLimit))
      return bad(where, "its description for people is too long");
    if (!known.descriptions.insert(description.id()).second) return bad(where, "its number is used twice");
  }
  return {};
}

}  // namespace

Result<void> validate(const schema::Manifest& manifest) {
  Known known;
  known.manifest = &manifest;
  STASIS_CHECK(check_head(manifest));
  STASIS_CHECK(check_files(manifest, known));
  STASIS_CHECK(check_display(manifest, known));
  STASIS_CHECK(check_descriptions(manifest, known));
  STASIS_CHECK(check_captured_files(known));
  STASIS_CHECK(check_networks(known));
  STASIS_CHECK(check_namespaces(known));
  STASIS_CHECK(check_mounts(known));
  STASIS_CHECK(check_system_v(known));
  STASIS_CHECK(check_memories(known));
  STASIS_CHECK(check_processes(known));
  return {};
}

}  // namespace stasis::image
