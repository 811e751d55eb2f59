#include "picture/screen.h"

#include <fcntl.h>

#include <algorithm>
#include <vector>

#include "picture/png.h"
#include "stasis/types.h"

namespace stasis::picture {
namespace {

// More than the largest screen that launch allows needs.
constexpr uint64_t kLargestSegment = uint64_t{1} << 30;

const schema::Process* find_server(const schema::Manifest& manifest) {
  for (const auto& process : manifest.processes()) {
    if (process.pid() == manifest.display().server() && process.state() != schema::Process::ZOMBIE)
      return &process;
  }
  return nullptr;
}

// The segments that the server has attached, in the order of their ids. Its screen is the first: it made it
// before it had clients, whose images (MIT-SHM) are segments, too.
std::vector<const schema::IpcSegment*> attached_segments(const schema::Manifest& manifest,
                                                         const schema::Process& server) {
  std::vector<const schema::IpcSegment*> found;
  const auto& mappings = manifest.memories(static_cast<int>(server.memory())).mappings();
  for (const auto& segment : manifest.system_v().segments()) {
    if (std::any_of(mappings.begin(), mappings.end(), [&](const schema::Mapping& mapping) {
          return mapping.kind() == schema::Mapping::SYSTEM_V && mapping.segment() == segment.object().id();
        }))
      found.push_back(&segment);
  }
  std::sort(found.begin(), found.end(),
            [](const auto* a, const auto* b) { return a->object().id() < b->object().id(); });
  return found;
}

Result<std::string> read_segment(const std::string& directory, const schema::IpcSegment& segment) {
  std::string bytes(std::min(page_up(segment.size()), kLargestSegment), '\0');
  std::vector<Fd> files(1);
  if (!segment.page_file().empty()) {
    STASIS_TRY(files.front(), open_file(fmt::format("{}/{}", directory, segment.page_file()), O_RDONLY));
  }
  for (const auto& layer : segment.layers()) {
    STASIS_TRY(Fd file, open_file(fmt::format("{}/{}", directory, layer), O_RDONLY));
    files.push_back(std::move(file));
  }
  for (const auto& run : segment.runs()) {
    if (run.address() >= bytes.size()) break;
    const auto part =
        std::span(bytes).subspan(run.address(), std::min(run.size(), bytes.size() - run.address()));
    STASIS_CHECK(pread_all(files.at(run.layer()).get(), part, static_cast<off_t>(run.offset())));
  }
  return bytes;
}

Result<Picture> find_screen(const std::string& directory, const schema::Manifest& manifest) {
  const schema::Display& display = manifest.display();
  const schema::Process* server = find_server(manifest);
  const Error none{
      "make a picture of the screen",
      fmt::format("display :{}", display.number()),
      server == nullptr ? "its X server has ended" : "its X server has no screen in shared memory",
      {},
      ErrorCode::kNotFound};
  if (server == nullptr) return none;
  for (const auto* segment : attached_segments(manifest, *server)) {
    STASIS_TRY(const std::string bytes, read_segment(directory, *segment));
    auto picture = read_xwd(bytes);
    if (picture.ok() && picture->width == display.width() && picture->height == display.height())
      return picture;
  }
  return none;
}

}  // namespace

Result<void> add_screen(image::Writer& writer, schema::Manifest& manifest) {
  STASIS_TRY(const Picture screen, find_screen(writer.directory(), manifest));
  STASIS_TRY(const std::string png, encode_png(screen));
  STASIS_TRY(Fd file, writer.create_file(kScreenFile));
  STASIS_CHECK(write_all(file.get(), png));
  writer.written(kScreenFile, png.size());
  manifest.mutable_display()->set_picture(kScreenFile);
  return {};
}

}  // namespace stasis::picture
