// Whatever is in a manifest file: parse_manifest() gives an error or something a restart can trust, and never
// crashes.
//
// The sum would keep the fuzzer out, so the input is also tried as the payload of a file whose header is
// right.
#include <cstddef>
#include <cstdint>
#include <span>

#include "image/format.h"
#include "image/validate.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  (void)stasis::image::parse_manifest(std::as_bytes(std::span(data, size))).ok();

  stasis::schema::Manifest manifest;
  if (!manifest.ParseFromArray(data, static_cast<int>(size))) return 0;
  if (!stasis::image::validate(manifest).ok()) return 0;
  // What is valid survives being written and read.
  const std::string bytes = stasis::image::encode_manifest(manifest);
  if (!stasis::image::parse_manifest(std::as_bytes(std::span(bytes))).ok()) __builtin_trap();
  return 0;
}
