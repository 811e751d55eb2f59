#include <sched.h>
#include <sys/stat.h>

#include <functional>

#include "image/validate.h"
#include "tests/unit/image/sample.h"

namespace stasis::image {
namespace {

using schema::Manifest;

schema::Mount& add_mount(schema::Namespace& names, uint32_t id, const std::string& path) {
  schema::Mount& mount = *names.add_mounts();
  mount.set_id(id);
  mount.set_path(path);
  return mount;
}

// A mount of the host with one of the program's on it; and a namespace with a root of its own.
Manifest good_manifest() {
  Manifest manifest = sample_manifest();
  for (const char* name : {"pages", "shared", "mount-1"}) {
    auto& file = *manifest.add_files();
    file.set_name(name);
    file.set_size(0x4000);
    file.set_block_size(1 << 20);
    file.add_sums(1);
  }
  auto& system = *manifest.add_file_systems();
  system.set_id(1);
  system.set_type("tmpfs");
  system.set_content("mount-1");
  auto& file = *system.add_files();
  file.set_path("a/file");
  file.set_mode(S_IFREG | 0600);
  file.set_size(10);
  file.add_runs()->set_size(10);
  auto& session = *manifest.mutable_session_mounts();
  add_mount(session, 1, "/").set_existing(true);
  auto& on_it = add_mount(session, 2, "/mnt");
  on_it.set_parent(1);
  on_it.set_point("mnt");
  on_it.set_file_system(1);
  on_it.set_group(5);
  auto& own = *manifest.add_namespaces();
  own.set_id(1);
  own.set_type(CLONE_NEWNS);
  own.set_from_nothing(true);
  auto& root = add_mount(own, 3, "/");
  root.set_of_mount(1);
  root.set_root("containers/one");
  root.set_master(5);
  return manifest;
}

TEST(ValidateMounts, TheSampleIsGood) {
  auto result = validate(good_manifest());
  EXPECT_TRUE(result.ok()) << result.error().message();
}

TEST(ValidateMounts, EveryMistakeIsFound) {
  const struct {
    const char* what;
    std::function<void(Manifest&)> make;
  } mistakes[] = {
      {"not come before", [](Manifest& m) { m.mutable_session_mounts()->mutable_mounts(1)->set_parent(3); }},
      {"there twice", [](Manifest& m) { m.mutable_session_mounts()->mutable_mounts(1)->set_id(1); }},
      {"none below", [](Manifest& m) { m.mutable_session_mounts()->mutable_mounts(1)->set_point("../etc"); }},
      {"none below", [](Manifest& m) { m.mutable_namespaces(0)->mutable_mounts(0)->set_root("/etc"); }},
      {"not clear", [](Manifest& m) { m.mutable_namespaces(0)->mutable_mounts(0)->set_of_mount(0); }},
      {"does not exist", [](Manifest& m) { m.mutable_namespaces(0)->mutable_mounts(0)->set_of_mount(2); }},
      {"does not exist",
       [](Manifest& m) { m.mutable_session_mounts()->mutable_mounts(1)->set_file_system(9); }},
      {"0 roots", [](Manifest& m) { m.mutable_namespaces(0)->mutable_mounts(0)->set_detached(true); }},
      {"1 roots", [](Manifest& m) { m.mutable_namespaces(0)->set_from_nothing(false); }},
      {"another type", [](Manifest& m) { m.mutable_namespaces(0)->set_type(CLONE_NEWUTS); }},
      {"unknown attributes",
       [](Manifest& m) { m.mutable_namespaces(0)->mutable_mounts(0)->set_attributes(1 << 30); }},
      {"slaves of each other",
       [](Manifest& m) {
         m.mutable_namespaces(0)->mutable_mounts(0)->set_group(6);
         m.mutable_session_mounts()->mutable_mounts(1)->set_master(6);
       }},
      {"not in the image", [](Manifest& m) { m.mutable_file_systems(0)->set_content("none"); }},
      {"none below", [](Manifest& m) { m.mutable_file_systems(0)->mutable_files(0)->set_path("a/../../b"); }},
      {"behind its end", [](Manifest& m) { m.mutable_file_systems(0)->mutable_files(0)->set_size(9); }},
      {"not in its content",
       [](Manifest& m) { m.mutable_file_systems(0)->mutable_files(0)->mutable_runs(0)->set_place(0x3fff); }},
      {"type of a file", [](Manifest& m) { m.mutable_file_systems(0)->mutable_files(0)->set_mode(0600); }},
      {"namespace that does not exist", [](Manifest& m) { m.mutable_file_systems(0)->add_namespaces(7); }},
      {"mount that does not exist", [](Manifest& m) { m.mutable_file_systems(0)->add_layers(7); }},
      {"mount that does not exist", [](Manifest& m) { m.mutable_descriptions(0)->set_mount(7); }},
      {"earlier version", [](Manifest& m) { m.mutable_session_mounts()->add_old_mounts("x"); }},
  };
  for (const auto& mistake : mistakes) {
    Manifest manifest = good_manifest();
    mistake.make(manifest);
    auto result = validate(manifest);
    ASSERT_FALSE(result.ok()) << mistake.what;
    EXPECT_NE(result.error().message().find(mistake.what), std::string::npos) << result.error().message();
  }
}

}  // namespace
}  // namespace stasis::image
