#include "resource/file/namespace.h"

#include <linux/magic.h>
#include <sys/vfs.h>

#include "kernel/proc.h"
#include "resource/payload.h"
#include "resource/refusal.h"
#include "schema/kinds/proc.pb.h"

namespace stasis::resource {

KindInfo NamespaceKind::info() const {
  return {"namespace", "Processes", "descriptors of namespaces", Support::kPartial,
          "a process must be in the namespace, and one that several processes share is refused"};
}

bool NamespaceKind::recognises(const OpenFile& file, const Observation&) const {
  struct statfs fs = {};
  return S_ISREG(file.status.st_mode) && fstatfs(file.duplicate.get(), &fs) == 0 && fs.f_type == NSFS_MAGIC;
}

// "uts:[4026531838]". Its owner opens that of a process which is in it, when all are where they were.
Result<std::string> NamespaceKind::observe(const OpenFile& file, Observation& tree) const {
  const std::string type = file.link.substr(0, file.link.find(':'));
  schema::ProcFile message;
  message.set_of_session(true);
  for (const auto& [pid, number] : file.owners) {
    if (pid != file.pid)
      return refusal(file, fmt::format("tasks {} and {} share it", file.pid, pid),
                     "each process has to open it for itself");
    message.add_numbers(number);
  }
  STASIS_TRY(std::vector<int> all, kernel::list_numbers(""));
  for (int process : all) {
    const NsTid number = tree.session_task(HostTid{process});
    if (number.value == 0) continue;
    auto link = kernel::read_proc_link(HostTid{process}, "ns/" + type);
    if (!link.ok() || *link != file.link) continue;
    message.set_path(fmt::format("/proc/{}/ns/{}", number, type));
    return pack(message);
  }
  return refusal(file, "no process of the session is in this namespace any more", "close it");
}

}  // namespace stasis::resource
