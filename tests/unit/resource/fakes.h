// A tree and a restart made of the descriptors of the test process itself: what is observed, made and filled
// is real, only the processes are missing.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <list>
#include <map>
#include <set>

#include "resource/registry.h"

namespace stasis::resource {

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    char name[] = "/tmp/stasis-test-XXXXXX";
    path_ = mkdtemp(name);
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

class FakeTree final : public Observation {
 public:
  explicit FakeTree(const TemporaryDirectory& image) : image_(image) {}

  // Numbers that share one open file description are given together.
  const OpenFile& add(std::initializer_list<int> numbers) {
    int fd = *numbers.begin();
    auto file = std::make_unique<OpenFile>();
    file->id = static_cast<uint32_t>(files_.size() + 1);
    file->task = HostTid{getpid()};
    file->pid = NsTid{getpid()};
    file->number = fd;
    file->link = std::filesystem::read_symlink(fmt::format("/proc/self/fd/{}", fd));
    EXPECT_EQ(fstat(fd, &file->status), 0);
    file->fdinfo = read_file(fmt::format("/proc/self/fdinfo/{}", fd)).value();
    file->flags = static_cast<uint32_t>(fcntl(fd, F_GETFL));
    file->position = strtoll(file->info("pos").c_str(), nullptr, 10);
    file->duplicate = duplicate(fd).value();
    for (int number : numbers) {
      file->owners.emplace_back(file->pid, number);
      by_number_[number] = file.get();
    }
    files_.push_back(std::move(file));
    return *files_.back();
  }

  const std::vector<std::unique_ptr<OpenFile>>& all() const override { return files_; }
  const OpenFile* find(HostTid, int number) const override {
    auto entry = by_number_.find(number);
    return entry == by_number_.end() ? nullptr : entry->second;
  }
  uint64_t session_terminal() const override { return terminal; }
  std::optional<int> session_stdio(const OpenFile& file) const override {
    auto entry = stdio.find(file.number);
    return entry == stdio.end() ? std::nullopt : std::optional(entry->second);
  }
  NsTid peer_process(const OpenFile&) const override { return NsTid{getpid()}; }
  Result<Fd> create_file(const std::string& name) override {
    created.insert(name);
    return open_file(image_ / name, O_RDWR | O_CREAT | O_EXCL);
  }
  void warn(std::string text) override { warnings.push_back(std::move(text)); }

  Result<std::vector<Record>> observe() {
    std::vector<Record> records;
    for (const auto& file : files_) {
      const DescriptorKind& kind = recognise(*file, *this);
      STASIS_TRY(std::string payload, kind.observe(*file, *this));
      records.push_back(
          {file->id, std::string(kind.info().name), payload, file->flags, file->position, file->link});
    }
    return records;
  }

  // Our own duplicates keep locks and pipes alive, as the program does until it ends.
  void end_program() {
    by_number_.clear();
    files_.clear();
  }

  uint64_t terminal = 0;
  std::map<int, int> stdio;
  std::vector<std::string> warnings;
  std::set<std::string> created;

 private:
  const TemporaryDirectory& image_;
  std::vector<std::unique_ptr<OpenFile>> files_;
  std::map<int, const OpenFile*> by_number_;
};

class FakeMaking final : public Making {
 public:
  FakeMaking(const TemporaryDirectory& image, std::vector<Record> records)
      : image_(image), records_(std::move(records)) {}

  Result<void> run() {
    for (const Record& record : records_) {
      if (auto made = description(record.id); !made.ok()) return std::move(made).error();
    }
    for (const Record& record : records_) {
      STASIS_CHECK(find_descriptor_kind(record.kind)->fill(record, made_[record.id].get(), *this));
    }
    using Round = DescriptorKind::Round;
    for (Round round : {Round::kListen, Round::kConnect, Round::kWait, Round::kSend, Round::kEnd}) {
      for (const Record& record : records_) {
        STASIS_CHECK(find_descriptor_kind(record.kind)->settle(record, made_[record.id].get(), *this, round));
      }
      for (const auto& act : deeds_) STASIS_CHECK(act());
      deeds_.clear();
    }
    shared_.clear();
    kept_.clear();
    return {};
  }

  // The restored descriptor.
  int operator[](uint32_t id) { return made_[id].get(); }
  void close(uint32_t id) { made_[id].reset(); }

  const std::vector<Record>& records() const override { return records_; }
  Result<int> description(uint32_t id) override {
    if (!made_.contains(id)) {
      const Record& wanted = *record(id);
      const DescriptorKind* kind = find_descriptor_kind(wanted.kind);
      EXPECT_NE(kind, nullptr) << wanted.kind;
      STASIS_TRY(Fd fd, kind->make(wanted, *this));
      made_[id] = std::move(fd);
    }
    return made_[id].get();
  }
  void provide(uint32_t id, Fd fd) override {
    EXPECT_FALSE(made_.contains(id));
    made_[id] = std::move(fd);
  }
  bool provided(uint32_t id) const override { return made_.contains(id); }
  std::map<std::string, Fd>& shared_objects() override { return shared_; }
  std::map<std::string, Fd>& kept_objects() override { return kept_; }
  // By the test itself, whoever it is to be.
  void as(const Actor&, std::function<Result<void>()> act) override { deeds_.push_back(std::move(act)); }
  Result<Fd> open_image_file(const std::string& name) override { return open_file(image_ / name, O_RDONLY); }
  std::string terminal_path() const override { return terminal; }
  int stdio(int which) const override { return streams[static_cast<size_t>(which)]; }

  std::string terminal;
  std::array<int, 3> streams = {-1, -1, -1};

 private:
  const TemporaryDirectory& image_;
  std::vector<Record> records_;
  std::map<uint32_t, Fd> made_;
  std::map<std::string, Fd> shared_, kept_;
  std::vector<std::function<Result<void>()>> deeds_;
};

// The test process is the owner.
class FakeFinishing final : public Finishing {
 public:
  explicit FakeFinishing(int number) : number_(number) {}
  int number() const override { return number_; }
  HostTid task() const override { return HostTid{getpid()}; }
  NsTid pid() const override { return NsTid{getpid()}; }
  Result<void> run(std::span<Call> calls) override {
    for (Call& call : calls) {
      const auto& a = call.arguments;
      const long result = syscall(call.number, a[0], a[1], a[2], a[3], a[4], a[5]);
      call.result = result < 0 ? -errno : result;
    }
    return {};
  }
  void forget() override {}
  Result<void> read(RemotePtr from, std::span<std::byte> into) const override {
    std::memcpy(into.data(), reinterpret_cast<const void*>(from.value), into.size());
    return {};
  }
  Result<void> write(RemotePtr to, std::span<const std::byte> bytes) override {
    std::memcpy(reinterpret_cast<void*>(to.value), bytes.data(), bytes.size());
    return {};
  }
  Result<std::vector<MappedRange>> mappings() const override { return std::vector<MappedRange>(); }
  Result<RemotePtr> put(std::span<const std::byte> bytes) override {
    kept_.emplace_back(bytes.begin(), bytes.end());
    return RemotePtr{reinterpret_cast<uint64_t>(kept_.back().data())};
  }

 private:
  int number_;
  std::list<std::vector<std::byte>> kept_;
};

inline std::string why(const Error& error) { return error.message(); }

#define ASSERT_OK(expression)                              \
  do {                                                     \
    auto&& ok_result = (expression);                       \
    ASSERT_TRUE(ok_result.ok()) << why(ok_result.error()); \
  } while (false)

// What can be read from a descriptor now, without waiting.
inline std::string read_now(int fd, size_t limit = 1 << 20) {
  std::string text(limit, '\0');
  pollfd state = {fd, POLLIN, 0};
  if (poll(&state, 1, 0) <= 0) return "(nothing)";
  ssize_t count = read(fd, text.data(), text.size());
  if (count < 0) return fmt::format("({})", strerror(errno));
  text.resize(static_cast<size_t>(count));
  return text;
}

// Observes and makes again; the original stays open.
class ResourceTest : public testing::Test {
 protected:
  void round_trip() {
    auto observed = tree.observe();
    ASSERT_TRUE(observed.ok()) << why(observed.error());
    made.emplace(image, std::move(*observed));
    made->terminal = terminal_path;
    made->streams = streams;
    auto result = made->run();
    ASSERT_TRUE(result.ok()) << why(result.error());
  }
  std::string refusal_of(int fd) {
    tree.add({fd});
    auto observed = tree.observe();
    return observed.ok() ? "accepted" : observed.error().message();
  }
  std::string kind_of(int fd) {
    const OpenFile& file = tree.add({fd});
    return std::string(recognise(file, tree).info().name);
  }

  TemporaryDirectory image;
  FakeTree tree{image};
  std::optional<FakeMaking> made;
  std::string terminal_path;
  std::array<int, 3> streams = {-1, -1, -1};
};

}  // namespace stasis::resource
