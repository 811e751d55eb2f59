// Whatever is in a manifest file: parse_manifest() gives an error or something a restart can trust, and never
// crashes.
//
// The sum would keep the fuzzer out, so the input is also tried as the payload of a file whose header is
// right.
#include <span>

#include "image/format.h"
#include "image/validate.h"
#include "tests/fuzz/driver.h"
#include "tests/unit/image/sample.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  (void)stasis::image::parse_manifest(std::as_bytes(std::span(data, size))).ok();

  stasis::schema::Manifest manifest;
  if (!manifest.ParseFromArray(data, static_cast<int>(size))) return 0;
  const bool valid = stasis::image::validate(manifest).ok();
  // What is valid survives being written and read; what is not is not let in by a right sum.
  const std::string bytes = stasis::image::encode_manifest(manifest);
  if (stasis::image::parse_manifest(std::as_bytes(std::span(bytes))).ok() != valid) __builtin_trap();
  return 0;
}

std::vector<std::string> fuzz_seeds() {
  stasis::schema::Manifest manifest = stasis::image::sample_manifest();
  auto& captured = *manifest.add_captured_files();
  captured.set_path("/data/file");
  captured.add_other_paths("/data/link");
  captured.set_mode(0100600);
  captured.set_method(stasis::schema::CapturedFile::IDENTITY);
  return {manifest.SerializeAsString(), stasis::image::encode_manifest(manifest)};
}
