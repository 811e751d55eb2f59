#include "image/tar.h"

#include "image/block_stream.h"
#include "tests/unit/image/archive.h"
#include "tests/unit/image/sample.h"

namespace stasis::image {
namespace {

constexpr const char* kComment = "stasis test 1";

struct Whole {
  Member member;
  std::string data;  // of its segments
};

std::vector<Whole> samples() {
  std::vector<Whole> all;
  all.push_back({{.name = "top/", .mode = 0700, .modified_ns = 5'000'000'000}, ""});
  all.push_back({{.name = "top/small", .size = 5, .segments = {{0, 5}}}, "hello"});
  all.push_back({{.name = "top/empty"}, ""});
  all.push_back({{.name = "top/block", .mode = 0700, .size = 512, .segments = {{0, 512}}}, pattern(512, 1)});
  all.push_back({{.name = "top/hole", .size = uint64_t{1} << 40}, ""});
  all.push_back({{.name = "top/holes",
                  .modified_ns = 1'700'000'000'123'456'789,
                  .size = 50'000'000'000,
                  .segments = {{4096, 8192}, {40'000'000'000, 4096}}},
                 pattern(12288, 2)});
  all.push_back({{.name = "top/ends-in-data", .size = 8192, .segments = {{4096, 4096}}}, pattern(4096, 3)});
  all.push_back({{.name = "top/" + std::string(250, 'l'), .size = 1, .segments = {{0, 1}}}, "x"});
  all.push_back({{.name = "top/\xff\n odd", .size = 1, .segments = {{0, 1}}}, "y"});
  Whole many = {{.name = "top/many", .size = 1500 * 8192}, pattern(1500 * 4096, 4)};
  for (uint64_t i = 0; i < 1500; ++i) many.member.segments.push_back({i * 8192 + 4096, 4096});
  all.push_back(many);
  return all;
}

std::string write(const std::vector<Whole>& all) {
  StringSink sink;
  TarWriter writer(sink);
  EXPECT_TRUE(writer.begin(kComment).ok());
  for (const auto& [member, data] : all) {
    EXPECT_TRUE(writer.add(member).ok());
    EXPECT_TRUE(writer.data(data).ok());
  }
  EXPECT_TRUE(writer.end().ok());
  return sink.text;
}

// The error; empty: it was read, and every byte of it.
std::string read(const std::string& text, size_t at_once = SIZE_MAX, std::vector<Whole>* all = nullptr) {
  StringSource source(text, at_once);
  TarReader reader(source, "a file");
  auto fail = [](const Error& error) {
    EXPECT_EQ(error.code, ErrorCode::kDamaged) << error.message();
    return error.message();
  };
  if (auto begun = reader.begin(kComment); !begun.ok()) return fail(begun.error());
  for (;;) {
    auto member = reader.next();
    if (!member.ok()) return fail(member.error());
    if (!*member) return {};
    EXPECT_EQ(reader.left(), (*member)->stored());
    std::string data;
    while (reader.left() > 0) {
      std::string part(std::min<uint64_t>(reader.left(), 1 << 20), '\0');
      if (auto got = reader.data(part); !got.ok()) return fail(got.error());
      data += part;
    }
    if (all != nullptr) all->push_back({std::move(**member), std::move(data)});
  }
}

TEST(Tar, WhatIsWrittenIsRead) {
  const auto all = samples();
  const std::string text = write(all);
  EXPECT_EQ(text.size() % 512, 0u);
  for (size_t at_once : {size_t{1}, size_t{511}, size_t{513}, SIZE_MAX}) {
    std::vector<Whole> back;
    ASSERT_EQ(read(text, at_once, &back), "");
    ASSERT_EQ(back.size(), all.size());
    for (size_t i = 0; i < all.size(); ++i) {
      EXPECT_EQ(back[i].member.name, all[i].member.name);
      EXPECT_EQ(back[i].member.mode, all[i].member.mode);
      EXPECT_EQ(back[i].member.modified_ns, all[i].member.modified_ns);
      EXPECT_EQ(back[i].member.size, all[i].member.size);
      EXPECT_EQ(back[i].member.segments, all[i].member.segments) << all[i].member.name;
      EXPECT_EQ(back[i].data, all[i].data);
    }
  }
}

// Other tars read it, holes and all: what they unpack is the same.
TEST(Tar, TarUnpacksIt) {
  TemporaryDirectory directory;
  auto all = samples();
  std::erase_if(all, [](const Whole& one) { return one.member.size > (1 << 30); });
  all.push_back({{.name = "top/sparse", .size = 1 << 30, .segments = {{1 << 29, 4096}}}, pattern(4096, 9)});
  const std::string path = directory.path() + "/archive.tar";
  ASSERT_TRUE(write_all(open_file(path, O_WRONLY | O_CREAT)->get(), write(all)).ok());
  const std::string command = "cd " + directory.path() + " && tar xf archive.tar 2>&1 && rm archive.tar";
  FILE* tar = popen(command.c_str(), "r");
  char said[1000] = {};
  const size_t got = fread(said, 1, sizeof said - 1, tar);
  ASSERT_EQ(pclose(tar), 0) << said;
  EXPECT_EQ(got, 0u) << said;
  for (const auto& [member, data] : all) {
    struct stat status;
    const std::string name = directory.path() + "/" + member.name;
    ASSERT_EQ(stat(name.c_str(), &status), 0) << name;
    EXPECT_EQ(status.st_mode & 0777, member.mode);
    if (member.is_directory()) continue;
    EXPECT_EQ(static_cast<uint64_t>(status.st_size), member.size);
    EXPECT_EQ(status.st_mtim.tv_nsec, member.modified_ns % 1'000'000'000);
    Fd file = open_file(name, O_RDONLY).value();
    size_t done = 0;
    for (const Segment& segment : member.segments) {
      std::string bytes(segment.size, '\0');
      ASSERT_TRUE(pread_all(file.get(), bytes, static_cast<off_t>(segment.offset)).ok());
      ASSERT_EQ(bytes, data.substr(done, segment.size)) << name;
      done += segment.size;
    }
    if (member.name == "top/sparse") {
      EXPECT_LT(status.st_blocks, 1000);
    }
  }
}

TEST(Tar, CutAnywhereItIsDamaged) {
  auto all = samples();
  all.pop_back();
  const std::string text = write(all);
  for (size_t size = 0; size < text.size(); size += 7) ASSERT_NE(read(text.substr(0, size)), "") << size;
}

TEST(Tar, MoreThanItIsRefused) {
  const std::string text = write({samples()[1]});
  EXPECT_EQ(read(text), "");
  EXPECT_NE(read(text + "x"), "");
  EXPECT_NE(read(text + std::string(512, '\0')), "");
  EXPECT_NE(read(text + text), "");
  // Between the end of a file and the next header.
  std::string stuffed = text;
  stuffed[stuffed.size() - 1025] = 'x';
  EXPECT_NE(read(stuffed), "");
}

// A bit of a header or of what says where data is never goes unnoticed, or changes nothing but a time or a
// mode.
TEST(Tar, EveryBitOfAHeaderCounts) {
  auto all = samples();
  all.pop_back();
  const std::string text = write(all);
  size_t unnoticed = 0;
  for (size_t bit = 0; bit < text.size() * 8; bit += 13) {
    std::string flipped = text;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    std::vector<Whole> back;
    if (!read(flipped, SIZE_MAX, &back).empty()) continue;
    ++unnoticed;
    ASSERT_EQ(back.size(), all.size());
  }
  // Contents, records and maps have no sums of their own here.
  EXPECT_LT(unnoticed, text.size() * 8 / 13);
}

TEST(Tar, LiesAreRefused) {
  const Whole sparse = samples()[6];
  const std::string text = write({sparse});
  ASSERT_EQ(read(text), "");
  struct Lie {
    const char* truth;
    const char* lie;
  };
  for (auto [truth, lie] :
       {Lie{"1\n4096\n4096\n", "1\n4096\n8192\n"},  // outside of the file
        Lie{"1\n4096\n4096\n", "1\n4097\n4096\n"},  // the same by a byte
        Lie{"1\n4096\n4096\n", "1\n4096\n4095\n"},  // not all of the data
        Lie{"1\n4096\n4096\n", "2\n4096\n4096\n"},  // more than there are
        Lie{"1\n4096\n4096\n", "0\n4096\n4096\n"},  // fewer
        Lie{"1\n4096\n4096\n", "9\n4096\n4096\n"}, Lie{"1\n4096\n4096\n", "x\n4096\n4096\n"},
        Lie{"1\n4096\n4096\n", "1\n-096\n4096\n"}, Lie{"sparse.realsize=8192", "sparse.realsize=4192"},
        Lie{"sparse.realsize=8192", "sparse.realsize=x192"},
        Lie{"sparse.realsize=8192", "sparse.other---=8192"}, Lie{"sparse.major=1", "sparse.major=2"},
        Lie{"sparse.minor=0", "sparse.minor=1"}, Lie{"GNU.sparse.name", "GNU.sparse.nome"},
        Lie{"22 GNU.sparse.major", "99 GNU.sparse.major"}, Lie{"22 GNU.sparse.major", "02 GNU.sparse.major"},
        Lie{"22 GNU.sparse.major", "-2 GNU.sparse.major"}}) {
    std::string changed = text;
    const size_t at = changed.find(truth);
    ASSERT_NE(at, std::string::npos) << truth;
    changed.replace(at, std::strlen(lie), lie);
    EXPECT_NE(read(changed), "") << lie;
  }
}

// As tar would make them: links, devices, names in two parts.
TEST(Tar, OnlyFilesAndDirectoriesAreRead) {
  const std::string text = write({samples()[1]});
  const size_t header = text.find("top/small");
  auto with = [&](size_t field, const std::string& value) {
    std::string changed = text;
    changed.replace(header + field, value.size(), value);
    std::memset(&changed[header + 148], ' ', 8);
    unsigned sum = 0;
    for (size_t i = 0; i < 512; ++i) sum += static_cast<unsigned char>(changed[header + i]);
    changed.replace(header + 148, 7, fmt::format("{:06o}", sum) + '\0');
    return read(changed);
  };
  EXPECT_EQ(with(0, "top/smell"), "");
  for (const char* type : {"1", "2", "3", "4", "5", "6", "7", "L", "S", "x", "g"})
    EXPECT_NE(with(156, type), "") << type;
  EXPECT_NE(with(157, "/etc/passwd"), "");
  EXPECT_NE(with(345, "/etc"), "");
  EXPECT_NE(with(100, "0010000"), "");  // mode
  EXPECT_NE(with(124, "77777777777"), "");
  EXPECT_NE(with(124, "8"), "");
  EXPECT_NE(with(257, "xstar"), "");
}

TEST(Tar, TheSumIsOfAllBefore) {
  StringSink sink;
  TarWriter writer(sink);
  ASSERT_TRUE(writer.begin(kComment).ok() && writer.add(samples()[1].member).ok() &&
              writer.data(std::string_view("hello")).ok());
  const std::string sum = writer.sum().value();
  ASSERT_TRUE(writer.add({.name = "sum", .size = sum.size(), .segments = {{0, sum.size()}}}).ok());
  ASSERT_TRUE(writer.data(sum).ok() && writer.end().ok());
  StringSource source(sink.text);
  TarReader reader(source, "a file");
  ASSERT_TRUE(reader.begin(kComment).ok());
  std::string data(5, '\0');
  ASSERT_TRUE(reader.next().ok() && reader.data(data).ok() && reader.next().ok());
  EXPECT_EQ(reader.sum_before(), sum);
}

TEST(BlockStream, SumsAreThoseOfTheWriter) {
  TemporaryDirectory directory;
  const std::string path = directory.path() + "/file";
  constexpr uint64_t kSize = (5 << 20) + 100;
  Fd file = open_file(path, O_RDWR | O_CREAT).value();
  ASSERT_EQ(ftruncate(file.get(), kSize), 0);
  const std::string first = pattern(3000, 1), second = pattern(2 << 20, 2);
  ASSERT_TRUE(pwrite_all(file.get(), first, 5000).ok() &&
              pwrite_all(file.get(), second, (2 << 20) + 4096).ok());
  std::string content(kSize, '\0');
  ASSERT_TRUE(pread_all(file.get(), content, 0).ok());
  std::vector<uint64_t> sums;
  BlockStream stream(kSize, kBlockSize, [&](uint64_t index, uint64_t sum) -> Result<void> {
    EXPECT_EQ(index, sums.size());
    sums.push_back(sum);
    return {};
  });
  ASSERT_TRUE(stream.data(5000, first).ok());
  EXPECT_FALSE(stream.data(5000, first).ok());
  ASSERT_TRUE(stream.data((2 << 20) + 4096, second).ok());
  EXPECT_FALSE(stream.data(kSize - 1, "ab").ok());
  ASSERT_TRUE(stream.end().ok());
  ASSERT_EQ(sums.size(), 6u);
  for (size_t i = 0; i < sums.size(); ++i)
    EXPECT_EQ(sums[i], block_sum(std::as_bytes(std::span(content).subspan(i << 20).first(
                           std::min<size_t>(1 << 20, kSize - (i << 20))))));
}

}  // namespace
}  // namespace stasis::image
