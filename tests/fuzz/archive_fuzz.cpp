// Whatever is in a file that is to be imported: an Error, or a checkpoint that is whole, and never a crash or
// a file outside of the store.
//
// Sums would keep the fuzzer out: what looks like a header of tar gets the right one. The compression is left
// to zstd's own fuzzers, but for what comes first.
#include <sys/mman.h>

#include "image/compression.h"
#include "image/export.h"
#include "image/import.h"
#include "image/tar.h"
#include "tests/fuzz/driver.h"
#include "tests/unit/image/archive.h"
#include "tests/unit/image/sample.h"

using namespace stasis;
using namespace stasis::image;

namespace {

constexpr size_t kBlock = 512;

void mend_headers(std::string& text) {
  for (size_t at = 0; at + kBlock <= text.size(); at += kBlock) {
    if (text.compare(at + 257, 5, "ustar") != 0) continue;
    std::memset(&text[at + 148], ' ', 8);
    unsigned sum = 0;
    for (size_t i = 0; i < kBlock; ++i) sum += static_cast<unsigned char>(text[at + i]);
    text.replace(at + 148, 7, fmt::format("{:06o}", sum) + '\0');
  }
}

// Members whose numbers agree, and as many bytes as they say.
void walk(const std::string& text) {
  StringSource source(text);
  TarReader reader(source, "fuzz");
  if (!reader.begin(kArchiveComment).ok()) return;
  for (;;) {
    auto member = reader.next();
    if (!member.ok() || !*member) return;
    uint64_t end = 0;
    for (const Segment& segment : (*member)->segments) {
      if (segment.size == 0 || segment.offset < end || segment.size > (*member)->size - segment.offset)
        __builtin_trap();
      end = segment.offset + segment.size;
    }
    if ((*member)->stored() != reader.left()) __builtin_trap();
    std::string data;
    while (reader.left() > 0) {
      data.resize(std::min<uint64_t>(reader.left(), 1 << 16));
      if (!reader.data(data).ok()) return;
    }
  }
}

void import_it(const std::string& text) {
  // In memory: an import waits for the disk.
  struct Root {
    std::string path = "/dev/shm/stasis-fuzz-XXXXXX";
    Root() {
      if (mkdtemp(path.data()) == nullptr) std::abort();
    }
    ~Root() { std::filesystem::remove_all(path); }
  };
  static const Root made;
  const std::string& root = made.path;
  StringSource source(text);
  ImportRequest request;
  request.source = "fuzz";
  request.name = "fuzz";
  request.session_store = [&](const std::string& name) -> Result<std::string> {
    return root + "/store/" + name;
  };
  auto imported = import_image(source, request);
  if (imported.ok()) {
    auto image = Image::open(imported->directory);
    if (!image.ok() || !image->verify().ok()) __builtin_trap();
    if (!remove(imported->directory).ok()) __builtin_trap();
    rmdir((root + "/store/fuzz").c_str());
  }
  std::filesystem::remove(root + "/store");
  if (!std::filesystem::is_empty(root)) __builtin_trap();
}

void decompress(const std::string& text) {
  Fd file(memfd_create("fuzz", MFD_CLOEXEC));
  if (!write_all(file.get(), text).ok() || lseek(file.get(), 0, SEEK_SET) != 0) return;
  Decompressor decompressor(file.get(), "fuzz");
  std::string part(1 << 16, '\0');
  for (size_t all = 0; all < (64 << 20);) {
    auto got = decompressor.read(part);
    if (!got.ok() || *got == 0) return;
    all += *got;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string text(reinterpret_cast<const char*>(data), size);
  decompress(text);
  mend_headers(text);
  walk(text);
  import_it(text);
  return 0;
}

std::vector<std::string> fuzz_seeds() {
  TemporaryDirectory store;
  auto image = Image::open(write_sample(store.path() + "/sample"));
  StringSink small, sparse;
  if (!export_image(*image, small, {}).ok()) std::abort();
  TarWriter writer(sparse);
  const std::string page = pattern(4096, 1);
  if (!writer.begin(kArchiveComment).ok() ||
      !writer.add({.name = "top/sparse", .size = 1 << 20, .segments = {{4096, 4096}}}).ok() ||
      !writer.data(page).ok() ||
      !writer.add({.name = "top/" + std::string(120, 'n'), .size = 3, .segments = {{0, 3}}}).ok() ||
      !writer.data(std::string_view("abc")).ok() || !writer.end().ok())
    std::abort();
  const std::string frame("\x28\xb5\x2f\xfd\x04\x58\x29\x00\x00\x61\x62\x63\x0a\x00\x00\x00\x00", 17);
  return {small.text, sparse.text, frame};
}
