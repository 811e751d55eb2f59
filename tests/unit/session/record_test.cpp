#include "session/record.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "session/names.h"

namespace stasis::session {
namespace {

class RecordTest : public testing::Test {
 protected:
  RecordTest() {
    char pattern[] = "/tmp/stasis-unit-XXXXXX";
    home_ = ::mkdtemp(pattern);
    ::setenv("STASIS_HOME", home_.c_str(), 1);
  }
  ~RecordTest() override {
    if (::system(("rm -rf " + home_).c_str()) != 0) ADD_FAILURE() << "cannot remove " << home_;
  }

  static Record live_record(const std::string& name) {
    Record record;
    record.name = name;
    record.root = NsTid{2};
    EXPECT_TRUE(identify_init(record, HostTid{::getpid()}).ok());
    return record;
  }

  std::string home_;
};

TEST_F(RecordTest, comes_back_as_it_was_saved) {
  Record record = live_record("one");
  record.store = "/a store";
  record.command = {"prog", "", "two words", "\xff not UTF-8"};
  record.terminal_device = 0x8801;
  record.stdio[1] = {true, 13, 4711, "pipe"};
  record.user_namespace = true;
  record.interval_ns = 600'000'000'000;
  record.files = {checkpoint::FileMode::kReflink, 12345};
  record.keep = 3;
  record.started_ns = 1'700'000'000'000'000'001;
  record.display.emplace();
  record.display->set_number(4711);
  record.display->set_server(3);
  record.display->set_width(800);
  record.display->set_height(600);
  record.display->set_vnc(true);
  record.display->set_cookie(std::string("\0\x7f\xff\n", 4));
  ASSERT_TRUE(save_record(record).ok());

  auto loaded = load_record("one");
  ASSERT_TRUE(loaded.ok()) << loaded.error().message();
  EXPECT_EQ(loaded->name, "one");
  EXPECT_EQ(loaded->init, record.init);
  EXPECT_EQ(loaded->init_start, record.init_start);
  EXPECT_EQ(loaded->boot, record.boot);
  EXPECT_EQ(loaded->root, record.root);
  EXPECT_EQ(loaded->store, record.store);
  EXPECT_EQ(loaded->command.size(), 4U);
  EXPECT_EQ(loaded->command[2], "two words");
  EXPECT_EQ(loaded->terminal_device, record.terminal_device);
  EXPECT_TRUE(loaded->stdio[1].outside);
  EXPECT_EQ(loaded->stdio[1].inode, 4711U);
  ASSERT_TRUE(loaded->display);
  EXPECT_EQ(loaded->display->SerializeAsString(), record.display->SerializeAsString());
  EXPECT_FALSE(loaded->stdio[0].outside);
  EXPECT_TRUE(loaded->user_namespace);
  EXPECT_EQ(loaded->interval_ns, record.interval_ns);
  EXPECT_EQ(loaded->files.mode, checkpoint::FileMode::kReflink);
  EXPECT_EQ(loaded->files.limit, 12345u);
  EXPECT_EQ(loaded->keep, 3U);
  EXPECT_EQ(loaded->started_ns, record.started_ns);
}

TEST_F(RecordTest, is_private) {
  ASSERT_TRUE(save_record(live_record("one")).ok());
  struct stat status;
  ASSERT_EQ(::stat((home_ + "/sessions/one/session.json").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600U);
  ASSERT_EQ(::stat((home_ + "/sessions/one").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700U);
}

TEST_F(RecordTest, tells_a_reused_pid) {
  Record record = live_record("one");
  EXPECT_TRUE(is_alive(record));
  Record other_start = record;
  ++other_start.init_start;
  EXPECT_FALSE(is_alive(other_start));
  Record other_boot = record;
  other_boot.boot = "another";
  EXPECT_FALSE(is_alive(other_boot));
  EXPECT_FALSE(is_alive(Record{}));
}

TEST_F(RecordTest, damaged_record_is_an_error) {
  ASSERT_TRUE(save_record(live_record("one")).ok());
  std::string path = home_ + "/sessions/one/session.json";
  for (const char* text : {"", "{", "[]", "{\"name\": 3}", "null", "{\"name\":\"one\",\"init_pid\":\"x\"}"}) {
    auto file = open_file(path, 01 | 01000);  // O_WRONLY | O_TRUNC
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE(write_all(file->get(), text).ok());
    auto loaded = load_record("one");
    ASSERT_FALSE(loaded.ok()) << text;
    EXPECT_EQ(loaded.error().code, ErrorCode::kDamaged) << text;
  }
}

TEST_F(RecordTest, missing_session_is_not_found) {
  EXPECT_EQ(load_record("none").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(load_record("../escape").error().code, ErrorCode::kUsage);
  EXPECT_TRUE(all_records().ok());
}

TEST_F(RecordTest, names) {
  for (const char* good : {"a", "A.b_c-1", "_x", "7", "g++"}) EXPECT_TRUE(check_name(good).ok()) << good;
  for (const char* bad : {"", "-a", ".a", "+a", "..", "a/b", "a b", "a@1", "\xc3\xa4"})
    EXPECT_FALSE(check_name(bad).ok()) << bad;
  EXPECT_FALSE(check_name(std::string(65, 'x')).ok());
  EXPECT_EQ(name_for_program("/usr/bin/python3"), "python3");
  EXPECT_EQ(name_for_program("./my prog"), "my_prog");
  EXPECT_EQ(name_for_program("/"), "session");
  EXPECT_EQ(name_for_program(".hidden"), "hidden");
  EXPECT_EQ(name_for_program("/usr/bin/g++"), "g++");
  EXPECT_TRUE(check_name(name_for_program(std::string(300, 'x'))).ok());
}

TEST_F(RecordTest, a_lock_is_exclusive_and_says_who_has_it) {
  auto lock = SessionLock::take("one", kCheckpointPurpose);
  ASSERT_TRUE(lock.ok());
  EXPECT_EQ(SessionLock::purpose_of_holder("one"), kCheckpointPurpose);
  auto second = SessionLock::take("one", kStartPurpose);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, ErrorCode::kBusy);
  EXPECT_NE(second.error().message().find(std::to_string(::getpid())), std::string::npos);
  EXPECT_TRUE(SessionLock::take("two", kStartPurpose).ok());
  lock->release();
  EXPECT_EQ(SessionLock::purpose_of_holder("one"), std::nullopt);
  EXPECT_TRUE(SessionLock::take("one", kStartPurpose).ok());
}

// Of somebody who was killed a child may live a moment longer, and has the lock as well.
TEST_F(RecordTest, a_lock_of_the_dead_is_waited_for) {
  const pid_t holder = fork();
  if (holder == 0) {
    auto lock = SessionLock::take("one", kCheckpointPurpose);
    if (lock.ok() && fork() == 0) {
      usleep(100'000);
      _exit(0);
    }
    _exit(lock.ok() ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(holder, &status, 0), holder);
  ASSERT_EQ(status, 0);
  ASSERT_NE(SessionLock::purpose_of_holder("one"), std::nullopt);
  EXPECT_TRUE(SessionLock::take("one", kCheckpointPurpose).ok());
}

TEST_F(RecordTest, taken_names_get_numbers) {
  std::string store = home_ + "/store";
  {
    auto first = claim_name("", "/bin/prog", store);
    ASSERT_TRUE(first.ok());
    EXPECT_EQ(first->name, "prog");
    auto second = claim_name("", "/bin/prog", store);  // the first is being started
    ASSERT_TRUE(second.ok());
    EXPECT_EQ(second->name, "prog-2");
  }
  ASSERT_TRUE(save_record(live_record("prog")).ok());
  EXPECT_EQ(claim_name("", "prog", store)->name, "prog-2");
  EXPECT_EQ(claim_name("prog", "prog", store).error().code, ErrorCode::kBusy);
  EXPECT_EQ(claim_name("mine", "prog", store)->name, "mine");
}

}  // namespace
}  // namespace stasis::session
