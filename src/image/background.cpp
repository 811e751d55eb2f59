#include "image/background.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "image/directory.h"
#include "image/format.h"
#include "kernel/affinity.h"

namespace stasis::image {
namespace {

// Less than this is summed by finish() itself: starting a thread costs as much as summing some hundred KiB,
// and small checkpoints should not pay for it.
constexpr uint64_t kWorthAThread = 4 << 20;
// Large enough for the file system to allocate in one piece, small enough that the disk is busy early.
constexpr uint64_t kFlushExtent = 16 << 20;

}  // namespace

Background::~Background() { stop(); }

void Background::add(std::string name, Fd fd, bool summed) {
  std::lock_guard lock(mutex_);
  File& file = files_.emplace_back();
  file.name = std::move(name);
  file.fd = std::move(fd);
  file.summed = summed;
}

void Background::written(const std::string& name, uint64_t up_to) {
  std::lock_guard lock(mutex_);
  for (File& file : files_) {
    if (file.name != name) continue;
    file.ready = std::max(file.ready, up_to);
    if (file.ready >= kWorthAThread && !summer_.joinable()) start();
    work_.notify_all();
    return;
  }
}

void Background::start() {
  // Signals are the business of whoever uses us; a handler must not run on these threads.
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  summer_ = std::thread(&Background::run_summer, this);
  flusher_ = std::thread(&Background::run_flusher, this);
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
}

void Background::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    work_.notify_all();
  }
  if (summer_.joinable()) summer_.join();
  if (flusher_.joinable()) flusher_.join();
}

void Background::fail(Error error) {
  if (!error_) error_ = std::move(error);
  stopping_ = true;
  work_.notify_all();
  progress_.notify_all();
}

std::optional<Background::Block> Background::claim_block() {
  for (File& file : files_) {
    if (!file.summed) continue;
    const uint64_t offset = file.claimed * kBlockSize;
    if (offset >= file.ready) continue;
    const uint64_t left = file.ready - offset;
    // Until the size is known a block that is not full may still grow.
    if (left < kBlockSize && !finishing_) continue;
    const uint64_t index = file.claimed++;
    if (file.sums.size() <= index) file.sums.resize(index + 1);
    return Block{&file, index, std::min<uint64_t>(left, kBlockSize)};
  }
  return std::nullopt;
}

std::optional<Background::Extent> Background::claim_extent() {
  for (File& file : files_) {
    const uint64_t left = file.ready - std::min(file.started, file.ready);
    if (left == 0 || (left < kFlushExtent && !finishing_)) continue;
    const uint64_t size = std::min(left, kFlushExtent);
    const uint64_t offset = file.started;
    file.started += size;
    return Extent{&file, offset, size};
  }
  return std::nullopt;
}

void Background::sum(const Block& block, BlockSummer& summer, std::unique_lock<std::mutex>& lock) {
  ++in_progress_;
  lock.unlock();
  auto sum = summer.sum(block.file->fd.get(), block.file->name, block.index * kBlockSize, block.size);
  lock.lock();
  --in_progress_;
  if (sum) {
    block.file->sums[block.index] = sum->sum;
    block.file->stored += sum->stored;
  } else {
    fail(std::move(sum).error());
  }
  if (in_progress_ == 0) progress_.notify_all();
}

void Background::run_summer() {
  kernel::OneProcessor::leave_in_new_thread();
  BlockSummer summer;
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (auto block = claim_block()) {
      sum(*block, summer, lock);
    } else {
      work_.wait(lock);
    }
  }
}

void Background::run_flusher() {
  kernel::OneProcessor::leave_in_new_thread();
  std::unique_lock lock(mutex_);
  while (!stopping_ && !finishing_) {
    auto extent = claim_extent();
    if (!extent) {
      work_.wait(lock);
      continue;
    }
    lock.unlock();
    // Only starts the write-back, and only as a favour: a failure shows in fdatasync.
    sync_file_range(extent->file->fd.get(), static_cast<off_t>(extent->offset),
                    static_cast<off_t>(extent->size), SYNC_FILE_RANGE_WRITE);
    lock.lock();
  }
  if (stopping_) return;
  lock.unlock();
  auto synced = sync_all();
  lock.lock();
  if (!synced) fail(std::move(synced).error());
}

Result<void> Background::sync_all() {
  // All of them are on their way to the disk before the first is waited for.
  for (File& file : files_) {
    const uint64_t from = std::min(file.started, file.size);
    if (from < file.size && files_.size() > 1) {
      sync_file_range(file.fd.get(), static_cast<off_t>(from), 0, SYNC_FILE_RANGE_WRITE);
    }
  }
  for (File& file : files_) {
    if (fdatasync(file.fd.get()) != 0) return write_error("write checkpoint", file.name, errno);
  }
  return {};
}

Result<void> Background::finish() {
  std::unique_lock lock(mutex_);
  uint64_t left = 0;
  for (File& file : files_) {
    struct stat status;
    if (fstat(file.fd.get(), &status) != 0) return errno_error("write checkpoint", file.name);
    file.size = file.ready = static_cast<uint64_t>(status.st_size);
    if (!file.summed) {
      // Blocks that it shares count like its own.
      file.stored = std::min(file.size, static_cast<uint64_t>(status.st_blocks) * 512);
      continue;
    }
    const uint64_t blocks = (file.size + kBlockSize - 1) / kBlockSize;
    if (blocks < file.claimed) {
      return Error{"write checkpoint", file.name, "it has become shorter since it was written", "",
                   ErrorCode::kFailed};
    }
    file.sums.resize(blocks);
    left += file.size - std::min(file.size, file.claimed * kBlockSize);
  }
  finishing_ = true;
  if (left >= kWorthAThread && !summer_.joinable() && !stopping_) start();
  work_.notify_all();

  BlockSummer summer;
  while (!stopping_) {
    auto block = claim_block();
    if (!block) break;
    sum(*block, summer, lock);
  }
  progress_.wait(lock, [this] { return in_progress_ == 0; });

  if (flusher_.joinable()) {
    lock.unlock();
    flusher_.join();  // it ends when it has synced
    lock.lock();
  } else if (!error_) {
    if (auto synced = sync_all(); !synced) fail(std::move(synced).error());
  }
  stopping_ = true;
  work_.notify_all();
  if (error_) return *error_;
  return {};
}

}  // namespace stasis::image
