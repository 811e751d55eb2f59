// What of a memory a new checkpoint has to write when it can share page files with an earlier one, its base.
//
// Nothing here relies on the base being what the memory was: a page is shared when it is byte for byte what
// the base has (or is that very page of the base's file, which was mapped and never written to).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/page_layout.h"
#include "kernel/pagemap.h"
#include "schema/manifest.pb.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::checkpoint {

// A page file of the base that is a file of the new checkpoint as well. `fd` is empty when it could not be
// had: then its pages are written again.
struct BaseFile {
  std::string name;  // in the new checkpoint
  Fd fd;
  FileOfPages identity;
  uint64_t stored = 0;  // bytes of it that are not holes
};

// Where the base has the pages of a memory.
struct BasePages {
  std::vector<schema::PageRun> runs;  // ascending; `layer` is an index into `files`
  std::vector<BaseFile> files;
};

// A part of memory whose pages are together, in one file.
struct Extent {
  uint64_t address = 0;
  uint64_t size = 0;
  int file = kOwn;  // index of a BaseFile
  uint64_t offset = 0;

  static constexpr int kOwn = -1;  // the file that the new checkpoint writes
  bool operator==(const Extent&) const = default;
};

// A part of memory of which one thing has to be done. `file` and `offset` say where the base has it, unless
// the file is kOwn.
struct Candidate {
  enum class Work {
    kWrite,            // the base has nothing of it
    kWriteUnlessZero,  // the same, and a page of zeros is as good as none
    kCompare,
    kShare,  // it is known to be the same
  };
  Extent extent;
  Work work = Work::kWrite;
  size_t mapping = 0;  // see Pages

  bool operator==(const Candidate&) const = default;
};

// In the order of `pages`, which ascend, and covering all of them.
std::vector<Candidate> find_candidates(const std::vector<Pages>& pages, const BasePages& base);

// What is known to be as the base has it need not be compared; `known` ascends.
void share_known(std::vector<Candidate>& candidates, const std::vector<kernel::PageRange>& known);

// Bytes that compare() will read.
uint64_t bytes_to_compare(const std::vector<Candidate>& candidates);

// Reads memory as it is at the checkpoint; false: it cannot be read. Called by several threads.
using ReadMemory = std::function<bool(uint64_t address, std::span<char> into)>;

// Compares, page by page, and says where each page is to come from; what is left out needs no page. The
// offsets of own extents are left to the caller. `told` (may be empty) hears of the bytes that are shared or
// left out.
std::vector<Extent> compare(const std::vector<Candidate>& candidates, const BasePages& base,
                            const ReadMemory& read, const std::function<void(uint64_t)>& told);

// Which files go on being shared. A file of which more than half is not needed any more is not: what is
// needed of it is written again, which costs less than what it frees when the older checkpoints go. And there
// are never more than some dozen: the smaller ones are replaced together. So a series of checkpoints of which
// the older ones are removed takes at most about twice the space of one, and is never worse than that by
// much.
struct FileUse {
  uint64_t stored = 0;  // bytes in the file
  uint64_t needed = 0;  // bytes that the new checkpoint takes from it
};
std::vector<bool> files_to_share(const std::vector<FileUse>& files);

// Applies files_to_share(): extents in other files become own ones.
void drop_wasteful_files(std::vector<Extent>& extents, const BasePages& base);

// Every change of a page between pages that did not change costs a run of some 25 bytes in the manifest.
inline constexpr size_t kMostExtents = 1 << 20;

// Where the candidates are many pages, and none of some samples is the same, comparing the others would only
// cost time: they are to be written. For memory of which nobody knows that it was the same once.
void skip_unlike(std::vector<Candidate>& candidates, const BasePages& base, const ReadMemory& read);

// The parts of `pages` that the extents (of these pages, from compare()) do not find elsewhere.
std::vector<Pages> left_to_write(const std::vector<Pages>& pages, const std::vector<Extent>& extents);

// How they are written: packed from `packed_from` on, or, without that, each where it says.
std::vector<Extent> own_extents(const std::vector<Pages>& pages, std::optional<uint64_t> packed_from);

}  // namespace stasis::checkpoint
