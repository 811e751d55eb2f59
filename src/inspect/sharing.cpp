#include "inspect/sharing.h"

#include <linux/kcmp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace stasis::inspect {

namespace {

using Note = std::function<void(schema::Process&, int of)>;

// Processes that may have the thing together, because it looks the same in all of them.
using Groups = std::map<std::string, std::vector<size_t>>;

class Sharing {
 public:
  Sharing(const freeze::FrozenTree& tree, schema::Manifest& manifest) : tree_(tree), manifest_(manifest) {}

  Result<void> observe(int what, const char* name, const Groups& groups, const Note& note) {
    for (const auto& entry : groups) {
      std::vector<size_t> order = entry.second;
      if (order.size() < 2) continue;
      // The kernel puts them in an order that holds while all stand still.
      std::stable_sort(order.begin(), order.end(),
                       [&](size_t a, size_t b) { return compare(what, a, b) == 1; });
      for (size_t first = 0, next = 0; first < order.size(); first = next) {
        for (next = first + 1; next < order.size() && compare(what, order[first], order[next]) == 0;) ++next;
        std::vector<size_t> together(order.begin() + static_cast<ptrdiff_t>(first),
                                     order.begin() + static_cast<ptrdiff_t>(next));
        std::sort(together.begin(), together.end());
        STASIS_CHECK(join(together, name, note));
      }
    }
    return {};
  }

 private:
  long compare(int what, size_t a, size_t b) const {
    return ::syscall(SYS_kcmp, tree_.processes()[a].pid.value, tree_.processes()[b].pid.value, what, 0, 0);
  }
  schema::Process& process(size_t index) const {
    return *manifest_.mutable_processes(static_cast<int>(index));
  }

  // One has it by itself; each of the others is made by its parent, or by a brother in the place of their
  // parent.
  Result<void> join(const std::vector<size_t>& together, const char* name, const Note& note) {
    int alone = 0;
    for (size_t index : together) {
      schema::Process& mine = process(index);
      int parent = 0, brother = 0;
      for (size_t other : together) {
        const schema::Process& theirs = process(other);
        if (theirs.pid() == mine.parent()) parent = theirs.pid();
        const bool alike = theirs.parent() == mine.parent() && theirs.session() == mine.session() &&
                           theirs.exit_signal() == mine.exit_signal();
        if (other < index && alike && brother == 0) brother = theirs.pid();
      }
      if (parent != 0 || brother != 0) {
        note(mine, parent != 0 ? parent : brother);
      } else if (++alone > 1) {
        return Error{
            "save", fmt::format("task {} ({})", mine.pid(), mine.comm()),
            fmt::format("it shares its {} with a process that is neither its parent nor its brother", name),
            "this is not supported; try again when it has called exec()", ErrorCode::kRefused};
      }
    }
    return {};
  }

  const freeze::FrozenTree& tree_;
  schema::Manifest& manifest_;
};

}  // namespace

Result<void> observe_sharing(const freeze::FrozenTree& tree, const DescriptorGraph& files,
                             schema::Manifest& manifest) {
  Groups tables, directories;
  for (size_t i = 0; i < tree.processes().size(); ++i) {
    if (tree.processes()[i].zombie) continue;
    std::string table;
    for (const auto& slot : files.slots(i)) table += fmt::format("{}:{} ", slot.number(), slot.description());
    tables[table].push_back(i);
    const auto& process = manifest.processes(static_cast<int>(i));
    directories[fmt::format("{:o} {} {}", process.umask(), process.working_directory(), process.root())]
        .push_back(i);
  }
  Sharing sharing(tree, manifest);
  STASIS_CHECK(sharing.observe(KCMP_FILES, "descriptors", tables,
                               [](schema::Process& process, int of) { process.set_descriptors_of(of); }));
  STASIS_CHECK(sharing.observe(KCMP_FS, "working directory", directories,
                               [](schema::Process& process, int of) { process.set_directories_of(of); }));
  for (const auto& process : manifest.processes()) {
    if (process.descriptors_of() == 0 || process.directories_of() == 0 ||
        process.descriptors_of() == process.directories_of())
      continue;
    return Error{"save", fmt::format("task {} ({})", process.pid(), process.comm()),
                 "it shares its descriptors with one process and its working directory with another",
                 "this is not supported; try again when it has called exec()", ErrorCode::kRefused};
  }
  return {};
}

}  // namespace stasis::inspect
