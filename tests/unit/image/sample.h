// A small checkpoint to try things on, and a directory for it that goes away.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/user.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "image/format.h"
#include "image/reader.h"
#include "image/store.h"
#include "image/writer.h"
#include "stasis/fd.h"

namespace stasis::image {

// Owns a directory; removes it with all that is in it.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    char name[] = "/tmp/stasis-image-XXXXXX";
    if (mkdtemp(name) == nullptr) std::abort();
    path_ = name;
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline void add_thread(schema::Process& process, int tid) {
  auto& thread = *process.add_threads();
  thread.set_tid(tid);
  thread.set_name("sample");
  thread.set_registers(std::string(sizeof(user_regs_struct), '\x11'));
  thread.set_extended_state(std::string(832, '\x22'));
}

// Two processes, one with two threads, that share a pipe and a piece of memory. Valid together with `pages`
// and `shared`, of 4 and 2 pages.
inline schema::Manifest sample_manifest() {
  schema::Manifest manifest;
  manifest.set_session("sample");
  manifest.set_tag("first");
  manifest.set_root_pid(42);
  manifest.mutable_clocks()->set_realtime_ns(1'700'000'000'000'000'000);
  manifest.set_pause_ns(3'000'000);
  for (int pid : {42, 51}) {
    auto& process = *manifest.add_processes();
    process.set_pid(pid);
    process.set_parent(pid == 42 ? 1 : 42);
    process.set_group(42);
    process.set_session(42);
    process.set_exit_signal(17);
    process.set_comm("sample");
    process.set_working_directory("/");
    process.set_memory(pid == 42 ? 0 : 1);
    add_thread(process, pid);
    auto& slot = *process.add_descriptors();
    slot.set_number(7);
    slot.set_description(1);
  }
  add_thread(*manifest.mutable_processes(0), 43);
  for (int i = 0; i < 2; ++i) {
    auto& memory = *manifest.add_memories();
    auto& mapping = *memory.add_mappings();
    mapping.set_start(0x10000);
    mapping.set_end(0x14000);
    mapping.set_protection(3);
    auto& shared = *memory.add_mappings();
    shared.set_start(0x20000);
    shared.set_end(0x22000);
    shared.set_kind(schema::Mapping::SHARED_MEMORY);
    shared.set_shared_memory(0);
    auto& run = *memory.add_runs();
    run.set_address(0x11000);
    run.set_size(0x2000);
    run.set_offset(0x2000 * i);
    memory.set_page_file("pages");
  }
  auto& shared = *manifest.add_shared_memories();
  shared.set_size(0x2000);
  shared.set_page_file("shared");
  auto& run = *shared.add_runs();
  run.set_size(0x2000);
  auto& description = *manifest.add_descriptions();
  description.set_id(1);
  description.set_kind("pipe");
  description.set_shown("pipe:[1]");
  return manifest;
}

inline std::string pattern(size_t size, unsigned seed) {
  std::string data(size, '\0');
  for (size_t i = 0; i < size; ++i) data[i] = static_cast<char>((i * 2654435761u + seed) >> 13);
  return data;
}

// The sample as a checkpoint on the disk. Fails the test that calls it when it cannot be made.
inline std::string write_sample(const std::string& session_store) {
  auto writer = Writer::create(session_store);
  EXPECT_TRUE(writer.ok()) << writer.error().message();
  if (!writer.ok()) return {};
  for (auto [name, size] : {std::pair("pages", 0x4000), std::pair("shared", 0x2000)}) {
    auto file = writer->create_file(name);
    EXPECT_TRUE(file.ok()) << file.error().message();
    EXPECT_TRUE(write_all(file->get(), pattern(static_cast<size_t>(size), 7)).ok());
    writer->written(name, static_cast<uint64_t>(size));
  }
  auto manifest = sample_manifest();
  auto published = writer->publish(manifest);
  EXPECT_TRUE(published.ok()) << published.error().message();
  return published.ok() ? published->directory : std::string();
}

inline std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory))
    names.push_back(entry.path().filename());
  return names;
}

}  // namespace stasis::image
