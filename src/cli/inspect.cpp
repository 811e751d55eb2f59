#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/inspection.h"
#include "cli/output.h"
#include "cli/stores.h"
#include "cli/verbs.h"
#include "image/reader.h"

namespace stasis::cli {
namespace {

using nlohmann::json;

struct InspectOptions {
  std::string reference;
  std::string store;
  bool mappings = false;
  bool as_json = false;
};

// Names in an image come from programs and must not drive the terminal.
std::string printable(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return text;
}

template <typename List>
std::string joined(const List& list, const char* separator = " ") {
  return fmt::format("{}", fmt::join(list, separator));
}

json mapping_json(const schema::Mapping& mapping) {
  json object = {{"start", fmt::format("{:#x}", mapping.start())},
                 {"end", fmt::format("{:#x}", mapping.end())},
                 {"kind", mapping_kind_name(mapping.kind())},
                 {"protection", protection_text(mapping.protection())}};
  if (!mapping.path().empty()) object["path"] = mapping.path();
  if (mapping.file_offset() != 0) object["offset"] = mapping.file_offset();
  if (mapping.kind() == schema::Mapping::SHARED_MEMORY) object["shared_memory"] = mapping.shared_memory();
  if (mapping.kind() == schema::Mapping::SYSTEM_V) object["segment"] = mapping.segment();
  if (mapping.huge_page_shift() != 0) object["huge_page_bytes"] = uint64_t{1} << mapping.huge_page_shift();
  return object;
}

json memories_json(const Inspection& inspection) {
  json memories = json::array();
  for (const auto& view : inspection.memories) {
    json mappings = json::array();
    for (const auto& mapping : view.memory->mappings()) mappings.push_back(mapping_json(mapping));
    memories.push_back(
        {{"pids", view.pids},
         {"executable", view.memory->executable()},
         {"mapped_bytes", view.mapped},
         {"page_bytes", view.stored},
         {"page_file", view.memory->page_file()},
         {"layers", std::vector<std::string>(view.memory->layers().begin(), view.memory->layers().end())},
         {"mappings", mappings}});
  }
  return memories;
}

json processes_json(const Inspection& inspection) {
  json processes = json::array();
  for (const auto& [process, depth] : inspection.processes) {
    json threads = json::array();
    for (const auto& thread : process->threads())
      threads.push_back({{"tid", thread.tid()}, {"name", thread.name()}});
    json descriptors = json::array();
    for (const auto& slot : process->descriptors()) {
      descriptors.push_back({{"number", slot.number()},
                             {"description", slot.description()},
                             {"close_on_exec", slot.close_on_exec()}});
    }
    json object = {{"pid", process->pid()},
                   {"parent", process->parent()},
                   {"group", process->group()},
                   {"session", process->session()},
                   {"state", state_name(process->state())},
                   {"comm", process->comm()},
                   {"working_directory", process->working_directory()},
                   {"threads", threads},
                   {"descriptors", descriptors}};
    if (process->state() != schema::Process::ZOMBIE) object["memory"] = process->memory();
    processes.push_back(std::move(object));
  }
  return processes;
}

json descriptions_json(const Inspection& inspection) {
  json descriptions = json::array();
  for (const auto& view : inspection.descriptions) {
    json owners = json::array();
    for (const auto& owner : view.owners) owners.push_back({{"pid", owner.pid}, {"number", owner.number}});
    descriptions.push_back({{"id", view.id},
                            {"kind", view.kind},
                            {"shown", view.shown},
                            {"summary", view.summary},
                            {"shared", view.shared()},
                            {"owners", owners}});
  }
  return descriptions;
}

json shared_memories_json(const Inspection& inspection) {
  json objects = json::array();
  for (const auto& view : inspection.shared_memories) {
    objects.push_back({{"name", view.memory->name()},
                       {"bytes", view.memory->size()},
                       {"page_bytes", view.stored},
                       {"pids", view.pids}});
  }
  return objects;
}

// How the content of a captured file was taken.
const char* method_name(const schema::CapturedFile& file) {
  switch (file.method()) {
    case schema::CapturedFile::LENGTH:
      return "length";
    case schema::CapturedFile::IDENTITY:
      return "identity";
    default:
      return file.cloned() ? "clone" : "copy";
  }
}

json captured_files_json(const schema::Manifest& manifest) {
  json files = json::array();
  for (const auto& file : manifest.captured_files()) {
    files.push_back({{"path", file.path()},
                     {"how", method_name(file)},
                     {"bytes", file.size()},
                     {"append_only", file.appended()},
                     {"content", file.content()}});
  }
  return files;
}

void print_captured_files(const schema::Manifest& manifest) {
  if (manifest.captured_files_size() == 0) return;
  fmt::print("\nFiles as of the checkpoint ({})\n", manifest.captured_files_size());
  std::vector<std::vector<std::string>> rows;
  for (const auto& file : manifest.captured_files()) {
    rows.push_back({"  " + printable(file.path()), human_size(file.size()), method_name(file),
                    file.appended() ? "append-only" : "", file.content()});
  }
  print_table({{"  PATH"}, {"SIZE", Align::kRight}, {"HOW"}, {""}, {"CONTENT"}}, rows);
}

json display_json(const image::Image& image) {
  const schema::Display& display = image.manifest().display();
  json object = {{"number", display.number()},
                 {"server_pid", display.server()},
                 {"width", display.width()},
                 {"height", display.height()}};
  if (!display.picture().empty()) object["picture"] = image.directory() + "/" + display.picture();
  return object;
}

json system_v_json(const schema::SystemV& objects) {
  const auto common = [](const schema::IpcObject& object) {
    return json{{"id", object.id()},
                {"key", static_cast<uint32_t>(object.key())},
                {"user", object.user()},
                {"mode", fmt::format("{:o}", object.mode())}};
  };
  json segments = json::array(), sets = json::array(), queues = json::array();
  for (const auto& segment : objects.segments()) {
    segments.push_back(common(segment.object()));
    segments.back()["bytes"] = segment.size();
    segments.back()["removed"] = segment.removed();
  }
  for (const auto& set : objects.semaphore_sets()) {
    sets.push_back(common(set.object()));
    sets.back()["values"] = std::vector<uint32_t>(set.values().begin(), set.values().end());
  }
  for (const auto& queue : objects.queues()) {
    queues.push_back(common(queue.object()));
    queues.back()["messages"] = queue.messages_size();
  }
  return {{"segments", segments}, {"semaphore_sets", sets}, {"queues", queues}};
}

void print_image_json(const image::Image& image, const Inspection& inspection) {
  const auto& manifest = image.manifest();
  json files = json::array();
  for (const auto& file : manifest.files()) {
    files.push_back({{"name", file.name()},
                     {"bytes", file.size()},
                     {"stored_bytes", file.stored()},
                     {"origin", file.origin()}});
  }
  json object = {
      {"session", manifest.session()},
      {"id", manifest.id()},
      {"tag", manifest.tag()},
      {"directory", image.directory()},
      {"created", iso_time(manifest.clocks().realtime_ns())},
      {"command", std::vector<std::string>(manifest.command().begin(), manifest.command().end())},
      {"host", {{"kernel", manifest.host().kernel()}, {"cpu", manifest.host().cpu()}}},
      {"user", manifest.user()},
      {"root_pid", manifest.root_pid()},
      {"terminal", manifest.terminal().present()},
      {"pause_ms", static_cast<double>(manifest.pause_ns()) * 1e-6},
      {"total_ms", static_cast<double>(manifest.total_ns()) * 1e-6},
      {"base", manifest.base()},
      {"logical_bytes", image.content_size()},
      {"stored_bytes", image.stored_size()},
      {"own_bytes", image.own_size()},
      {"processes", processes_json(inspection)},
      {"memories", memories_json(inspection)},
      {"shared_memories", shared_memories_json(inspection)},
      {"system_v", system_v_json(manifest.system_v())},
      {"descriptions", descriptions_json(inspection)},
      {"captured_files", captured_files_json(manifest)},
      {"files", files},
      {"warnings", std::vector<std::string>(manifest.warnings().begin(), manifest.warnings().end())},
  };
  if (manifest.has_display()) object["display"] = display_json(image);
  object["private_network"] = manifest.has_session_network();
  fmt::print("{}\n", object.dump(2, ' ', false, json::error_handler_t::replace));
}

// What it has in common with other checkpoints, and which ones wrote that.
std::string describe_shared(const image::Image& image) {
  const auto& manifest = image.manifest();
  std::set<uint32_t> origins;
  uint64_t bytes = 0;
  for (const auto& file : manifest.files()) {
    if (file.origin() == 0) continue;
    origins.insert(file.origin());
    bytes += file.stored();
  }
  if (origins.empty()) return {};
  return fmt::format("{} in page files of checkpoint{} {}; it holds what had changed since @{}",
                     human_size(bytes), origins.size() == 1 ? "" : "s", joined(origins, ", "),
                     manifest.base());
}

void print_head(const image::Image& image) {
  const auto& manifest = image.manifest();
  const auto line = [](const char* name, const std::string& value) {
    if (!value.empty()) fmt::print("  {:<9}{}\n", name, printable(value));
  };
  fmt::print("Checkpoint {}@{}\n", printable(manifest.session()), manifest.id());
  line("tag", manifest.tag());
  line("taken", iso_time(manifest.clocks().realtime_ns()));
  line("host",
       manifest.host().kernel() + (manifest.host().cpu().empty() ? "" : ", " + manifest.host().cpu()));
  line("command", joined(manifest.command()));
  line("terminal",
       manifest.terminal().present()
           ? fmt::format("{} columns, {} rows", manifest.terminal().columns(), manifest.terminal().rows())
           : std::string("none"));
  if (manifest.has_display())
    line("display",
         fmt::format(":{}, {}x{}, {}", manifest.display().number(), manifest.display().width(),
                     manifest.display().height(),
                     manifest.display().picture().empty() ? "no picture" : manifest.display().picture()));
  if (manifest.has_session_network()) {
    const auto& links = manifest.session_network().links();
    std::vector<std::string> names;
    for (const auto& link : links) names.push_back(link.name());
    line("network", "its own: " + joined(names, ", "));
  }
  line("pause", fmt::format("{}; complete in {}", human_duration(manifest.pause_ns()),
                            human_duration(manifest.total_ns())));
  line("size", fmt::format("{}, {} on disk, {} file{} and the manifest", human_size(image.content_size()),
                           human_size(image.stored_size()), manifest.files_size(),
                           manifest.files_size() == 1 ? "" : "s"));
  line("shared", describe_shared(image));
  line("where", image.directory());
  for (const auto& warning : manifest.warnings()) line("warning", warning);
}

void print_processes(const Inspection& inspection) {
  fmt::print("\nProcesses ({})\n", inspection.processes.size());
  std::vector<std::vector<std::string>> rows;
  for (const auto& [process, depth] : inspection.processes) {
    const bool zombie = process->state() == schema::Process::ZOMBIE;
    // A chain of hundreds of parents would push everything off the screen.
    const std::string indent(2 * static_cast<size_t>(std::min(depth, 20)), ' ');
    rows.push_back({fmt::format("  {}{}", indent, process->pid()), printable(process->comm()),
                    state_name(process->state()), fmt::format("{}", process->threads_size()),
                    fmt::format("{}", process->descriptors_size()),
                    zombie ? "" : fmt::format("{}", process->memory()), fmt::format("{}", process->group()),
                    fmt::format("{}", process->session()), printable(process->working_directory())});
  }
  print_table({{"  PID"},
               {"NAME"},
               {"STATE"},
               {"THREADS", Align::kRight},
               {"FILES", Align::kRight},
               {"MEMORY", Align::kRight},
               {"GROUP", Align::kRight},
               {"SESSION", Align::kRight},
               {"DIRECTORY"}},
              rows);
}

void print_memory(const Inspection& inspection, bool mappings) {
  fmt::print("\nMemory\n");
  std::vector<std::vector<std::string>> rows;
  for (size_t i = 0; i < inspection.memories.size(); ++i) {
    const auto& view = inspection.memories[i];
    rows.push_back({fmt::format("  {}", i), joined(view.pids),
                    fmt::format("{}", view.memory->mappings_size()), human_size(view.mapped),
                    human_size(view.stored), printable(view.memory->executable())});
  }
  print_table({{"  MEMORY"},
               {"OF PROCESS"},
               {"MAPPINGS", Align::kRight},
               {"MAPPED", Align::kRight},
               {"PAGES SAVED", Align::kRight},
               {"EXECUTABLE"}},
              rows);
  if (!inspection.shared_memories.empty()) {
    fmt::print("\nShared memory\n");
    rows.clear();
    for (size_t i = 0; i < inspection.shared_memories.size(); ++i) {
      const auto& view = inspection.shared_memories[i];
      rows.push_back({fmt::format("  {}", i), joined(view.pids), human_size(view.memory->size()),
                      human_size(view.stored), printable(view.memory->name())});
    }
    print_table(
        {{"  OBJECT"}, {"OF PROCESSES"}, {"SIZE", Align::kRight}, {"PAGES SAVED", Align::kRight}, {"NAME"}},
        rows);
  }
  if (!mappings) return;
  for (size_t i = 0; i < inspection.memories.size(); ++i) {
    fmt::print("\nMappings of memory {}\n", i);
    rows.clear();
    for (const auto& mapping : inspection.memories[i].memory->mappings()) {
      std::string what = printable(mapping.path());
      if (mapping.kind() == schema::Mapping::SHARED_MEMORY)
        what = fmt::format("object {}", mapping.shared_memory());
      if (mapping.kind() == schema::Mapping::SYSTEM_V) what = fmt::format("segment {}", mapping.segment());
      if (mapping.stack()) what = "stack";
      rows.push_back({fmt::format("  {:012x}-{:012x}", mapping.start(), mapping.end()),
                      protection_text(mapping.protection()), human_size(mapping.end() - mapping.start()),
                      mapping_kind_name(mapping.kind()), what});
    }
    print_table({{"  ADDRESSES"}, {"MAY"}, {"SIZE", Align::kRight}, {"KIND"}, {"OF"}}, rows);
  }
}

void print_system_v(const schema::SystemV& objects) {
  std::vector<std::vector<std::string>> rows;
  const auto add = [&rows](const char* kind, const schema::IpcObject& object, std::string content) {
    rows.push_back(
        {fmt::format("  {}", object.id()), kind, fmt::format("{:#010x}", static_cast<uint32_t>(object.key())),
         fmt::format("{}", object.user()), fmt::format("{:o}", object.mode()), std::move(content)});
  };
  for (const auto& segment : objects.segments())
    add("segment", segment.object(), human_size(segment.size()) + (segment.removed() ? ", removed" : ""));
  for (const auto& set : objects.semaphore_sets()) add("semaphores", set.object(), joined(set.values()));
  for (const auto& queue : objects.queues())
    add("message queue", queue.object(), fmt::format("{} messages", queue.messages_size()));
  if (rows.empty()) return;
  fmt::print("\nSystem V objects\n");
  print_table({{"  ID"}, {"KIND"}, {"KEY"}, {"USER"}, {"MODE"}, {"CONTENT"}}, rows);
}

void print_descriptors(const Inspection& inspection) {
  fmt::print("\nOpen files ({})\n", inspection.descriptions.size());
  std::vector<std::vector<std::string>> rows;
  for (const auto& view : inspection.descriptions) {
    std::string owners;
    // In numbers that can be read: a pipe inherited by 300 processes is one line.
    constexpr size_t kShownOwners = 4;
    for (size_t i = 0; i < std::min(view.owners.size(), kShownOwners); ++i) {
      owners += fmt::format("{}{}:{}", i > 0 ? " " : "", view.owners[i].pid, view.owners[i].number);
    }
    if (view.owners.size() > kShownOwners)
      owners += fmt::format(" and {} more", view.owners.size() - kShownOwners);
    rows.push_back({fmt::format("  {}", view.id), owners.empty() ? "-" : owners,
                    view.shared() ? "shared" : "", view.kind, printable(view.shown),
                    printable(view.summary)});
  }
  print_table({{"  ID"}, {"PROCESS:NUMBER"}, {""}, {"KIND"}, {"WHAT"}, {"STATE"}}, rows);
}

int run_inspect(const InspectOptions& options) {
  auto directory = checkpoint_directory(options.reference, options.store);
  if (!directory.ok()) return report(directory.error());
  auto image = image::Image::open(*directory);
  if (!image.ok()) return report(image.error());
  const Inspection inspection = inspect_manifest(image->manifest());
  if (options.as_json) {
    print_image_json(*image, inspection);
    return kExitOk;
  }
  print_head(*image);
  print_processes(inspection);
  print_memory(inspection, options.mappings);
  print_system_v(image->manifest().system_v());
  print_descriptors(inspection);
  print_captured_files(image->manifest());
  return kExitOk;
}

}  // namespace

CLI::App* add_inspect(CLI::App& app, int& status) {
  CLI::App* verb = app.add_subcommand("inspect", "Show what is in a checkpoint");
  auto options = std::make_shared<InspectOptions>();
  verb->add_option("CHECKPOINT", options->reference, kReferenceHelp)->required();
  verb->add_option("--store", options->store, kStoreHelp)->type_name("DIR");
  verb->add_flag("--mappings", options->mappings, "Also every mapping of each memory (always in JSON)");
  verb->add_flag("--json", options->as_json,
                 "One object: session, id, processes, memories, shared_memories, system_v, descriptions, "
                 "files, sizes, ...");
  verb->footer(R"(
Processes with the same MEMORY share it; open files marked shared are one object in several processes.

Examples:
  stasis inspect db
  stasis inspect db@3 --mappings
  stasis inspect db --json | jq '.descriptions[] | select(.shared)')");
  verb->callback([options, &status] { status = run_inspect(*options); });
  return verb;
}

}  // namespace stasis::cli
