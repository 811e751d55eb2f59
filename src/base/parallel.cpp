#include "base/parallel.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

namespace stasis {

namespace {

// A job is over when all of it was taken, and those who took some have come back.
class Pool {
 public:
  explicit Pool(unsigned threads, const std::function<void()>& begin) {
    sigset_t all, before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are for the main thread
    for (unsigned i = 0; i < threads; ++i) std::thread(&Pool::live, this, begin).detach();
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  bool is_ours() const { return process_ == ::getpid(); }

  // Nobody is at work, or will be.
  bool is_free() const { return work_ == nullptr || (next_ >= count_ && busy_ == 0); }

  void begin(size_t count, const std::function<void(size_t)>& work) {
    settle();
    {
      std::lock_guard lock(mutex_);
      work_ = &work;
      count_ = count;
      next_ = 0;
      ++number_;
    }
    called_.notify_all();
  }

  void finish(const std::function<void(size_t)>& work) {
    if (work_ != &work) return;  // another one has begun after all of it was done
    take_all(work);
    settle();
  }

 private:
  // Nobody joins any more, however late he wakes. Whoever is still at work is through in a moment.
  void settle() {
    {
      std::lock_guard lock(mutex_);
      work_ = nullptr;
    }
    while (busy_.load(std::memory_order_acquire) != 0) ::sched_yield();
  }

  void live(const std::function<void()>& begin) {
    begin();
    fetch_heap();
    uint64_t seen = 0;
    for (;;) {
      std::unique_lock lock(mutex_);
      called_.wait(lock, [&] { return number_ != seen && work_ != nullptr; });
      seen = number_;
      const auto* work = work_;
      busy_.fetch_add(1, std::memory_order_acq_rel);
      lock.unlock();
      take_all(*work);
      busy_.fetch_sub(1, std::memory_order_release);
    }
  }

  void take_all(const std::function<void(size_t)>& work) {
    for (size_t index; (index = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) work(index);
  }

  // A thread has a heap of its own, whose first pages would be fetched one by one while others wait.
  static void fetch_heap() {
    constexpr size_t kEnough = 256 << 10;
    auto* next = static_cast<volatile char*>(std::malloc(kEnough));
    if (next == nullptr) return;
    for (size_t at = 0; at < kEnough; at += 4096) next[at] = 0;
    std::free(const_cast<char*>(next));
  }

  const pid_t process_ = ::getpid();
  std::mutex mutex_;
  std::condition_variable called_;
  const std::function<void(size_t)>* work_ = nullptr;  // written by the caller alone
  size_t count_ = 0;
  uint64_t number_ = 0;  // of the job
  std::atomic<size_t> next_ = 0;
  std::atomic<unsigned> busy_ = 0;
};

// A table of descriptors that several threads share grows only after all processors have passed through the
// scheduler, which takes longer than all else here.
void reserve_descriptors() {
  rlimit limit = {};
  constexpr rlim_t kMany = 4096;
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == 0) return;
  const int last = static_cast<int>(std::min(kMany, limit.rlim_cur)) - 1;
  const int file = ::open("/", O_PATH | O_CLOEXEC);
  const int high = ::fcntl(file, F_DUPFD_CLOEXEC, last);
  if (high >= 0) ::close(high);
  if (file >= 0) ::close(file);
}

Pool* g_pool = nullptr;  // for as long as its threads live, which is always

bool has_free_pool() { return g_pool != nullptr && g_pool->is_ours() && g_pool->is_free(); }

}  // namespace

void start_parallel_threads(const std::function<void()>& begin) {
  constexpr unsigned kMost = 3;
  const unsigned further = std::max(1U, std::thread::hardware_concurrency()) - 1;
  if (g_pool != nullptr || further == 0) return;
  reserve_descriptors();
  g_pool = new Pool(std::min(further, kMost), begin);
}

void for_each_index(size_t count, const std::function<void(size_t)>& work) {
  // To wake somebody takes longer than a few pieces.
  constexpr size_t kFew = 4;
  if (count > kFew && has_free_pool()) {
    g_pool->begin(count, work);
    g_pool->finish(work);
    return;
  }
  for (size_t index = 0; index < count; ++index) work(index);
}

ConcurrentWork::ConcurrentWork(size_t count, std::function<void(size_t)> work)
    : count_(count), work_(std::move(work)) {
  if (count_ == 0 || !has_free_pool()) return;
  g_pool->begin(count_, work_);
  begun_ = true;
}

void ConcurrentWork::join() {
  if (std::exchange(joined_, true)) return;
  if (begun_) {
    g_pool->finish(work_);
  } else {
    for (size_t index = 0; index < count_; ++index) work_(index);
  }
}

Result<void> try_each_index(size_t count, const std::function<Result<void>(size_t)>& work) {
  std::mutex mutex;
  std::optional<Error> first;
  size_t first_index = count;
  for_each_index(count, [&](size_t index) {
    auto done = work(index);
    if (done.ok()) return;
    std::lock_guard lock(mutex);
    if (index >= first_index) return;
    first_index = index;
    first = std::move(done).error();
  });
  if (first) return std::move(*first);
  return {};
}

}  // namespace stasis
