// Sums and flushes the files of a checkpoint while they are still being written.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "image/blocks.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::image {

// Two threads, started when there is enough to do: one reads finished blocks back from the page cache and
// sums them, the other sends them to the disk. The disk is slower than the sum and its queue makes the sender
// wait, so neither holds up the other. finish() does the rest with the caller's help. The destructor stops
// and joins the threads.
class Background {
 public:
  struct File {
    std::string name;
    Fd fd;                 // a description of its own: its position belongs to the summing
    uint64_t ready = 0;    // bytes that will not change any more
    uint64_t claimed = 0;  // blocks given to a summer
    uint64_t started = 0;  // bytes whose write-back was started
    uint64_t size = 0;     // set by finish()
    uint64_t stored = 0;
    std::vector<uint64_t> sums;
    bool summed = true;  // else it is only synced
  };

  Background() = default;
  ~Background();
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  void add(std::string name, Fd fd, bool summed = true);
  void written(const std::string& name, uint64_t up_to);

  // Sums and syncs everything. Afterwards files() does not change any more.
  Result<void> finish();
  const std::deque<File>& files() const { return files_; }

 private:
  struct Block {
    File* file;
    uint64_t index;
    uint64_t size;
  };
  struct Extent {
    File* file;
    uint64_t offset;
    uint64_t size;
  };

  void start();
  void stop();
  void run_summer();
  void run_flusher();
  std::optional<Block> claim_block();    // with mutex_ held
  std::optional<Extent> claim_extent();  // with mutex_ held
  void sum(const Block& block, BlockSummer& summer, std::unique_lock<std::mutex>& lock);
  Result<void> sync_all();
  void fail(Error error);  // with mutex_ held; the first one counts

  std::mutex mutex_;
  std::condition_variable work_;
  std::condition_variable progress_;
  std::deque<File> files_;  // a deque: claimed blocks point into it
  size_t in_progress_ = 0;  // blocks being summed
  bool finishing_ = false;
  bool stopping_ = false;
  std::optional<Error> error_;
  std::thread summer_;
  std::thread flusher_;
};

}  // namespace stasis::image
