// The small parts of a session that need no processes.
#include <gtest/gtest.h>
#include <signal.h>

#include "session/attach.h"
#include "session/channel.h"
#include "session/launch.h"
#include "session/processes.h"
#include "session/signals.h"
#include "session/terminal.h"

namespace stasis::session {
namespace {

TEST(Display, sizes_of_screens) {
  auto size = parse_display("800x600");
  ASSERT_TRUE(size.ok());
  EXPECT_EQ(size->width, 800U);
  EXPECT_EQ(size->height, 600U);
  EXPECT_TRUE(parse_display("16x16384").ok());
  EXPECT_FALSE(size->vnc);
  auto vnc = parse_display("vnc:800x600");
  ASSERT_TRUE(vnc.ok());
  EXPECT_TRUE(vnc->vnc);
  EXPECT_EQ(vnc->height, 600U);
  ASSERT_TRUE(parse_display("vnc").ok());
  EXPECT_EQ(parse_display("vnc")->width, 1280U);
  for (const char* wrong : {"", "vnc:", "vnc800x600", "vncx", "x", "800", "800x", "x600", "800x600x24",
                            "800 x600", "-800x600", "15x600", "16385x600", "99999999999x600"}) {
    EXPECT_FALSE(parse_display(wrong).ok()) << wrong;
  }
}

TEST(Channel, carries_words_and_errors) {
  auto ends = Channel::make();
  ASSERT_TRUE(ends.ok());
  ASSERT_TRUE(ends->first.send('B', "123").ok());
  auto word = ends->second.expect('B');
  ASSERT_TRUE(word.ok());
  EXPECT_EQ(*word, "123");

  Error error{"step", "object", "cause", "hint", ErrorCode::kDamaged};
  ends->first.send_error(error);
  auto failure = ends->second.expect('B');
  ASSERT_FALSE(failure.ok());
  EXPECT_EQ(failure.error().message(), error.message());
  EXPECT_EQ(failure.error().code, ErrorCode::kDamaged);

  ASSERT_TRUE(ends->first.send('X').ok());
  EXPECT_FALSE(ends->second.expect('B').ok());
  ends->first.close();
  EXPECT_EQ(ends->second.expect('B').error().code, ErrorCode::kTaskGone);
  EXPECT_FALSE(ends->second.send('B').ok());  // and no SIGPIPE
}

TEST(Channel, shortens_what_is_too_long) {
  auto ends = Channel::make();
  ASSERT_TRUE(ends.ok());
  ends->first.send_error(Error{std::string(100'000, 'x'), std::string(100'000, 'y'), "cause", {}});
  auto failure = ends->second.expect('B');
  ASSERT_FALSE(failure.ok());
  EXPECT_EQ(failure.error().cause, "cause");
}

TEST(Signals, are_read_in_all_spellings) {
  for (const char* text : {"TERM", "SIGTERM", "term", "SigTerm", "15"}) {
    auto number = parse_signal(text);
    ASSERT_TRUE(number.ok()) << text;
    EXPECT_EQ(*number, SIGTERM) << text;
  }
  EXPECT_EQ(*parse_signal("RTMIN+2"), SIGRTMIN + 2);
  EXPECT_EQ(*parse_signal("SIGRTMAX-1"), SIGRTMAX - 1);
  EXPECT_EQ(*parse_signal("0"), 0);
  for (const char* text : {"", "SIG", "NONE", "99", "-1", "1x", "RTMIN+99", "TERM "})
    EXPECT_FALSE(parse_signal(text).ok()) << text;
}

TEST(Signals, our_own_are_not_forwarded) {
  for (int number : {SIGKILL, SIGSTOP, SIGCHLD, SIGSEGV, SIGWINCH})
    EXPECT_FALSE(is_forwarded(number)) << number;
  for (int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGCONT, SIGTSTP})
    EXPECT_TRUE(is_forwarded(number)) << number;
}

TEST(Attach, detach_keys) {
  EXPECT_EQ(*parse_detach_key("ctrl-]"), '\x1d');
  EXPECT_EQ(*parse_detach_key("ctrl-a"), '\x01');
  EXPECT_EQ(*parse_detach_key("^A"), '\x01');
  EXPECT_EQ(*parse_detach_key("~"), '~');
  for (const char* text : {"", "ctrl-", "ctrl-ab", "ctrl-1", "^^^"})
    EXPECT_FALSE(parse_detach_key(text).ok()) << text;
}

TEST(Launch, exec_failures_have_the_codes_of_env) {
  EXPECT_EQ(exec_failure_code(errno_error("run prog", {}, ENOENT)), 127);
  EXPECT_EQ(exec_failure_code(errno_error("run prog", {}, EACCES)), 126);
  EXPECT_EQ(exec_failure_code(errno_error("open", "prog", ENOENT)), std::nullopt);
}

TEST(Terminal, pair_talks_and_has_a_size) {
  auto pair = make_terminal();
  ASSERT_TRUE(pair.ok()) << pair.error().message();
  EXPECT_NE(pair->device, 0U);
  ASSERT_TRUE(write_all(pair->slave.get(), "hi").ok());
  UserTerminal nobody{.input = -1, .output = -1, .control = -1};
  Relay relay(pair->master.get(), nobody);
  relay.drain();  // without a user there is nothing to carry, and nothing blocks
}

}  // namespace
}  // namespace stasis::session
