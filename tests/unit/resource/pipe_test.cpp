// Pipes and FIFOs.
#include <signal.h>
#include <sys/stat.h>

#include "tests/unit/resource/fakes.h"

namespace stasis::resource {
namespace {

struct Pipe {
  explicit Pipe(int flags = O_NONBLOCK) {
    int ends[2];
    EXPECT_EQ(pipe2(ends, flags | O_CLOEXEC), 0);
    reading.reset(ends[0]);
    writing.reset(ends[1]);
  }
  Fd reading, writing;
};

void put(int fd, std::string_view text) {
  ASSERT_EQ(write(fd, text.data(), text.size()), ssize_t(text.size()));
}

class Pipes : public ResourceTest {};

TEST_F(Pipes, ContentCapacityAndFlags) {
  Pipe pipe;
  ASSERT_GT(fcntl(pipe.reading.get(), F_SETPIPE_SZ, 1 << 18), 0);
  ASSERT_EQ(fcntl(pipe.writing.get(), F_SETFL, 0), 0);
  std::string text(200'000, 'x');
  for (size_t at = 0; at < text.size(); ++at) text[at] = static_cast<char>(at * 7);
  put(pipe.writing.get(), text);
  tree.add({pipe.reading.get()});
  tree.add({pipe.writing.get()});
  round_trip();
  EXPECT_EQ(fcntl((*made)[1], F_GETPIPE_SZ), 1 << 18);
  EXPECT_EQ(fcntl((*made)[1], F_GETFL), O_RDONLY | O_NONBLOCK);
  EXPECT_EQ(fcntl((*made)[2], F_GETFL), O_WRONLY);
  EXPECT_EQ(read_now((*made)[1]), text);
  put((*made)[2], "more");
  EXPECT_EQ(read_now((*made)[1]), "more");
  EXPECT_EQ(read_now(pipe.reading.get()), text) << "the original was disturbed";
  EXPECT_TRUE(tree.warnings.empty());
}

TEST_F(Pipes, FurtherDescriptionsAreTheSamePipe) {
  Pipe pipe;
  Fd both = open_file(fmt::format("/proc/self/fd/{}", pipe.reading.get()), O_RDWR | O_NONBLOCK).value();
  Fd second = open_file(fmt::format("/proc/self/fd/{}", pipe.reading.get()), O_RDONLY).value();
  put(pipe.writing.get(), "once");
  for (Fd* fd : {&both, &pipe.reading, &second, &pipe.writing}) tree.add({fd->get()});
  round_trip();
  EXPECT_EQ(fcntl((*made)[1], F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDWR | O_NONBLOCK);
  EXPECT_EQ(fcntl((*made)[3], F_GETFL) & O_NONBLOCK, 0);
  EXPECT_EQ(read_now((*made)[3]), "once");
  put((*made)[1], "again");
  EXPECT_EQ(read_now((*made)[2]), "again");
}

TEST_F(Pipes, WriterClosed) {
  Pipe pipe;
  put(pipe.writing.get(), "last words");
  pipe.writing.reset();
  tree.add({pipe.reading.get()});
  round_trip();
  EXPECT_EQ(read_now((*made)[1]), "last words");
  EXPECT_EQ(read_now((*made)[1]), "");
  EXPECT_TRUE(tree.warnings.empty());
}

TEST_F(Pipes, ReaderClosed) {
  Pipe pipe;
  pipe.reading.reset();
  tree.add({pipe.writing.get()});
  round_trip();
  signal(SIGPIPE, SIG_IGN);
  EXPECT_EQ(write((*made)[1], "x", 1), -1);
  EXPECT_EQ(errno, EPIPE);
  EXPECT_TRUE(tree.warnings.empty());
}

TEST_F(Pipes, OtherEndOutsideTheSessionIsWarnedOf) {
  Pipe pipe;
  tree.add({pipe.reading.get()});
  round_trip();
  EXPECT_EQ(tree.warnings.size(), 1u);
  EXPECT_EQ(read_now((*made)[1]), "");
}

TEST_F(Pipes, PacketsStayPackets) {
  Pipe pipe(O_DIRECT | O_NONBLOCK);
  put(pipe.writing.get(), "first");
  put(pipe.writing.get(), std::string(4096, 'm'));
  put(pipe.writing.get(), "last");
  tree.add({pipe.reading.get()});
  tree.add({pipe.writing.get()});
  round_trip();
  EXPECT_EQ(read_now((*made)[1]), "first");
  EXPECT_EQ(read_now((*made)[1]), std::string(4096, 'm'));
  EXPECT_EQ(read_now((*made)[1], 2), "la");
  EXPECT_EQ(read_now((*made)[1]), "(nothing)") << "the rest of a packet is discarded";
  EXPECT_NE(fcntl((*made)[2], F_GETFL) & O_DIRECT, 0);
}

TEST_F(Pipes, FullPipeOfSmallWrites) {
  Pipe pipe;
  while (write(pipe.writing.get(), "abc", 3) == 3) continue;
  tree.add({pipe.reading.get()});
  tree.add({pipe.writing.get()});
  round_trip();
  EXPECT_EQ(read_now((*made)[1]), read_now(pipe.reading.get()));
}

TEST_F(Pipes, LaunchsOwnOutputIsReplaced) {
  Pipe before, after;
  tree.add({before.writing.get()});
  tree.stdio[before.writing.get()] = 1;
  streams[1] = after.writing.get();
  round_trip();
  put((*made)[1], "hello");
  EXPECT_EQ(read_now(after.reading.get()), "hello");
  EXPECT_TRUE(tree.warnings.empty());
}

TEST_F(Pipes, Fifo) {
  TemporaryDirectory directory;
  std::string path = directory / "fifo";
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  Fd reading = open_file(path, O_RDONLY | O_NONBLOCK).value();
  Fd writing = open_file(path, O_WRONLY).value();
  put(writing.get(), "in the fifo");
  tree.add({reading.get()});
  tree.add({writing.get()});
  auto records = tree.observe();
  ASSERT_OK(records);
  EXPECT_EQ(read_now(reading.get()), "in the fifo") << "the original was disturbed";
  reading.reset();
  writing.reset();
  tree.end_program();
  FakeMaking later(image, std::move(*records));
  ASSERT_OK(later.run());
  EXPECT_EQ(read_now(later[1]), "in the fifo");
  EXPECT_EQ(std::filesystem::read_symlink(fmt::format("/proc/self/fd/{}", later[1])), path);
  later.close(2);
  EXPECT_EQ(read_now(later[1]), "");
}

TEST_F(Pipes, RemovedFifo) {
  TemporaryDirectory directory;
  std::string path = directory / "fifo";
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  Fd reading = open_file(path, O_RDONLY | O_NONBLOCK).value();
  Fd writing = open_file(path, O_WRONLY).value();
  put(writing.get(), "nameless");
  unlink(path.c_str());
  tree.add({reading.get()});
  tree.add({writing.get()});
  round_trip();
  EXPECT_EQ(read_now((*made)[1]), "nameless");
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
}

}  // namespace
}  // namespace stasis::resource
