#include "kernel/ipc_settings.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <sstream>
#include <string>
#include <vector>

#include "kernel/proc.h"
#include "stasis/fd.h"

namespace stasis::kernel {
namespace {

// Setting shm_rmid_forced looks through all segments, so it is the last.
constexpr const char* kNames[] = {"kernel/shmmax",
                                  "kernel/shmall",
                                  "kernel/shmmni",
                                  "kernel/msgmax",
                                  "kernel/msgmnb",
                                  "kernel/msgmni",
                                  "kernel/auto_msgmni",
                                  "kernel/sem",
                                  "fs/mqueue/queues_max",
                                  "fs/mqueue/msg_max",
                                  "fs/mqueue/msgsize_max",
                                  "fs/mqueue/msg_default",
                                  "fs/mqueue/msgsize_default",
                                  "kernel/shm_next_id",
                                  "kernel/sem_next_id",
                                  "kernel/msg_next_id",
                                  "kernel/shm_rmid_forced"};

bool is_limit(const std::string& name) {
  return !name.ends_with("_next_id") && !name.ends_with("_default") && name != "kernel/shm_rmid_forced" &&
         name != "kernel/auto_msgmni";
}

// The kernel shows who asks the settings of the namespace that they are in.
std::string read_setting(const std::string& name) {
  auto file = open_file(host_proc(), "sys/" + name, O_RDONLY);
  std::array<char, 256> value;
  const ssize_t count = file.ok() ? ::read(file->get(), value.data(), value.size()) : 0;
  return count > 0 ? std::string(value.data(), static_cast<size_t>(count)) : std::string();
}

// kernel/sem has four of them.
std::string higher(const std::string& one, const std::string& other) {
  std::istringstream left(one), right(other);
  std::string both;
  for (unsigned long long a = 0, b = 0; left >> a && right >> b;)
    both += (both.empty() ? "" : "\t") + std::to_string(std::max(a, b));
  return both + "\n";
}

}  // namespace

schema::IpcSettings read_changed_ipc_settings() {
  std::vector<std::string> values;
  for (const char* name : kNames) values.push_back(read_setting(name));
  const bool is_in_new_one = ::unshare(CLONE_NEWIPC) == 0;
  schema::IpcSettings changed;
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i].empty() || (is_in_new_one && read_setting(kNames[i]) == values[i])) continue;
    auto* setting = changed.add_settings();
    setting->set_name(kNames[i]);
    setting->set_value(values[i]);
  }
  return changed;
}

Result<void> apply_ipc_settings(const schema::IpcSettings& wanted, IpcStage stage) {
  for (const auto& setting : wanted.settings()) {
    const std::string& name = setting.name();
    if (std::find(std::begin(kNames), std::end(kNames), name) == std::end(kNames) ||
        (stage == IpcStage::kRoom && !is_limit(name)))
      continue;
    // Another kernel may not have it.
    const std::string now = read_setting(name);
    const std::string value = stage == IpcStage::kRoom ? higher(now, setting.value()) : setting.value();
    if (now.empty() || now == value) continue;
    auto file = open_file(host_proc(), "sys/" + name, O_WRONLY);
    // Whoever may not change it has that of this host, and what needs more says so.
    if (!file.ok()) continue;
    if (::write(file->get(), value.data(), value.size()) != static_cast<ssize_t>(value.size()))
      return errno_error("restart: set the limits of an IPC namespace", "/proc/sys/" + name);
  }
  return {};
}

}  // namespace stasis::kernel
