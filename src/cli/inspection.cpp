#include "cli/inspection.h"

#include <sys/mman.h>

#include <algorithm>
#include <functional>
#include <map>
#include <set>

#include "resource/registry.h"

namespace stasis::cli {
namespace {

uint64_t total(const google::protobuf::RepeatedPtrField<schema::PageRun>& runs) {
  uint64_t bytes = 0;
  for (const auto& run : runs) bytes += run.size();
  return bytes;
}

std::vector<ProcessView> tree_order(const schema::Manifest& manifest) {
  std::map<int, std::vector<const schema::Process*>> children;
  std::set<int> known;
  for (const auto& process : manifest.processes()) known.insert(process.pid());
  for (const auto& process : manifest.processes()) {
    children[known.contains(process.parent()) ? process.parent() : 0].push_back(&process);
  }
  std::vector<ProcessView> order;
  // A stack of its own instead of recursion: a chain of parents may be as long as there are processes.
  std::vector<ProcessView> open;
  const auto push_children = [&](int pid, int depth) {
    const auto found = children.find(pid);
    if (found == children.end()) return;
    for (auto child = found->second.rbegin(); child != found->second.rend(); ++child)
      open.push_back({*child, depth});
  };
  push_children(0, 0);
  while (!open.empty()) {
    const ProcessView next = open.back();
    open.pop_back();
    order.push_back(next);
    push_children(next.process->pid(), next.depth + 1);
  }
  return order;
}

std::vector<DescriptionView> describe_descriptions(const schema::Manifest& manifest) {
  std::map<uint32_t, DescriptionView> views;
  for (const auto& description : manifest.descriptions()) {
    DescriptionView& view = views[description.id()];
    view.id = description.id();
    view.kind = description.kind();
    view.shown = description.shown();
    if (const auto* kind = resource::find_descriptor_kind(description.kind())) {
      view.summary = kind->summary({description.id(), description.kind(), description.payload(),
                                    description.flags(), description.position(), description.shown()});
    } else {
      view.summary = "a kind that this version does not know";
    }
  }
  for (const auto& process : manifest.processes()) {
    for (const auto& slot : process.descriptors()) {
      views[slot.description()].owners.push_back({process.pid(), slot.number(), slot.close_on_exec()});
    }
  }
  std::vector<DescriptionView> all;
  all.reserve(views.size());
  for (auto& [id, view] : views) {
    std::sort(view.owners.begin(), view.owners.end(), [](const auto& a, const auto& b) {
      return std::pair(a.pid, a.number) < std::pair(b.pid, b.number);
    });
    all.push_back(std::move(view));
  }
  return all;
}

}  // namespace

bool DescriptionView::shared() const {
  return !owners.empty() && std::any_of(owners.begin(), owners.end(),
                                        [&](const Owner& owner) { return owner.pid != owners.front().pid; });
}

Inspection inspect_manifest(const schema::Manifest& manifest) {
  Inspection result;
  result.processes = tree_order(manifest);
  result.descriptions = describe_descriptions(manifest);
  for (const auto& memory : manifest.memories()) {
    MemoryView view;
    view.memory = &memory;
    for (const auto& mapping : memory.mappings()) view.mapped += mapping.end() - mapping.start();
    view.stored = total(memory.runs());
    result.memories.push_back(std::move(view));
  }
  for (const auto& memory : manifest.shared_memories())
    result.shared_memories.push_back({&memory, {}, total(memory.runs())});
  for (const auto& process : manifest.processes()) {
    // A zombie has no memory; its index means nothing.
    if (process.state() == schema::Process::ZOMBIE) continue;
    MemoryView& view = result.memories[process.memory()];
    view.pids.push_back(process.pid());
    std::set<uint32_t> objects;
    for (const auto& mapping : view.memory->mappings()) {
      if (mapping.kind() == schema::Mapping::SHARED_MEMORY) objects.insert(mapping.shared_memory());
    }
    for (uint32_t object : objects) result.shared_memories[object].pids.push_back(process.pid());
  }
  return result;
}

const char* state_name(schema::Process::State state) {
  switch (state) {
    case schema::Process::STOPPED:
      return "stopped";
    case schema::Process::ZOMBIE:
      return "zombie";
    default:
      return "running";
  }
}

const char* mapping_kind_name(schema::Mapping::Kind kind) {
  switch (kind) {
    case schema::Mapping::ANONYMOUS:
      return "anonymous";
    case schema::Mapping::PRIVATE_FILE:
      return "private file";
    case schema::Mapping::SHARED_FILE:
      return "shared file";
    case schema::Mapping::SHARED_MEMORY:
      return "shared memory";
    case schema::Mapping::VDSO:
      return "vdso";
    case schema::Mapping::VVAR:
      return "vvar";
    case schema::Mapping::SYSTEM_V:
      return "system v";
    case schema::Mapping::AIO_RING:
      return "asynchronous i/o";
    case schema::Mapping::DEVICE:
      return "device";
    default:
      return "unknown";
  }
}

std::string protection_text(uint32_t protection) {
  std::string text = "---";
  if ((protection & PROT_READ) != 0) text[0] = 'r';
  if ((protection & PROT_WRITE) != 0) text[1] = 'w';
  if ((protection & PROT_EXEC) != 0) text[2] = 'x';
  return text;
}

}  // namespace stasis::cli
