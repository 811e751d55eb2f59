#include "kernel/proc.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace stasis::kernel {

namespace {

Fd& proc_directory() {
  static Fd directory(::open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return directory;
}

}  // namespace

int host_proc() { return proc_directory().get(); }

void adopt_proc() { proc_directory().reset(::open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC)); }

Result<std::string> read_proc(HostTid task, const std::string& name) {
  return read_file(host_proc(), fmt::format("{}/{}", task.value, name));
}

namespace {
bool g_root_of_program = false;
}

std::string own_descriptor(int fd) {
  return fmt::format("{}self/fd/{}", g_root_of_program ? "" : "/proc/", fd);
}

void set_root_of_program(bool on) { g_root_of_program = on; }

Result<std::string> read_proc_record(HostTid task, const std::string& name) {
  STASIS_TRY(Fd file, open_proc(task, name, O_RDONLY));
  std::array<char, 4096> buffer;
  ssize_t count = ::read(file.get(), buffer.data(), buffer.size());
  if (count < 0) return errno_error("read", fmt::format("/proc/{}/{}", task.value, name));
  std::string content(buffer.data(), static_cast<size_t>(count));
  if (content.size() < buffer.size()) return content;
  STASIS_TRY(std::string rest, read_all(file.get()));
  return content + rest;
}

Result<Fd> open_proc(HostTid task, const std::string& name, int flags) {
  return open_file(host_proc(), fmt::format("{}/{}", task.value, name), flags);
}

Result<std::string> read_proc_link(HostTid task, const std::string& name) {
  std::string path = fmt::format("{}/{}", task.value, name);
  std::array<char, 4352> target;
  ssize_t length = ::readlinkat(host_proc(), path.c_str(), target.data(), target.size());
  if (length < 0) return errno_error("read the link", "/proc/" + path);
  return std::string(target.data(), static_cast<size_t>(length));
}

namespace {

// Walks through text by lines and words without copying.
class Words {
 public:
  explicit Words(std::string_view text) : rest_(text) {}
  std::string_view next() {
    size_t first = rest_.find_first_not_of(" \t\n");
    if (first == std::string_view::npos) {
      rest_ = {};
      return {};
    }
    rest_.remove_prefix(first);
    size_t end = std::min(rest_.find_first_of(" \t\n"), rest_.size());
    std::string_view word = rest_.substr(0, end);
    rest_.remove_prefix(end);
    return word;
  }
  template <typename T = int64_t>
  T number(int base = 10) {
    T value{};
    std::string_view word = next();
    std::from_chars(word.data(), word.data() + word.size(), value, base);
    return value;
  }
  std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
};

template <typename Function>
void for_each_line(std::string_view text, Function&& function) {
  while (!text.empty()) {
    size_t end = std::min(text.find('\n'), text.size());
    function(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

// A line such as "NSpid: 4711 12": one number for each pid namespace, ours first.
void take_levels(Words values, std::vector<TaskNumbers>& levels, NsTid TaskNumbers::*field) {
  size_t level = 0;
  for (std::string_view word = values.next(); !word.empty(); word = values.next(), ++level) {
    if (levels.size() <= level) levels.emplace_back();
    std::from_chars(word.data(), word.data() + word.size(), (levels[level].*field).value);
  }
}

std::string unescape(std::string_view text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    // Only newline is escaped in maps ("\012").
    if (text.substr(i).starts_with("\\012")) {
      plain += '\n';
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

Result<std::vector<MapsEntry>> parse_maps(std::string_view text) {
  std::vector<MapsEntry> entries;
  for_each_line(text, [&](std::string_view line) {
    MapsEntry entry;
    Words words(line);
    std::string_view range = words.next();
    const char* end = range.data() + range.size();
    auto dash = std::from_chars(range.data(), end, entry.start, 16);
    std::from_chars(dash.ptr + 1, end, entry.end, 16);
    std::string_view perms = words.next();
    if (perms.size() < 4) return;
    entry.protection = (perms[0] == 'r' ? PROT_READ : 0) | (perms[1] == 'w' ? PROT_WRITE : 0) |
                       (perms[2] == 'x' ? PROT_EXEC : 0);
    entry.shared = perms[3] == 's';
    entry.offset = words.number<uint64_t>(16);
    std::string_view device = words.next();
    unsigned major = 0;
    unsigned minor = 0;
    auto colon = std::from_chars(device.data(), device.data() + device.size(), major, 16);
    std::from_chars(colon.ptr + 1, device.data() + device.size(), minor, 16);
    entry.device = makedev(major, minor);
    entry.inode = words.number<uint64_t>();
    std::string_view name = words.rest();
    size_t first = name.find_first_not_of(' ');
    if (first != std::string_view::npos) entry.name = unescape(name.substr(first));
    entries.push_back(std::move(entry));
  });
  return entries;
}

}  // namespace

Result<TaskStatus> read_status(HostTid task) {
  STASIS_TRY(std::string text, read_proc_record(task, "status"));
  TaskStatus status;
  for_each_line(text, [&](std::string_view line) {
    size_t colon = line.find(':');
    if (colon == std::string_view::npos) return;
    std::string_view key = line.substr(0, colon);
    std::string_view rest = line.substr(colon + 1);
    Words words(rest);
    auto hex = [&] { return words.number<uint64_t>(16); };
    if (key == "Name") {
      status.name = std::string(rest.size() > 1 ? rest.substr(1) : rest);
    } else if (key == "Umask") {
      status.umask = words.number<uint32_t>(8);
    } else if (key == "State") {
      status.state = words.next()[0];
    } else if (key == "Tgid") {
      status.tgid.value = words.number<int>();
    } else if (key == "PPid") {
      status.parent.value = words.number<int>();
    } else if (key == "TracerPid") {
      status.tracer.value = words.number<int>();
    } else if (key == "Uid") {
      for (auto& id : status.uids) id = words.number<uint32_t>();
    } else if (key == "Gid") {
      for (auto& id : status.gids) id = words.number<uint32_t>();
    } else if (key == "Groups") {
      for (std::string_view word = words.next(); !word.empty(); word = words.next()) {
        uint32_t group = 0;
        std::from_chars(word.data(), word.data() + word.size(), group);
        status.groups.push_back(group);
      }
    } else if (key == "NStgid") {
      take_levels(words, status.levels, &TaskNumbers::tgid);
    } else if (key == "NSpid") {
      take_levels(words, status.levels, &TaskNumbers::tid);
    } else if (key == "NSpgid") {
      take_levels(words, status.levels, &TaskNumbers::group);
    } else if (key == "NSsid") {
      take_levels(words, status.levels, &TaskNumbers::session);
    } else if (key == "SigPnd") {
      status.pending = hex();
    } else if (key == "ShdPnd") {
      status.shared_pending = hex();
    } else if (key == "SigBlk") {
      status.blocked = hex();
    } else if (key == "SigIgn") {
      status.ignored = hex();
    } else if (key == "SigCgt") {
      status.caught = hex();
    } else if (key == "CapInh") {
      status.cap_inheritable = hex();
    } else if (key == "CapPrm") {
      status.cap_permitted = hex();
    } else if (key == "CapEff") {
      status.cap_effective = hex();
    } else if (key == "CapBnd") {
      status.cap_bounding = hex();
    } else if (key == "CapAmb") {
      status.cap_ambient = hex();
    } else if (key == "NoNewPrivs") {
      status.no_new_privs = words.number<int>() != 0;
    } else if (key == "Seccomp") {
      status.seccomp = words.number<int>();
    } else if (key == "Seccomp_filters") {
      status.seccomp_filters = words.number<int>();
    } else if (key == "THP_enabled") {
      status.thp_enabled = words.number<int>() != 0;
    } else if (key == "voluntary_ctxt_switches") {
      status.voluntary_switches = words.number<uint64_t>();
    } else if (key == "VmLck") {
      status.locked_kib = words.number<uint64_t>();
    } else if (key == "RssAnon") {
      status.anonymous_kib = words.number<uint64_t>();
    } else if (key == "Threads") {
      status.threads = words.number<int>();
    }
  });
  status.namespace_depth = status.levels.size();
  status.choose_level(status.namespace_depth);
  return status;
}

void TaskStatus::choose_level(size_t level) {
  if (levels.empty()) return;
  const TaskNumbers& numbers = levels[std::min(level, levels.size() - 1)];
  ns_tid = numbers.tid;
  ns_tgid = numbers.tgid;
  ns_group = numbers.group;
  ns_session = numbers.session;
}

Result<TaskStat> read_stat(HostTid task) {
  STASIS_TRY(std::string text, read_proc_record(task, "stat"));
  TaskStat stat;
  // The command may contain anything, also ") R": its end is the last parenthesis.
  size_t open = text.find('(');
  size_t close = text.rfind(')');
  if (open == std::string::npos || close == std::string::npos) {
    return Error{"read the task's state", fmt::format("/proc/{}/stat", task), "unexpected format", {}};
  }
  stat.comm = text.substr(open + 1, close - open - 1);
  Words words(std::string_view(text).substr(close + 1));
  stat.state = words.next()[0];             // 3
  stat.parent.value = words.number<int>();  // 4
  stat.group = words.number();              // 5
  stat.session = words.number();            // 6
  stat.terminal = words.number();           // 7
  stat.foreground_group = words.number();   // 8
  stat.flags = words.number<uint64_t>();    // 9
  for (int field = 10; field <= 21; ++field) words.next();
  stat.start_time = words.number<uint64_t>();  // 22
  for (int field = 23; field <= 25; ++field) words.next();
  stat.start_code = words.number<uint64_t>();   // 26
  stat.end_code = words.number<uint64_t>();     // 27
  stat.start_stack = words.number<uint64_t>();  // 28
  for (int field = 29; field <= 37; ++field) words.next();
  stat.exit_signal = words.number<int32_t>();  // 38
  stat.processor = words.number<int32_t>();    // 39
  for (int field = 40; field <= 44; ++field) words.next();
  stat.start_data = words.number<uint64_t>();  // 45
  stat.end_data = words.number<uint64_t>();
  stat.start_brk = words.number<uint64_t>();
  stat.arg_start = words.number<uint64_t>();
  stat.arg_end = words.number<uint64_t>();
  stat.env_start = words.number<uint64_t>();
  stat.env_end = words.number<uint64_t>();   // 51
  stat.exit_code = words.number<int32_t>();  // 52
  return stat;
}

uint64_t terminal_device(int64_t terminal) {
  auto value = static_cast<uint32_t>(terminal);
  return makedev((value >> 8) & 0xfff, (value & 0xff) | ((value >> 12) & 0xfff00));
}

std::optional<ScheduleMoment> read_schedule_moment(HostTid task) {
  auto text = read_proc_record(task, "sched");
  if (!text.ok()) return std::nullopt;
  ScheduleMoment moment;
  bool found = false;
  for_each_line(*text, [&](std::string_view line) {
    size_t colon = line.find(':');
    if (colon == std::string_view::npos) return;
    Words words(line.substr(colon + 1));
    if (line.starts_with("se.exec_start")) {
      // Milliseconds with six decimals.
      std::string_view value = words.next();
      size_t point = value.find('.');
      int64_t whole = 0;
      int64_t part = 0;
      std::from_chars(value.data(), value.data() + std::min(point, value.size()), whole);
      if (point != std::string_view::npos)
        std::from_chars(value.data() + point + 1, value.data() + value.size(), part);
      moment.exec_start_ns = whole * 1'000'000 + part;
      found = true;
    } else if (line.starts_with("nr_voluntary_switches")) {
      moment.voluntary_switches = words.number<uint64_t>();
    }
  });
  if (!found) return std::nullopt;
  return moment;
}

Result<std::vector<MapsEntry>> read_maps(HostTid task) {
  STASIS_TRY(std::string text, read_proc(task, "maps"));
  return parse_maps(text);
}

Result<uint64_t> mapped_pages(HostTid task) {
  STASIS_TRY(std::string text, read_proc_record(task, "statm"));
  return std::strtoull(text.c_str(), nullptr, 10);
}

bool MappingFlags::has(std::string_view flag) const {
  return std::find(flags.begin(), flags.end(), flag) != flags.end();
}

namespace {

// struct procmap_query of linux/fs.h, which Debian 12's headers do not have.
struct MapQuery {
  uint64_t size = sizeof(MapQuery);
  uint64_t query_flags = 0;
  uint64_t query_address = 0;
  uint64_t start = 0, end = 0;
  uint64_t flags = 0;
  uint64_t page_size = 0;
  uint64_t offset = 0;
  uint64_t inode = 0;
  uint32_t device_major = 0, device_minor = 0;
  uint32_t name_size = 0, build_id_size = 0;
  uint64_t name_address = 0, build_id_address = 0;
};
constexpr unsigned long kMapQuery = _IOWR('f', 17, MapQuery);  // PROCMAP_QUERY
constexpr uint64_t kReadable = 1, kWritable = 2, kExecutable = 4, kShared = 8;
constexpr uint64_t kCoveringOrNext = 0x10;

}  // namespace

Result<std::vector<MapsEntry>> mappings_between(HostTid task, uint64_t start, uint64_t end) {
  STASIS_TRY(Fd maps, open_proc(task, "maps", O_RDONLY));
  std::vector<MapsEntry> found;
  for (uint64_t at = start; at < end;) {
    MapQuery query;
    query.query_flags = kCoveringOrNext;
    query.query_address = at;
    if (::ioctl(maps.get(), kMapQuery, &query) != 0) {
      if (errno == ENOENT) break;  // nothing from here on
      if (errno == EINTR) continue;
      STASIS_TRY(auto all, read_maps(task));
      std::erase_if(all, [&](const auto& entry) { return entry.end <= start || entry.start >= end; });
      return all;
    }
    if (query.start >= end) break;
    MapsEntry entry;
    entry.start = query.start;
    entry.end = query.end;
    entry.protection = ((query.flags & kReadable) != 0 ? PROT_READ : 0) |
                       ((query.flags & kWritable) != 0 ? PROT_WRITE : 0) |
                       ((query.flags & kExecutable) != 0 ? PROT_EXEC : 0);
    entry.shared = (query.flags & kShared) != 0;
    entry.offset = query.offset;
    entry.device = makedev(query.device_major, query.device_minor);
    entry.inode = query.inode;
    found.push_back(std::move(entry));
    at = query.end;
  }
  return found;
}

uint64_t auxiliary_value(HostTid task, uint64_t type) {
  auto auxv = read_proc(task, "auxv");
  if (!auxv.ok()) return 0;
  for (size_t at = 0; at + 16 <= auxv->size(); at += 16) {
    uint64_t pair[2];
    std::memcpy(pair, auxv->data() + at, sizeof pair);
    if (pair[0] == type) return pair[1];
  }
  return 0;
}

Result<std::vector<MappingFlags>> read_mapping_flags(HostTid task) {
  STASIS_TRY(std::string text, read_proc(task, "smaps"));
  std::vector<MappingFlags> all;
  for_each_line(text, [&](std::string_view line) {
    if (line.starts_with("VmFlags:") && !all.empty()) {
      Words words(line.substr(8));
      for (std::string_view word = words.next(); !word.empty(); word = words.next()) {
        all.back().flags.emplace_back(word);
      }
    } else if ((line.starts_with("Rss:") || line.starts_with("Swap:")) && !all.empty()) {
      Words words(line.substr(line.find(':') + 1));
      all.back().used += words.number<uint64_t>() * 1024;
    } else if (line.starts_with("KernelPageSize:") && !all.empty()) {
      Words words(line.substr(15));
      all.back().page_size = words.number<uint64_t>() * 1024;
    } else if (size_t dash = line.find('-');
               dash != std::string_view::npos && dash <= 16 && line.find(':') > line.find(' ')) {
      MappingFlags mapping;
      const char* end = line.data() + line.size();
      auto parsed = std::from_chars(line.data(), end, mapping.start, 16);
      if (*parsed.ptr != '-') return;
      std::from_chars(parsed.ptr + 1, end, mapping.end, 16);
      all.push_back(std::move(mapping));
    }
  });
  return all;
}

Result<std::vector<int>> list_numbers(const std::string& directory) {
  Fd fd(
      ::openat(host_proc(), directory.empty() ? "." : directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return errno_error("list", "/proc/" + directory);
  std::vector<int> numbers;
  // Without opendir(), which asks the kernel three questions more, for each of hundreds of processes.
  alignas(dirent64) std::array<char, 16384> entries;
  for (;;) {
    const long size = ::syscall(SYS_getdents64, fd.get(), entries.data(), entries.size());
    if (size < 0) return errno_error("list", "/proc/" + directory);
    if (size == 0) break;
    for (long at = 0; at < size;) {
      const auto* entry = reinterpret_cast<const dirent64*>(entries.data() + at);
      at += entry->d_reclen;
      int number = 0;
      const std::string_view name = entry->d_name;
      auto parsed = std::from_chars(name.data(), name.data() + name.size(), number);
      if (parsed.ec == std::errc() && parsed.ptr == name.data() + name.size()) numbers.push_back(number);
    }
  }
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

int newest_task() {
  auto text = read_file(host_proc(), "loadavg");
  const size_t last = text.ok() ? text->rfind(' ') : std::string::npos;
  return last == std::string::npos ? 0 : std::atoi(text->c_str() + last + 1);
}

std::optional<uint64_t> pid_namespace(HostTid task) {
  struct stat status = {};
  std::string path = fmt::format("{}/ns/pid", task.value);
  if (::fstatat(host_proc(), path.c_str(), &status, 0) != 0) return std::nullopt;
  return status.st_ino;
}

namespace {

std::string offset_line(const char* clock, int64_t offset_ns) {
  constexpr int64_t kSecond = 1'000'000'000;
  int64_t seconds = offset_ns / kSecond, nanoseconds = offset_ns % kSecond;
  if (nanoseconds < 0) {  // the kernel wants 0 <= nanoseconds, also for negative offsets
    nanoseconds += kSecond;
    --seconds;
  }
  return fmt::format("{} {} {}\n", clock, seconds, nanoseconds);
}

}  // namespace

std::string clock_offsets_text(const ClockOffsets& offsets) {
  return offset_line("monotonic", offsets.monotonic_ns) + offset_line("boottime", offsets.boottime_ns);
}

Result<ClockOffsets> read_clock_offsets(HostTid task) {
  STASIS_TRY(std::string text, read_proc(task, "timens_offsets"));
  ClockOffsets offsets;
  for_each_line(text, [&](std::string_view line) {
    Words words(line);
    std::string_view clock = words.next();
    auto seconds = words.number();
    auto nanoseconds = words.number();
    int64_t total = seconds * 1'000'000'000 + nanoseconds;
    if (clock == "monotonic" || clock == "1") offsets.monotonic_ns = total;
    if (clock == "boottime" || clock == "7") offsets.boottime_ns = total;
  });
  return offsets;
}

}  // namespace stasis::kernel
