#include "image/store.h"

#include <sys/mman.h>

#include "tests/unit/image/sample.h"

namespace stasis::image {
namespace {

// Sets variables of the environment; the destructor puts the old values back.
class Environment {
 public:
  explicit Environment(std::vector<std::pair<std::string, const char*>> values) {
    for (const auto& [name, value] : values) {
      const char* old = getenv(name.c_str());
      old_.emplace_back(name, old != nullptr ? std::optional<std::string>(old) : std::nullopt);
      value != nullptr ? setenv(name.c_str(), value, 1) : unsetenv(name.c_str());
    }
  }
  ~Environment() {
    for (const auto& [name, value] : old_)
      value ? setenv(name.c_str(), value->c_str(), 1) : unsetenv(name.c_str());
  }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  std::vector<std::pair<std::string, std::optional<std::string>>> old_;
};

TEST(Store, DefaultPlaces) {
  {
    Environment set({{"STASIS_HOME", "/s"}, {"XDG_STATE_HOME", "/x"}, {"HOME", "/h"}});
    EXPECT_EQ(state_directory().value(), "/s");
    EXPECT_EQ(default_store().value(), "/s/store");
  }
  {
    Environment set({{"STASIS_HOME", nullptr}, {"XDG_STATE_HOME", "/x"}, {"HOME", "/h"}});
    EXPECT_EQ(state_directory().value(), "/x/stasis");
  }
  {
    Environment set({{"STASIS_HOME", ""}, {"XDG_STATE_HOME", nullptr}, {"HOME", "/h"}});
    EXPECT_EQ(state_directory().value(), "/h/.local/state/stasis");
  }
  Environment set({{"STASIS_HOME", nullptr}, {"XDG_STATE_HOME", nullptr}, {"HOME", nullptr}});
  EXPECT_EQ(state_directory().error().code, ErrorCode::kUsage);
}

TEST(Store, ListsWhatIsThere) {
  TemporaryDirectory store;
  EXPECT_TRUE(list(store.path() + "/sample")->empty());
  EXPECT_TRUE(list_sessions(store.path() + "/none")->empty());
  for (int i = 0; i < 11; ++i) write_sample(store.path() + "/sample");
  write_sample(store.path() + "/other");
  ASSERT_EQ(truncate((store.path() + "/sample/10/manifest").c_str(), 40), 0);
  std::filesystem::create_directory(store.path() + "/sample/incomplete-x");
  auto entries = list(store.path() + "/sample/");
  ASSERT_TRUE(entries.ok());
  ASSERT_EQ(entries->size(), 11u);  // by number, not by letters
  EXPECT_EQ(entries->at(1).id, 2u);
  EXPECT_EQ(entries->at(10).id, 11u);
  EXPECT_EQ(entries->at(0).session, "sample");
  EXPECT_EQ(entries->at(0).tag, "first");
  EXPECT_EQ(entries->at(0).processes, 2u);
  EXPECT_EQ(entries->at(0).logical, 0x6000u);
  EXPECT_TRUE(entries->at(0).problem.empty());
  EXPECT_FALSE(entries->at(9).problem.empty());
  EXPECT_EQ(list_sessions(store.path()).value(), (std::vector<std::string>{"other", "sample"}));
}

TEST(Store, TheNewestThatCanBeOpened) {
  TemporaryDirectory store;
  const std::string session = store.path() + "/sample";
  EXPECT_FALSE(newest(session));
  write_sample(session);
  const std::string second = write_sample(session);
  const std::string third = write_sample(session);
  EXPECT_EQ(newest(session)->directory, third);
  ASSERT_EQ(::truncate((third + "/manifest").c_str(), 10), 0);
  EXPECT_EQ(newest(session + "/")->directory, second);
  EXPECT_EQ(newest(session)->id, 2u);
}

TEST(Store, References) {
  TemporaryDirectory store;
  write_sample(store.path() + "/sample");
  write_sample(store.path() + "/sample");
  const std::string& path = store.path();
  EXPECT_EQ(resolve("sample", path).value(), path + "/sample/2");
  EXPECT_EQ(resolve("sample@1", path).value(), path + "/sample/1");
  EXPECT_EQ(resolve(path + "/sample/1", "/nowhere").value(), path + "/sample/1");
  EXPECT_EQ(resolve("sample@3", path).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(resolve("none", path).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(resolve(path + "/none", path).error().code, ErrorCode::kNotFound);
  for (const char* wrong :
       {"", "sample@", "sample@0", "sample@x", "sample@1@2", "sample@-1", "sample@99999999999", "-x"}) {
    EXPECT_EQ(resolve(wrong, path).error().code, ErrorCode::kUsage) << wrong;
  }
}

TEST(Store, RemovesOneAndNothingElse) {
  TemporaryDirectory store;
  const std::string session = store.path() + "/sample";
  write_sample(session);
  const std::string directory = write_sample(session);
  Fd pages = open_file(directory + "/pages", O_RDONLY).value();
  void* mapped = mmap(nullptr, 0x4000, PROT_READ, MAP_PRIVATE, pages.get(), 0);
  ASSERT_NE(mapped, MAP_FAILED);
  ASSERT_TRUE(remove(directory + "/").ok());
  EXPECT_EQ(names_in(session), std::vector<std::string>{"1"});
  // What is mapped from it stays.
  EXPECT_EQ(std::string(static_cast<char*>(mapped), 0x4000), pattern(0x4000, 7));
  munmap(mapped, 0x4000);
  EXPECT_EQ(remove(directory).error().code, ErrorCode::kNotFound);

  // Not everything is a checkpoint.
  EXPECT_EQ(remove(session).error().code, ErrorCode::kRefused);
  std::filesystem::create_directories(session + "/1/subdirectory");
  EXPECT_EQ(remove(session + "/1").error().code, ErrorCode::kRefused);
  EXPECT_TRUE(std::filesystem::exists(session + "/1/pages"));
}

TEST(Store, RemovesADamagedOneFromWithin) {
  TemporaryDirectory store;
  const std::string directory = write_sample(store.path() + "/sample");
  ASSERT_EQ(truncate((directory + "/manifest").c_str(), 3), 0);
  const std::string here = std::filesystem::current_path();
  std::filesystem::current_path(directory);
  EXPECT_TRUE(remove(".").ok());
  std::filesystem::current_path(here);
  EXPECT_TRUE(names_in(store.path() + "/sample").empty());
}

}  // namespace
}  // namespace stasis::image
