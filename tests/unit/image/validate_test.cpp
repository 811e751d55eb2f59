#include "image/validate.h"

#include <linux/fib_rules.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <sched.h>

#include <functional>

#include "tests/unit/image/sample.h"

namespace stasis::image {
namespace {

using schema::Manifest;

// The session's, and another one, with the ends of a veth.
void add_networks(Manifest& manifest) {
  auto fill = [](schema::Network& network, uint32_t other) {
    auto& link = *network.add_links();
    link.set_index(2);
    link.set_name("eth0");
    link.set_kind("veth");
    link.set_other(2);
    link.set_other_network(other);
    auto& number = *network.add_numbers();
    number.set_network(other);
    network.add_addresses()->set_head(std::string(sizeof(ifaddrmsg), '\0'));
    network.add_routes()->set_head(std::string(sizeof(rtmsg), '\0'));
    network.add_rules()->set_head(std::string(sizeof(fib_rule_hdr), '\0'));
    network.add_neighbours()->set_head(std::string(sizeof(ndmsg), '\0'));
    network.add_bridged()->set_head(std::string(sizeof(ndmsg), '\0'));
    auto& setting = *network.add_settings();
    setting.set_name("ipv4/ip_forward");
    setting.set_value("1");
  };
  fill(*manifest.mutable_session_network(), 1);
  auto& other = *manifest.add_namespaces();
  other.set_id(1);
  other.set_type(CLONE_NEWNET);
  fill(*other.mutable_network(), 0);
  auto& tap = *other.mutable_network()->add_links();
  tap.set_index(3);
  tap.set_name("tap0");
  tap.set_kind("tun");
  tap.mutable_tun()->set_flags(2);
}

Manifest good_manifest() {
  Manifest manifest = sample_manifest();
  for (auto [name, size] : {std::pair("pages", 0x4000), std::pair("shared", 0x2000)}) {
    auto& file = *manifest.add_files();
    file.set_name(name);
    file.set_size(static_cast<uint64_t>(size));
    file.set_block_size(kBlockSize);
    file.add_sums(1);
    file.set_stored(static_cast<uint64_t>(size));
  }
  auto& segment = *manifest.mutable_system_v()->add_segments();
  segment.mutable_object()->set_id(32768);
  segment.mutable_object()->set_key(5);
  segment.set_size(0x1800);
  segment.set_page_file("shared");
  segment.add_runs()->set_size(0x2000);
  auto& set = *manifest.mutable_system_v()->add_semaphore_sets();
  set.mutable_object()->set_id(3);
  set.add_values(1);
  set.add_last_pids(0);
  auto& queue = *manifest.mutable_system_v()->add_queues();
  queue.set_max_bytes(16384);
  queue.add_messages()->set_type(1);
  auto& display = *manifest.mutable_display();
  display.set_number(4711);
  display.set_server(42);
  display.set_picture("pages");
  auto& attached = *manifest.mutable_memories(0)->add_mappings();
  attached.set_start(0x30000);
  attached.set_end(0x32000);
  attached.set_kind(schema::Mapping::SYSTEM_V);
  attached.set_segment(32768);
  auto& adjustment = *manifest.mutable_processes(0)->add_adjustments();
  adjustment.set_set(3);
  adjustment.set_value(-4);
  add_networks(manifest);
  return manifest;
}

TEST(Validate, TheSampleIsGood) {
  auto result = validate(good_manifest());
  EXPECT_TRUE(result.ok()) << result.error().message();
}

TEST(Validate, AZombieNeedsNoThreadsOrMemory) {
  Manifest manifest = good_manifest();
  auto& zombie = *manifest.add_processes();
  zombie.set_pid(60);
  zombie.set_parent(42);
  zombie.set_state(schema::Process::ZOMBIE);
  zombie.set_memory(77);
  EXPECT_TRUE(validate(manifest).ok());
}

TEST(Validate, RunsMayCrossMappingsThatTouch) {
  Manifest manifest = good_manifest();
  auto& memory = *manifest.mutable_memories(0);
  memory.mutable_mappings(0)->set_end(0x12000);
  auto second = memory.mappings(0);
  second.set_start(0x12000);
  second.set_end(0x14000);
  *memory.add_mappings() = second;
  memory.mutable_mappings()->SwapElements(3, 2);
  memory.mutable_mappings()->SwapElements(2, 1);
  auto result = validate(manifest);
  EXPECT_TRUE(result.ok()) << result.error().message();
}

TEST(Validate, CapturedFilesMayHaveNoContentAndNoSums) {
  Manifest manifest = good_manifest();
  auto add = [&manifest](schema::CapturedFile::Method method) {
    auto& file = *manifest.add_captured_files();
    file.set_path(fmt::format("/data/{}", manifest.captured_files_size()));
    file.set_mode(0100600);
    file.set_size(0x2000);
    file.set_method(method);
    file.set_appended(true);
    return &file;
  };
  add(schema::CapturedFile::LENGTH);
  add(schema::CapturedFile::IDENTITY);
  add(schema::CapturedFile::CONTENT)->set_content("shared");
  manifest.mutable_files(1)->set_unsummed(true);
  manifest.mutable_files(1)->clear_sums();
  auto result = validate(manifest);
  EXPECT_TRUE(result.ok()) << result.error().message();
}

constexpr uint32_t kInner = 50;

// With its first process in a pid namespace below the session's.
Manifest& inner(Manifest& manifest) {
  auto& space = *manifest.add_namespaces();
  space.set_id(kInner);
  space.set_type(CLONE_NEWPID);
  auto& process = *manifest.mutable_processes(0);
  process.add_namespaces(kInner);
  process.add_inner_numbers(1);
  process.add_inner_groups(0);
  process.add_inner_sessions(0);
  for (auto& thread : *process.mutable_threads())
    thread.add_inner_numbers(thread.tid() == process.pid() ? 1 : 2);
  return manifest;
}

schema::Namespace& inner_space(Manifest& manifest) {
  auto& spaces = *inner(manifest).mutable_namespaces();
  return spaces[spaces.size() - 1];
}

// One wrong thing each, and words that the message must have.
struct Mistake {
  const char* words;
  std::function<void(Manifest&)> make;
};

schema::Process& process(Manifest& m, int i = 0) { return *m.mutable_processes(i); }
schema::Mapping& mapping(Manifest& m, int i = 0) { return *m.mutable_memories(0)->mutable_mappings(i); }
schema::PageRun& run(Manifest& m) { return *m.mutable_memories(0)->mutable_runs(0); }
schema::IpcSegment& segment(Manifest& m) { return *m.mutable_system_v()->mutable_segments(0); }
schema::SemaphoreSet& semaphores(Manifest& m) { return *m.mutable_system_v()->mutable_semaphore_sets(0); }
schema::MessageQueue& queue(Manifest& m) { return *m.mutable_system_v()->mutable_queues(0); }
schema::SemaphoreAdjustment& adjustment(Manifest& m) { return *process(m).mutable_adjustments(0); }
schema::ImageFile& file(Manifest& m) { return *m.mutable_files(0); }
schema::Network& network(Manifest& m) { return *m.mutable_session_network(); }
schema::Link& first_link(Manifest& m) { return *network(m).mutable_links(0); }
// A file of the program whose content is the image's "shared".
schema::CapturedFile& captured(Manifest& m) {
  auto& added = *m.add_captured_files();
  added.set_path("/data/file");
  added.set_mode(0100640);
  added.set_size(0x2000);
  added.set_content("shared");
  return added;
}

const Mistake kMistakes[] = {
    {"no process", [](Manifest& m) { m.clear_processes(); }},
    {"session's name", [](Manifest& m) { m.set_session("../up"); }},
    {"root process", [](Manifest& m) { m.set_root_pid(1 << 22); }},
    {"interface 0: its number is impossible", [](Manifest& m) { first_link(m).set_index(0); }},
    {"its number is impossible", [](Manifest& m) { first_link(m).set_index(1U << 31); }},
    {"its name is none", [](Manifest& m) { first_link(m).set_name("../all"); }},
    {"its name is none", [](Manifest& m) { first_link(m).set_name(".."); }},
    {"its name is none", [](Manifest& m) { first_link(m).set_name("sixteen-is-too-l"); }},
    {"its name is none", [](Manifest& m) { first_link(m).clear_name(); }},
    {"another name of it", [](Manifest& m) { first_link(m).add_other_names("a/b"); }},
    {"its kind is none", [](Manifest& m) { first_link(m).set_kind(std::string("v\0th", 4)); }},
    {"leads to network 7", [](Manifest& m) { first_link(m).set_other_network(7); }},
    {"is and is not a tun", [](Manifest& m) { first_link(m).set_kind("tun"); }},
    {"is and is not a tun", [](Manifest& m) { first_link(m).mutable_tun(); }},
    {"is a port of 9", [](Manifest& m) { first_link(m).set_master(9); }},
    {"gets addresses", [](Manifest& m) { first_link(m).set_address_mode(256); }},
    {"interface 2 is there twice", [](Manifest& m) { *network(m).add_links() = first_link(m); }},
    {"attribute 70000", [](Manifest& m) { first_link(m).add_settings()->set_type(70000); }},
    {"attribute 4",
     [](Manifest& m) {
       auto& attribute = *first_link(m).add_data();
       attribute.set_type(4);
       attribute.set_value(std::string(70000, 'x'));
     }},
    {"too many attributes",
     [](Manifest& m) {
       for (int i = 0; i < 300; ++i) first_link(m).add_port();
     }},
    {"too many features",
     [](Manifest& m) {
       for (int i = 0; i < 300; ++i) first_link(m).add_features("x");
     }},
    {"addresses: one begins", [](Manifest& m) { network(m).mutable_addresses(0)->set_head("short"); }},
    {"routes: one begins", [](Manifest& m) { network(m).mutable_routes(0)->clear_head(); }},
    {"rules: one begins", [](Manifest& m) { network(m).mutable_rules(0)->set_head("x"); }},
    {"neighbours: one begins", [](Manifest& m) { network(m).mutable_neighbours(0)->set_head("x"); }},
    {"stations of bridges: one begins", [](Manifest& m) { network(m).mutable_bridged(0)->set_head("x"); }},
    {"a setting is none", [](Manifest& m) { network(m).mutable_settings(0)->set_name("../kernel/core_pattern"); }},
    {"a setting is none", [](Manifest& m) { network(m).mutable_settings(0)->set_name("ipv4/../../kernel/x"); }},
    {"a setting is none", [](Manifest& m) { network(m).mutable_settings(0)->set_name("/etc/passwd"); }},
    {"a setting is none", [](Manifest& m) { network(m).mutable_settings(0)->set_value(std::string(5000, '1')); }},
    {"number for another network", [](Manifest& m) { network(m).mutable_numbers(0)->set_network(9); }},
    {"number for another network", [](Manifest& m) { network(m).mutable_numbers(0)->set_number(-1); }},
    {"namespace 1: it is there twice", [](Manifest& m) { *m.add_namespaces() = m.namespaces(0); }},
    {"it has a network and is none", [](Manifest& m) { m.mutable_namespaces(0)->set_type(CLONE_NEWUTS); }},
    {"display: its number", [](Manifest& m) { m.mutable_display()->set_number(59'536); }},
    {"display: its server 1", [](Manifest& m) { m.mutable_display()->set_server(1); }},
    {"display: its server 4194304", [](Manifest& m) { m.mutable_display()->set_server(1 << 22); }},
    {"display: its size", [](Manifest& m) { m.mutable_display()->set_height(32'768); }},
    {"display: its cookie", [](Manifest& m) { m.mutable_display()->set_cookie(std::string(257, 'x')); }},
    {"display: its picture", [](Manifest& m) { m.mutable_display()->set_picture("nothing.png"); }},

    {"process -5: this is no pid", [](Manifest& m) { process(m).set_pid(-5); }},
    {"process 1: this is no pid", [](Manifest& m) { process(m).set_pid(1); }},
    {"process 4194304: this is no pid", [](Manifest& m) { process(m).set_pid(1 << 22); }},
    {"process 42: it is there twice", [](Manifest& m) { process(m, 1).set_pid(42); }},
    {"parent 99 does not exist", [](Manifest& m) { process(m, 1).set_parent(99); }},
    {"its own ancestor", [](Manifest& m) { process(m).set_parent(51); }},
    {"its own ancestor", [](Manifest& m) { process(m).set_parent(42); }},
    {"group", [](Manifest& m) { process(m).set_group(-1); }},
    {"unknown state", [](Manifest& m) { process(m).set_state(static_cast<schema::Process::State>(9)); }},
    {"process 42: it refers to memory 7", [](Manifest& m) { process(m).set_memory(7); }},
    {"umask", [](Manifest& m) { process(m).set_umask(01000); }},
    {"process 42: a line about its control groups",
     [](Manifest& m) { process(m).add_control_groups("4:memory:elsewhere"); }},
    {"a line about its control groups",
     [](Manifest& m) { process(m).mutable_threads(1)->add_control_groups(std::string("0::/\0", 5)); }},
    {"too many control groups",
     [](Manifest& m) {
       for (int i = 0; i < 2000; ++i) process(m).add_control_groups("0::/a");
     }},
    {"no thread", [](Manifest& m) { process(m).clear_threads(); }},
    {"not its leader", [](Manifest& m) { process(m).mutable_threads()->SwapElements(0, 1); }},
    {"thread id 51 is used twice", [](Manifest& m) { process(m).mutable_threads(1)->set_tid(51); }},
    {"thread 43: its registers have 5 bytes",
     [](Manifest& m) { process(m).mutable_threads(1)->set_registers("12345"); }},
    {"extended registers", [](Manifest& m) { process(m).mutable_threads(0)->set_extended_state("short"); }},
    {"extended registers",
     [](Manifest& m) { process(m).mutable_threads(0)->set_extended_state(std::string(2 << 20, 'x')); }},
    {"pending signal", [](Manifest& m) { process(m).add_shared_pending()->set_info("x"); }},
    {"thread 42: a pending signal",
     [](Manifest& m) { process(m).mutable_threads(0)->add_pending()->set_info("x"); }},
    {"four user ids", [](Manifest& m) { process(m).mutable_threads(0)->mutable_credentials()->add_uids(0); }},
    {"signal 65", [](Manifest& m) { process(m).add_actions()->set_signal(65); }},
    {"interval timer 3", [](Manifest& m) { process(m).add_interval_timers()->set_which(3); }},
    {"POSIX timer -1", [](Manifest& m) { process(m).add_posix_timers()->set_id(-1); }},

    {"its directory's path", [](Manifest& m) { process(m).set_working_directory(std::string("a\0b", 3)); }},

    {"process 42: descriptor 7 refers to description 99, which does not exist",
     [](Manifest& m) { process(m).mutable_descriptors(0)->set_description(99); }},
    {"descriptor -1", [](Manifest& m) { process(m).mutable_descriptors(0)->set_number(-1); }},
    {"descriptor 2000000000", [](Manifest& m) { process(m).mutable_descriptors(0)->set_number(2000000000); }},
    {"descriptor 7 is there twice",
     [](Manifest& m) { *process(m).add_descriptors() = process(m).descriptors(0); }},
    {"terminal is description 8", [](Manifest& m) { process(m).set_controlling_terminal(8); }},
    {"description 1: its number is used twice",
     [](Manifest& m) { *m.add_descriptions() = m.descriptions(0); }},
    {"description 1: its kind", [](Manifest& m) { m.mutable_descriptions(0)->set_kind(""); }},

    {"memory 0: mapping 0", [](Manifest& m) { mapping(m).set_start(0x10001); }},
    {"ends before it starts", [](Manifest& m) { mapping(m).set_end(0x10000); }},
    {"ends before it starts", [](Manifest& m) { mapping(m).set_end(0x8000); }},
    {"outside user space", [](Manifest& m) { mapping(m, 1).set_end((uint64_t{1} << 47) + 0x1000); }},
    {"overlaps", [](Manifest& m) { mapping(m).set_end(0x21000); }},
    {"unknown kind", [](Manifest& m) { mapping(m).set_kind(static_cast<schema::Mapping::Kind>(17)); }},
    {"unknown protection", [](Manifest& m) { mapping(m).set_protection(0x100); }},
    {"shared memory 5", [](Manifest& m) { mapping(m, 1).set_shared_memory(5); }},
    {"description 12", [](Manifest& m) { mapping(m).set_description(12); }},
    {"names none", [](Manifest& m) { mapping(m).set_kind(schema::Mapping::PRIVATE_FILE); }},
    {"huge pages", [](Manifest& m) { mapping(m).set_huge_page_shift(21); }},
    {"huge pages of 2^63", [](Manifest& m) { mapping(m).set_huge_page_shift(63); }},
    {"file offset", [](Manifest& m) { mapping(m).set_file_offset(5); }},
    {"brk is outside", [](Manifest& m) { m.mutable_memories(0)->set_brk(~uint64_t{0}); }},
    {"heap ends", [](Manifest& m) { m.mutable_memories(0)->set_start_brk(0x5000); }},
    {"auxiliary vector", [](Manifest& m) { m.mutable_memories(0)->set_auxv("odd"); }},

    {"memory 0: run 0 (at 0x11001)", [](Manifest& m) { run(m).set_address(0x11001); }},
    {"it is empty", [](Manifest& m) { run(m).set_size(0); }},
    {"nothing is mapped at 0x14000", [](Manifest& m) { run(m).set_address(0x13000); }},
    {"nothing is mapped at 0x1000", [](Manifest& m) { run(m).set_address(0x1000); }},
    {"outside its page file", [](Manifest& m) { run(m).set_offset(0x3000); }},
    {"outside its page file", [](Manifest& m) { run(m).set_offset(~uint64_t{0xfff}); }},
    {"outside its", [](Manifest& m) { run(m).set_size(~uint64_t{0xfff}); }},
    {"out of order", [](Manifest& m) { *m.mutable_memories(0)->add_runs() = run(m); }},
    {"what the kernel maps", [](Manifest& m) { mapping(m).set_kind(schema::Mapping::VDSO); }},
    {"no page file", [](Manifest& m) { m.mutable_memories(0)->clear_page_file(); }},
    {"layer 1, which does not exist", [](Manifest& m) { run(m).set_layer(1); }},
    {"layer 4294967295, which does not exist", [](Manifest& m) { run(m).set_layer(~0u); }},
    {"page file ../1/pages is not in the image",
     [](Manifest& m) { m.mutable_memories(0)->add_layers("../1/pages"); }},
    {"outside its page file",
     [](Manifest& m) {
       m.mutable_memories(0)->add_layers("shared");
       run(m).set_layer(1);
       run(m).set_offset(0x1000);
     }},
    {"300 layers",
     [](Manifest& m) {
       for (int i = 0; i < 300; ++i) m.mutable_shared_memories(0)->add_layers("shared");
     }},
    {"layer 2, which does not exist",
     [](Manifest& m) {
       segment(m).add_layers("shared");
       segment(m).mutable_runs(0)->set_layer(2);
     }},
    {"page file other is not in the image",
     [](Manifest& m) { m.mutable_memories(0)->set_page_file("other"); }},
    {"shared memory 0: run 0", [](Manifest& m) { m.mutable_shared_memories(0)->set_size(0x1000); }},
    {"shared memory 0: it refers to description 3",
     [](Manifest& m) { m.mutable_shared_memories(0)->set_description(3); }},

    {"refers to segment 4", [](Manifest& m) { mapping(m, 2).set_segment(4); }},
    {"larger than its segment", [](Manifest& m) { mapping(m, 2).set_end(0x33000); }},
    {"larger than its segment", [](Manifest& m) { mapping(m, 2).set_file_offset(0x1000); }},
    {"segment -1: its id", [](Manifest& m) { segment(m).mutable_object()->set_id(-1); }},
    {"id is used twice", [](Manifest& m) { *m.mutable_system_v()->add_segments() = segment(m); }},
    {"key 0x5 is used twice",
     [](Manifest& m) {
       *m.mutable_system_v()->add_segments() = segment(m);
       segment(m).mutable_object()->set_id(1);
     }},
    {"mode", [](Manifest& m) { segment(m).mutable_object()->set_mode(01000); }},
    {"0 bytes", [](Manifest& m) { segment(m).set_size(0); }},
    {"segment 32768: run 0", [](Manifest& m) { segment(m).set_size(0x1000); }},
    {"no page file", [](Manifest& m) { segment(m).clear_page_file(); }},
    {"0 semaphores", [](Manifest& m) { semaphores(m).clear_values(); }},
    {"a semaphore of 40000", [](Manifest& m) { semaphores(m).set_values(0, 40000); }},
    {"one last user", [](Manifest& m) { semaphores(m).add_last_pids(7); }},
    {"semaphore 1 of set 3", [](Manifest& m) { adjustment(m).set_number(1); }},
    {"semaphore 0 of set 9", [](Manifest& m) { adjustment(m).set_set(9); }},
    {"impossible to undo", [](Manifest& m) { adjustment(m).set_value(-32769); }},
    {"which is not its parent", [](Manifest& m) { process(m, 1).set_descriptors_of(99); }},
    {"which is not its parent", [](Manifest& m) { process(m).set_directories_of(51); }},
    {"does not live",
     [](Manifest& m) {
       process(m, 1).set_directories_of(42);
       process(m).set_state(schema::Process::ZOMBIE);
       m.mutable_processes(0)->clear_adjustments();
     }},
    {"its descriptors are not those",
     [](Manifest& m) {
       process(m, 1).set_descriptors_of(42);
       process(m, 1).clear_descriptors();
     }},
    {"two notes", [](Manifest& m) { *process(m).add_adjustments() = adjustment(m); }},
    {"of type 0", [](Manifest& m) { queue(m).mutable_messages(0)->set_type(0); }},
    {"bytes at most", [](Manifest& m) { queue(m).set_max_bytes(uint64_t{1} << 40); }},

    {"file 0: its name", [](Manifest& m) { file(m).set_name("a/b"); }},
    {"file 0: its name", [](Manifest& m) { file(m).set_name("manifest"); }},
    {"listed twice", [](Manifest& m) { *m.add_files() = m.files(0); }},
    {"block size 0", [](Manifest& m) { file(m).set_block_size(0); }},
    {"block size 5000", [](Manifest& m) { file(m).set_block_size(5000); }},
    {"sums", [](Manifest& m) { file(m).add_sums(3); }},
    {"more than a file", [](Manifest& m) { file(m).set_size(~uint64_t{0}); }},
    {"more of it is stored", [](Manifest& m) { file(m).set_stored(0x5000); }},
    {"sums", [](Manifest& m) { file(m).set_unsummed(true); }},

    {"captured file 0: its path", [](Manifest& m) { captured(m).set_path(""); }},
    {"captured file 0: its path", [](Manifest& m) { captured(m).set_path("data/file"); }},
    {"captured file 0: its path", [](Manifest& m) { captured(m).set_path("/data/../etc/passwd"); }},
    {"captured file 0: its path", [](Manifest& m) { captured(m).set_path("/data/.."); }},
    {"captured file 0: its path", [](Manifest& m) { captured(m).set_path("/data/"); }},
    {"captured file 0: its path", [](Manifest& m) { captured(m).set_path(std::string("/data/\0file", 11)); }},
    {"captured file 1: its path is there twice", [](Manifest& m) { captured(m), captured(m); }},
    {"one of its paths is no", [](Manifest& m) { captured(m).add_other_paths("here"); }},
    {"one of its paths is there twice", [](Manifest& m) { captured(m).add_other_paths("/data/file"); }},
    {"no regular file", [](Manifest& m) { captured(m).set_mode(0020666); }},
    {"no regular file", [](Manifest& m) { captured(m).set_mode(0640); }},
    {"bytes are impossible", [](Manifest& m) { captured(m).set_size(uint64_t{1} << 60); }},
    {"unknown method",
     [](Manifest& m) { captured(m).set_method(static_cast<schema::CapturedFile::Method>(9)); }},
    {"its content is not in the image", [](Manifest& m) { captured(m).set_content("manifest"); }},
    {"its content is not in the image", [](Manifest& m) { captured(m).set_content("../shared"); }},
    {"another size", [](Manifest& m) { captured(m).set_size(0x1fff); }},
    {"also another file's", [](Manifest& m) { captured(m).set_path("/data/a"), captured(m); }},
    {"should have none", [](Manifest& m) { captured(m).set_method(schema::CapturedFile::IDENTITY); }},
    {"but it was written to",
     [](Manifest& m) {
       captured(m).clear_content();
       m.mutable_captured_files(0)->set_method(schema::CapturedFile::LENGTH);
     }},
    {"its type 0x3 is none", [](Manifest& m) { inner_space(m).set_type(3); }},
    {"namespaces are numbered from 1", [](Manifest& m) { inner_space(m).set_id(0); }},
    {"which does not come before it", [](Manifest& m) { inner_space(m).set_parent(kInner); }},
    {"it belongs to 7", [](Manifest& m) { inner_space(m).set_owner(7); }},
    {"an impossible range", [](Manifest& m) { inner_space(m).add_users()->set_inside(1); }},
    {"its clocks differ",
     [](Manifest& m) { inner_space(m).set_monotonic_offset_ns(INT64_MIN); }},
    {"in namespace 99", [](Manifest& m) { inner(m).mutable_processes(0)->add_namespaces(99); }},
    {"two namespaces of one type", [](Manifest& m) { inner(m).mutable_processes(0)->add_namespaces(kInner); }},
    {"not one number for each", [](Manifest& m) { inner(m).mutable_processes(0)->clear_inner_groups(); }},
    {"-3 is no number", [](Manifest& m) { inner(m).mutable_processes(0)->set_inner_numbers(0, -3); }},
    {"other numbers than it", [](Manifest& m) { inner(m).mutable_processes(0)->set_inner_numbers(0, 8); }},
    {"what is no pid namespace",
     [](Manifest& m) { inner(m).mutable_processes(0)->set_namespace_of_children(99); }},
    {"shows no processes",
     [](Manifest& m) {
       auto& system = *inner(m).add_file_systems();
       system.set_id(kInner);
       system.set_type("tmpfs");
       system.add_namespaces(kInner);
     }},
    {"it shows two namespaces",
     [](Manifest& m) {
       auto& system = *inner(m).add_file_systems();
       system.set_id(kInner);
       system.set_type("proc");
       system.set_of_processes(true);
       system.add_namespaces(kInner);
       system.add_namespaces(kInner);
     }},
};

TEST(Validate, APidNamespaceMayBeInIt) {
  Manifest manifest = good_manifest();
  auto result = validate(inner(manifest));
  EXPECT_TRUE(result.ok()) << result.error().message();
}

TEST(Validate, EveryMistakeIsFoundAndNamed) {
  for (const auto& mistake : kMistakes) {
    Manifest manifest = good_manifest();
    mistake.make(manifest);
    const auto result = validate(manifest);
    ASSERT_FALSE(result.ok()) << mistake.words;
    EXPECT_EQ(result.error().code, ErrorCode::kDamaged);
    EXPECT_NE(result.error().message().find(mistake.words), std::string::npos)
        << "expected: " << mistake.words << "\nsaid: " << result.error().message();
  }
}

// Whatever the bytes: an error or a manifest, quickly.
TEST(Validate, BytesOfEveryKindAreSurvived) {
  const std::string good = encode_manifest(good_manifest());
  ASSERT_TRUE(parse_manifest(std::as_bytes(std::span(good))).ok());
  for (size_t length = 0; length < good.size(); ++length) {
    EXPECT_FALSE(parse_manifest(std::as_bytes(std::span(good.data(), length))).ok());
  }
  // Past the checksum: what a hostile writer, who can compute one, would do.
  unsigned state = 1;
  for (int round = 0; round < 20'000; ++round) {
    std::string payload = good.substr(kHeaderSize);
    for (int change = 0; change < 1 + round % 4; ++change) {
      state = state * 1664525 + 1013904223;
      payload[(state >> 8) % payload.size()] = static_cast<char>(state >> 24);
    }
    Manifest manifest;
    if (manifest.ParseFromString(payload)) (void)validate(manifest).ok();
  }
}

}  // namespace
}  // namespace stasis::image
