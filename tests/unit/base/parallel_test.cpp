#include "base/parallel.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <numeric>
#include <vector>

namespace stasis {
namespace {

constexpr size_t kMany = 1000;

// Each index has to come once.
void expect_each_once(size_t count) {
  std::vector<std::atomic<int>> times(count);
  for_each_index(count, [&](size_t index) { ++times[index]; });
  for (const auto& one : times) EXPECT_EQ(one.load(), 1);
}

// The threads stay once they are started, so one test has all of it.
TEST(Parallel, EachIndexComesOnceWithoutAndWithThreads) {
  expect_each_once(kMany);
  static std::atomic<int> begun = 0;  // a thread may come late, when the test is over
  start_parallel_threads([] { ++begun; });
  start_parallel_threads([] { ADD_FAILURE() << "they were there"; });
  for (size_t count : {size_t{0}, size_t{1}, size_t{5}, kMany}) expect_each_once(count);
  for (int job = 0; job < 2000; ++job) expect_each_once(8);
  EXPECT_LE(begun.load(), 3);
}

TEST(Parallel, TheErrorOfTheLowestIndex) {
  start_parallel_threads([] {});
  auto result = try_each_index(kMany, [](size_t index) -> Result<void> {
    if (index % 7 != 3) return {};
    return Error{"test", std::to_string(index), "it fails", {}};
  });
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().object, "3");
  EXPECT_TRUE(try_each_index(kMany, [](size_t) -> Result<void> { return {}; }).ok());
}

TEST(Parallel, WorkGoesOnBesideOtherWork) {
  start_parallel_threads([] {});
  std::vector<std::atomic<int>> times(kMany);
  {
    ConcurrentWork beside(kMany, [&](size_t index) { ++times[index]; });
    expect_each_once(kMany);  // whether or not the threads have time for it
  }
  for (const auto& one : times) EXPECT_EQ(one.load(), 1);
  ConcurrentWork first(kMany, [&](size_t index) { ++times[index]; });
  ConcurrentWork second(kMany, [&](size_t index) { ++times[index]; });
  second.join();
  first.join();
  first.join();
  for (const auto& one : times) EXPECT_EQ(one.load(), 3);
}

TEST(Parallel, AChildOfForkWorksAlone) {
  start_parallel_threads([] {});
  expect_each_once(kMany);
  const pid_t child = ::fork();
  if (child == 0) {
    std::vector<int> times(kMany);  // no other thread may touch it
    for_each_index(kMany, [&](size_t index) { ++times[index]; });
    ::_exit(std::accumulate(times.begin(), times.end(), 0) == static_cast<int>(kMany) ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace stasis
