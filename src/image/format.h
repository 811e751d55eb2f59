// What the bytes of a manifest file mean, and the names in a checkpoint's directory. See
// docs/image-format.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "schema/manifest.pb.h"
#include "stasis/result.h"

namespace stasis::image {

inline constexpr std::string_view kMagic = "STASISIM";
inline constexpr uint32_t kVersion = 1;
// Of a manifest that has layers anywhere: who does not know them would take pages from the wrong file.
inline constexpr uint32_t kVersionWithLayers = 2;
// Of a manifest with what must not be left out of a program, and what its first readers did not know: seccomp
// filters, leases, message queues that nobody has open, guard regions, main threads that have ended.
inline constexpr uint32_t kVersionWithFilters = 3;
// Of a manifest with what the program has mounted, as a tree.
inline constexpr uint32_t kVersionWithMounts = 4;
inline constexpr std::string_view kManifestName = "manifest";

// The manifest file: magic, version, four reserved bytes (zero), length and XXH3 of the payload; then the
// payload.
inline constexpr size_t kHeaderSize = 32;
// A tree of 1,000 processes with badly fragmented memory needs some 100 MiB; more is not a manifest of ours.
inline constexpr uint64_t kManifestLimit = uint64_t{512} << 20;

// Every block of this many bytes of a page file or copied file has a sum of its own, so that verify can say
// where the damage is and a page file can be summed while it is still growing.
inline constexpr uint32_t kBlockSize = 1 << 20;

std::string encode_manifest(const schema::Manifest& manifest);

// Header, sum, protobuf and structure (validate.h): what comes out can be trusted by a restart. Safe for any
// input.
Result<schema::Manifest> parse_manifest(std::span<const std::byte> bytes);

// XXH3, 64 bits, of a block.
uint64_t block_sum(std::span<const std::byte> block);

// A name that can only mean a file inside the directory: no slash, not "." or "..", not the manifest, no
// control characters.
bool valid_file_name(std::string_view name);

// The name of a session: a file name that does not begin with a dot and can be told from SESSION@ID.
bool valid_session_name(std::string_view name);

}  // namespace stasis::image
