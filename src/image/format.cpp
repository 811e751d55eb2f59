#include "image/format.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "image/validate.h"

namespace stasis::image {
namespace {

// Fields are written byte by byte, so that the format is little-endian whatever we are compiled for.
template <typename T>
void put(std::string& out, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) out.push_back(static_cast<char>(value >> (8 * i)));
}

template <typename T>
T get(std::span<const std::byte> bytes, size_t offset) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) value |= static_cast<T>(bytes[offset + i]) << (8 * i);
  return value;
}

Error damaged(std::string cause) {
  return {"read image", "manifest", std::move(cause), "restart from another checkpoint (stasis list)",
          ErrorCode::kDamaged};
}

template <typename List>
bool any_layers(const List& memories) {
  return std::any_of(memories.begin(), memories.end(),
                     [](const auto& memory) { return memory.layers_size() > 0; });
}

bool has_layers(const schema::Manifest& manifest) {
  return any_layers(manifest.memories()) || any_layers(manifest.shared_memories()) ||
         any_layers(manifest.system_v().segments());
}

bool has_leases(const schema::Manifest& manifest) {
  return std::any_of(
      manifest.descriptions().begin(), manifest.descriptions().end(), [](const auto& description) {
        return std::any_of(description.locks().begin(), description.locks().end(),
                           [](const auto& lock) { return lock.kind() == schema::FileLock::LEASE; });
      });
}

bool has_guards(const schema::Manifest& manifest) {
  return std::any_of(manifest.memories().begin(), manifest.memories().end(), [](const auto& memory) {
    return std::any_of(memory.mappings().begin(), memory.mappings().end(),
                       [](const auto& mapping) { return mapping.guards_size() > 0; });
  });
}

bool has_odd_threads(const schema::Manifest& manifest) {
  return std::any_of(manifest.processes().begin(), manifest.processes().end(), [](const auto& process) {
    return std::any_of(process.threads().begin(), process.threads().end(),
                       [](const auto& thread) { return thread.ended() || thread.strict(); });
  });
}

bool has_mounts(const schema::Manifest& manifest) {
  return manifest.session_mounts().mounts_size() > 0 ||
         std::any_of(manifest.namespaces().begin(), manifest.namespaces().end(),
                     [](const auto& names) { return names.mounts_size() > 0; });
}

uint32_t version_of(const schema::Manifest& manifest) {
  if (has_mounts(manifest)) return kVersionWithMounts;
  if (manifest.seccomp_filters_size() > 0 || manifest.message_queues_size() > 0 || has_leases(manifest) ||
      has_guards(manifest) || has_odd_threads(manifest))
    return kVersionWithFilters;
  return has_layers(manifest) ? kVersionWithLayers : kVersion;
}

bool has_control_characters(std::string_view name) {
  for (unsigned char c : name) {
    if (c < 0x20 || c == 0x7f) return true;
  }
  return false;
}

}  // namespace

std::string encode_manifest(const schema::Manifest& manifest) {
  const size_t length = manifest.ByteSizeLong();
  std::string out;
  out.reserve(kHeaderSize + length);
  out.append(kMagic);
  put<uint32_t>(out, version_of(manifest));
  put<uint32_t>(out, 0);
  put<uint64_t>(out, length);
  put<uint64_t>(out, 0);  // the sum's place
  manifest.AppendToString(&out);
  std::string sum;
  put<uint64_t>(sum, XXH3_64bits(out.data() + kHeaderSize, out.size() - kHeaderSize));
  out.replace(24, sum.size(), sum);
  return out;
}

Result<schema::Manifest> parse_manifest(std::span<const std::byte> bytes) {
  if (bytes.size() < kHeaderSize) {
    return damaged(fmt::format("it has {} bytes, less than its header", bytes.size()));
  }
  if (std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0)
    return damaged("this is not an image of stasis");
  const auto version = get<uint32_t>(bytes, 8);
  if (version < kVersion || version > kVersionWithMounts) {
    Error error =
        damaged(fmt::format("its format is version {}, this is version {}", version, kVersionWithMounts));
    error.hint = "use the stasis that wrote it";
    return error;
  }
  if (get<uint32_t>(bytes, 12) != 0) return damaged("its reserved field is not zero");
  const auto length = get<uint64_t>(bytes, 16);
  const auto payload = bytes.subspan(kHeaderSize);
  if (length != payload.size()) {
    return damaged(
        fmt::format("it should have {} bytes after its header and has {}", length, payload.size()));
  }
  if (length > kManifestLimit)
    return damaged(fmt::format("{} bytes are more than any checkpoint needs", length));
  if (get<uint64_t>(bytes, 24) != XXH3_64bits(payload.data(), payload.size())) {
    return damaged("its checksum does not match its contents");
  }
  schema::Manifest manifest;
  if (!manifest.ParseFromArray(payload.data(), static_cast<int>(payload.size()))) {
    return damaged("its contents cannot be parsed");
  }
  if (version != version_of(manifest)) return damaged("its version is not that of what is in it");
  STASIS_CHECK(validate(manifest));
  return manifest;
}

uint64_t block_sum(std::span<const std::byte> block) { return XXH3_64bits(block.data(), block.size()); }

bool valid_file_name(std::string_view name) {
  return !name.empty() && name.size() <= 255 && name.find('/') == name.npos && name != "." && name != ".." &&
         name != kManifestName && !has_control_characters(name);
}

bool valid_session_name(std::string_view name) {
  return !name.empty() && name.size() <= 200 && name.front() != '.' && name.front() != '-' &&
         name.find_first_of("/@") == name.npos && !has_control_characters(name);
}

}  // namespace stasis::image
