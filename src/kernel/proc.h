// Typed readings of /proc. All paths are relative to the /proc that was mounted when this program started, so
// they mean the same after we have entered a session's mount namespace, where /proc shows the session's own
// pids.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "stasis/fd.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::kernel {

// The directory descriptor of the host's /proc, opened at first use: call it once before changing namespaces.
int host_proc();
// A path that leads to one of our own descriptors. While our root directory is one of the program's, in which
// there may be no /proc, it counts from the working directory, which then has to be host_proc().
std::string own_descriptor(int fd);
void set_root_of_program(bool on);
// For a session's init, which lives in the session: from now on the /proc that is mounted here, and the task
// numbers that it shows.
void adopt_proc();

Result<std::string> read_proc(HostTid task, const std::string& name);
// For the files that are one record (status, stat, fdinfo/N, ...; not maps): in one read, since their end
// needs no looking for.
Result<std::string> read_proc_record(HostTid task, const std::string& name);
Result<Fd> open_proc(HostTid task, const std::string& name, int flags);
Result<std::string> read_proc_link(HostTid task, const std::string& name);

// The numbers of a task in one of the pid namespaces that it is in. A group or session that began outside of
// the namespace has none there: 0.
struct TaskNumbers {
  NsTid tid, tgid, group, session;
};

// /proc/PID/status. Ids "in the namespace" are those of the innermost pid namespace of the task, unless
// choose_level() says otherwise.
struct TaskStatus {
  std::string name;
  char state = '?';
  HostTid tgid, parent, tracer;
  NsTid ns_tid, ns_tgid, ns_group, ns_session;
  size_t namespace_depth = 0;       // number of pid namespaces from ours inward; 1: ours
  std::vector<TaskNumbers> levels;  // in each of them
  std::array<uint32_t, 4> uids = {}, gids = {};
  std::vector<uint32_t> groups;
  uint32_t umask = 022;
  uint64_t ignored = 0, caught = 0, pending = 0, shared_pending = 0, blocked = 0;
  uint64_t cap_inheritable = 0, cap_permitted = 0, cap_effective = 0, cap_bounding = 0, cap_ambient = 0;
  bool no_new_privs = false;
  int seccomp = 0;
  int seccomp_filters = -1;  // -1: the kernel does not tell (before 5.9)
  bool thp_enabled = true;
  uint64_t locked_kib = 0;
  uint64_t anonymous_kib = 0;  // in memory
  uint64_t voluntary_switches = 0;
  int threads = 0;

  // Makes ns_tid, ns_tgid, ns_group and ns_session those of one of the levels; of the innermost when it is
  // not so deep.
  void choose_level(size_t level);
  // As the task itself knows them, whatever level was chosen.
  NsTid own_tid() const { return levels.empty() ? ns_tid : levels.back().tid; }
  NsTid own_tgid() const { return levels.empty() ? ns_tgid : levels.back().tgid; }
};
Result<TaskStatus> read_status(HostTid task);

// /proc/PID/stat.
struct TaskStat {
  std::string comm;
  char state = '?';
  HostTid parent;
  int64_t group = 0, session = 0, terminal = 0, foreground_group = 0;  // terminal: see terminal_device()
  uint64_t flags = 0;                                                  // PF_*
  uint64_t start_time = 0;
  uint64_t start_code = 0, end_code = 0, start_stack = 0;
  uint64_t start_data = 0, end_data = 0, start_brk = 0, arg_start = 0, arg_end = 0, env_start = 0,
           env_end = 0;
  int32_t exit_signal = 0;
  int32_t processor = 0;  // it ran on last
  int32_t exit_code = 0;
};
Result<TaskStat> read_stat(HostTid task);
// st_rdev of the controlling terminal: the kernel packs it differently in /proc/PID/stat.
uint64_t terminal_device(int64_t terminal);

// When a task last left or entered a processor, and how often it did so by itself; from /proc/TID/sched.
struct ScheduleMoment {
  int64_t exec_start_ns = 0;  // by the scheduler's clock of the task's processor
  uint64_t voluntary_switches = 0;
};
std::optional<ScheduleMoment> read_schedule_moment(HostTid task);

// One line of /proc/PID/maps.
struct MapsEntry {
  uint64_t start = 0, end = 0;
  int protection = 0;  // PROT_*
  bool shared = false;
  uint64_t offset = 0;
  uint64_t device = 0;  // as st_dev
  uint64_t inode = 0;
  std::string name;  // path, [stack], [vdso], ... unescaped
};
Result<std::vector<MapsEntry>> read_maps(HostTid task);
// How many pages all of them have together (/proc/PID/statm).
Result<uint64_t> mapped_pages(HostTid task);
// Those that overlap [start, end), without names: quick also where there are thousands (Linux 6.11).
Result<std::vector<MapsEntry>> mappings_between(HostTid task, uint64_t start, uint64_t end);
// The value of an AT_* entry of /proc/PID/auxv; 0 when there is none.
uint64_t auxiliary_value(HostTid task, uint64_t type);

// VmFlags of each mapping of /proc/PID/smaps, keyed by order of appearance; slow (walks page tables).
struct MappingFlags {
  uint64_t start = 0, end = 0;
  uint64_t used = 0;               // bytes that are in memory or swap
  std::vector<std::string> flags;  // two-letter codes, see proc(5)
  uint64_t page_size = kPageSize;
  bool has(std::string_view flag) const;
};
Result<std::vector<MappingFlags>> read_mapping_flags(HostTid task);

// Numeric entries of a directory of /proc ("", "123/task", "123/fd").
Result<std::vector<int>> list_numbers(const std::string& directory);

// The number of the task that was created last in our pid namespace or one below it; 0: the kernel does not
// tell. While it does not change no task is created, but for those whose maker has chosen their number in our
// own namespace.
int newest_task();

// The identity of a task's pid namespace; nothing when the task is gone or a zombie.
std::optional<uint64_t> pid_namespace(HostTid task);

// Nanoseconds that a namespace clock differs from the host's, from /proc/PID/timens_offsets.
struct ClockOffsets {
  int64_t monotonic_ns = 0;
  int64_t boottime_ns = 0;
};
Result<ClockOffsets> read_clock_offsets(HostTid task);
// As that file takes them.
std::string clock_offsets_text(const ClockOffsets& offsets);

}  // namespace stasis::kernel
