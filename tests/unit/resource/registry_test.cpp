// The one list of kinds.
#include "resource/registry.h"

#include "tests/unit/resource/fakes.h"

namespace stasis::resource {
namespace {

class Registry : public ResourceTest {};

TEST_F(Registry, NamesAreUniqueAndNotesExplain) {
  std::set<std::string_view> names;
  for (const KindInfo& kind : all_kinds()) {
    EXPECT_TRUE(names.insert(kind.name).second) << kind.name;
    EXPECT_FALSE(kind.group.empty()) << kind.name;
    EXPECT_FALSE(kind.title.empty()) << kind.name;
    EXPECT_TRUE(kind.support == Support::kFull || !kind.note.empty()) << kind.name;
  }
  for (const DescriptorKind* kind : descriptor_kinds())
    EXPECT_EQ(find_descriptor_kind(kind->info().name), kind);
}

TEST_F(Registry, RefusalsSayWhyAndWhatToDo) {
  Fd pidfd(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
  Fd space = open_file("/proc/self/ns/net", O_RDONLY).value();
  for (const Fd* fd : {&pidfd, &space}) {
    const OpenFile& file = tree.add({fd->get()});
    auto result = recognise(file, tree).observe(file, tree);
    ASSERT_FALSE(result.ok()) << file.link;
    EXPECT_EQ(result.error().code, ErrorCode::kRefused);
    EXPECT_FALSE(result.error().cause.empty());
    EXPECT_FALSE(result.error().hint.empty()) << file.link;
    EXPECT_NE(result.error().object.find(fmt::format("descriptor {} of task {}", file.number, file.pid)),
              std::string::npos);
  }
}

TEST_F(Registry, DamagedPayloadsAreErrors) {
  for (const DescriptorKind* kind : descriptor_kinds()) {
    Record record{1, std::string(kind->info().name), "\xff\xff\xff\xff garbage", O_RDWR, 0, "x"};
    if (record.kind == "session-terminal") continue;  // has no payload
    FakeMaking making(image, {record});
    EXPECT_FALSE(kind->make(record, making).ok()) << record.kind;
    kind->summary(record);
  }
}

}  // namespace
}  // namespace stasis::resource
