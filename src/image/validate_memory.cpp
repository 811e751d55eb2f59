#include <sys/mman.h>

#include <algorithm>

#include "image/validate_internal.h"
#include "kernel/huge_pages.h"

namespace stasis::image::validation {
namespace {

Result<void> check_mapping(const schema::Mapping& mapping, uint64_t previous_end, const std::string& where,
                           const Known& known) {
  if (!aligned(mapping.start()) || !aligned(mapping.end())) return bad(where, "it is not page-aligned");
  if (mapping.start() >= mapping.end()) return bad(where, "it ends before it starts");
  if (mapping.end() > kUserEnd) return bad(where, "it is outside user space");
  if (mapping.start() < previous_end) return bad(where, "it overlaps the one before it or is out of order");
  if (!schema::Mapping::Kind_IsValid(mapping.kind()))
    return bad(where, fmt::format("unknown kind {}", mapping.kind()));
  if ((mapping.protection() & ~uint32_t{PROT_READ | PROT_WRITE | PROT_EXEC}) != 0) {
    return bad(where, fmt::format("unknown protection {:#x}", mapping.protection()));
  }
  if (!aligned(mapping.file_offset()) || mapping.file_offset() > kSizeLimit)
    return bad(where, "its file offset is impossible");
  if (!sane_text(mapping.host_path(), kPathLimit))
    return bad(where, "its path outside is too long or has a NUL in it");
  if (!sane_text(mapping.path(), kPathLimit)) return bad(where, "its path is too long or has a NUL in it");
  if (!known.description_or_none(mapping.description())) {
    return bad(where,
               fmt::format("it refers to description {}, which does not exist", mapping.description()));
  }
  if (mapping.advice_size() > 64) return bad(where, "it has too many pieces of advice");
  if (mapping.lock_flags() > 3) return bad(where, "unknown lock flags");
  if (const uint32_t shift = mapping.huge_page_shift(); shift != 0) {
    STASIS_CHECK(check_huge_page_shift(shift, where));
    const uint64_t mask = (uint64_t{1} << shift) - 1;
    if (((mapping.start() | mapping.end() | mapping.file_offset()) & mask) != 0) {
      return bad(where, "it is not aligned to its huge pages");
    }
  }
  for (const auto& guard : mapping.guards()) {
    if (!aligned(guard.start()) || !aligned(guard.end()) || guard.start() >= guard.end() ||
        guard.start() < mapping.start() || guard.end() > mapping.end())
      return bad(where, "it has a guard region outside of itself");
  }
  switch (mapping.kind()) {
    case schema::Mapping::PRIVATE_FILE:
    case schema::Mapping::SHARED_FILE:
      if (mapping.path().empty() && mapping.description() == 0)
        return bad(where, "it maps a file but names none");
      break;
    case schema::Mapping::SHARED_MEMORY:
      if (mapping.shared_memory() >= static_cast<uint32_t>(known.manifest->shared_memories_size())) {
        return bad(where, fmt::format("it refers to shared memory {}, which does not exist",
                                      mapping.shared_memory()));
      }
      break;
    case schema::Mapping::SYSTEM_V: {
      auto segment = known.segments.find(mapping.segment());
      if (segment == known.segments.end()) {
        return bad(where, fmt::format("it refers to segment {}, which does not exist", mapping.segment()));
      }
      if (mapping.file_offset() + (mapping.end() - mapping.start()) > page_up(segment->second))
        return bad(where, "it is larger than its segment");
      break;
    }
    case schema::Mapping::DEVICE:
      if (mapping.path().empty()) return bad(where, "it is memory of a device without a name");
      break;
    case schema::Mapping::AIO_RING:
      if (mapping.ring().size() != mapping.end() - mapping.start())
        return bad(where, "what is in its ring has another size");
      break;
    default:
      break;
  }
  return {};
}

// One run by itself and in its file. Runs may share bytes of the file: equal pages need to be stored only
// once.
Result<void> check_run(const schema::PageRun& run, uint64_t previous_end, uint64_t limit,
                       const PageFileSizes& files, const std::string& where) {
  if (!aligned(run.address()) || !aligned(run.size()) || !aligned(run.offset()))
    return bad(where, "it is not page-aligned");
  if (run.size() == 0) return bad(where, "it is empty");
  if (run.address() < previous_end) return bad(where, "it overlaps the one before it or is out of order");
  if (run.address() > limit || run.size() > limit - run.address())
    return bad(where, "it is outside its memory");
  if (run.layer() >= files.size())
    return bad(where, fmt::format("it refers to layer {}, which does not exist", run.layer()));
  const uint64_t file_size = files[run.layer()];
  if (run.offset() > file_size || run.size() > file_size - run.offset()) {
    return bad(where, "it is outside its page file");
  }
  return {};
}

Result<void> check_layout(const schema::Memory& memory, const std::string& where, const Known& known) {
  const std::pair<const char*, uint64_t> addresses[] = {
      {"start_code", memory.start_code()}, {"end_code", memory.end_code()},
      {"start_data", memory.start_data()}, {"end_data", memory.end_data()},
      {"start_brk", memory.start_brk()},   {"brk", memory.brk()},
      {"arg_start", memory.arg_start()},   {"start_stack", memory.start_stack()},
      {"arg_end", memory.arg_end()},       {"env_start", memory.env_start()},
      {"env_end", memory.env_end()}};
  for (const auto& [name, address] : addresses) {
    if (address >= kUserEnd) return bad(where, fmt::format("{} is outside user space", name));
  }
  if (memory.brk() < memory.start_brk()) return bad(where, "its heap ends before it starts");
  // Pairs of numbers; the kernel keeps fewer than 32 of them.
  if (memory.auxv().size() > 4096 || memory.auxv().size() % 16 != 0)
    return bad(where, "its auxiliary vector is impossible");
  if (!known.description_or_none(memory.executable_description()))
    return bad(where, "its executable is a description that does not exist");
  if (!sane_text(memory.executable(), kPathLimit))
    return bad(where, "its executable's path is too long or has a NUL in it");
  return {};
}

Result<void> check_memory(const schema::Memory& memory, const std::string& where, const Known& known) {
  uint64_t end = 0;
  for (int i = 0; i < memory.mappings_size(); ++i) {
    const auto& mapping = memory.mappings(i);
    const std::string what =
        fmt::format("{}: mapping {} ({:#x}-{:#x})", where, i, mapping.start(), mapping.end());
    STASIS_CHECK(check_mapping(mapping, end, what, known));
    end = mapping.end();
  }

  STASIS_TRY(const PageFileSizes files, page_file_sizes(memory, where, known));
  uint64_t run_end = 0;
  int mapping = 0;
  for (int i = 0; i < memory.runs_size(); ++i) {
    const auto& run = memory.runs(i);
    const auto what = [&] { return fmt::format("{}: run {} (at {:#x})", where, i, run.address()); };
    if (auto fine = check_run(run, run_end, kUserEnd, files, ""); !fine) {
      return check_run(run, run_end, kUserEnd, files, what());
    }
    run_end = run.address() + run.size();
    // Both lists ascend: one walk finds the mappings that cover the run, which may be several that touch.
    uint64_t covered = run.address();
    while (covered < run_end) {
      while (mapping < memory.mappings_size() && memory.mappings(mapping).end() <= covered) ++mapping;
      if (mapping == memory.mappings_size() || memory.mappings(mapping).start() > covered) {
        return bad(what(), fmt::format("nothing is mapped at {:#x}", covered));
      }
      const auto kind = memory.mappings(mapping).kind();
      if (kind == schema::Mapping::VDSO || kind == schema::Mapping::VVAR) {
        return bad(what(), "it would overwrite what the kernel maps");
      }
      covered = std::min(memory.mappings(mapping).end(), run_end);
    }
  }
  return check_layout(memory, where, known);
}

Result<void> check_shared_memory(const schema::SharedMemory& memory, const std::string& where,
                                 const Known& known) {
  if (memory.size() > kSizeLimit) return bad(where, fmt::format("{} bytes are impossible", memory.size()));
  if (!sane_text(memory.name(), 4096)) return bad(where, "its name is too long or has a NUL in it");
  if (!known.description_or_none(memory.description())) {
    return bad(where, fmt::format("it refers to description {}, which does not exist", memory.description()));
  }
  STASIS_CHECK(check_huge_page_shift(memory.huge_page_shift(), where));
  if (memory.size() != kernel::in_whole_pages(memory.size(), memory.huge_page_shift()))
    return bad(where, "its size is not one in whole pages");
  STASIS_TRY(const PageFileSizes files, page_file_sizes(memory, where, known));
  return check_runs(memory.runs(), page_up(memory.size()), files, where);
}

}  // namespace

Result<void> check_huge_page_shift(uint32_t shift, const std::string& where) {
  if (shift != 0 && (shift < 12 || shift > 34))
    return bad(where, fmt::format("huge pages of 2^{} bytes", shift));
  return {};
}

Result<PageFileSizes> page_file_sizes(const std::string& page_file, const FileNames& layers, bool needed,
                                      const std::string& where, const Known& known) {
  if (layers.size() > static_cast<int>(kLayerLimit))
    return bad(where, fmt::format("{} layers are more than stasis makes", layers.size()));
  if (page_file.empty() && layers.empty() && needed) return bad(where, "it has pages but no page file");
  PageFileSizes sizes;
  auto add = [&](const std::string& name) -> Result<void> {
    const auto found = known.file_sizes.find(name);
    if (found == known.file_sizes.end())
      return bad(where, fmt::format("its page file {} is not in the image", name));
    sizes.push_back(found->second);
    return {};
  };
  if (page_file.empty()) {
    sizes.push_back(0);
  } else {
    STASIS_CHECK(add(page_file));
  }
  for (const auto& name : layers) STASIS_CHECK(add(name));
  return sizes;
}

Result<void> check_runs(const google::protobuf::RepeatedPtrField<schema::PageRun>& runs, uint64_t limit,
                        const PageFileSizes& files, const std::string& where) {
  uint64_t end = 0;
  for (int i = 0; i < runs.size(); ++i) {
    const auto& run = runs[i];
    STASIS_CHECK(check_run(run, end, limit, files, fmt::format("{}: run {}", where, i)));
    end = run.address() + run.size();
  }
  return {};
}

Result<void> check_memories(const Known& known) {
  const schema::Manifest& manifest = *known.manifest;
  for (int i = 0; i < manifest.memories_size(); ++i) {
    STASIS_CHECK(check_memory(manifest.memories(i), fmt::format("memory {}", i), known));
  }
  for (int i = 0; i < manifest.shared_memories_size(); ++i) {
    STASIS_CHECK(check_shared_memory(manifest.shared_memories(i), fmt::format("shared memory {}", i), known));
  }
  return {};
}

}  // namespace stasis::image::validation
