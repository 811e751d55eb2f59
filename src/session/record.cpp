#include "session/record.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>

#include "image/store.h"
#include "kernel/proc.h"

namespace stasis::session {
namespace {

using nlohmann::json;

constexpr size_t kLongestName = 64;
constexpr size_t kLargestRecord = 1 << 20;

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
         c == '+' || c == '-';
}

std::string boot_id() {
  auto text = read_file(kernel::host_proc(), "sys/kernel/random/boot_id", 64);
  if (!text.ok()) return {};
  while (!text->empty() && text->back() == '\n') text->pop_back();
  return *text;
}

json plain_to_json(const Record& record) {
  json stdio = json::array();
  for (const Stdio& one : record.stdio)
    stdio.push_back(
        {{"outside", one.outside}, {"device", one.device}, {"inode", one.inode}, {"type", one.type}});
  return {{"version", 1},
          {"name", record.name},
          {"init_pid", record.init.value},
          {"init_start", record.init_start},
          {"boot", record.boot},
          {"root_pid", record.root.value},
          {"store", record.store},
          {"command", record.command},
          {"terminal_device", record.terminal_device},
          {"stdio", stdio},
          {"user_namespace", record.user_namespace},
          {"interval_ns", record.interval_ns},
          {"keep", record.keep},
          {"started_ns", record.started_ns},
          {"image", record.image},
          {"files", checkpoint::file_mode_name(record.files.mode)},
          {"files_limit", record.files.limit},
          {"opengl", record.opengl},
          {"plugins", record.plugins},
          {"private_network", record.private_network},
          {"origin_pid", record.origin.value},
          {"origin_start", record.origin_start}};
}

json to_json(const schema::Display& display) {
  std::string cookie;
  for (char byte : display.cookie()) cookie += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return {{"number", display.number()}, {"server_pid", display.server()}, {"width", display.width()},
          {"height", display.height()}, {"vnc", display.vnc()},           {"cookie", cookie}};
}

schema::Display display_from_json(const json& value) {
  schema::Display display;
  display.set_number(value.at("number").get<uint32_t>());
  display.set_server(value.at("server_pid").get<int32_t>());
  display.set_width(value.at("width").get<uint32_t>());
  display.set_height(value.at("height").get<uint32_t>());
  display.set_vnc(value.value("vnc", false));
  const auto cookie = value.at("cookie").get<std::string>();
  for (size_t i = 0; i + 1 < cookie.size(); i += 2)
    display.mutable_cookie()->push_back(
        static_cast<char>(std::strtoul(cookie.substr(i, 2).c_str(), nullptr, 16)));
  return display;
}

json to_json(const Record& record) {
  json value = plain_to_json(record);
  if (record.display) value["display"] = to_json(*record.display);
  return value;
}

Record from_json(const json& value) {
  Record record;
  value.at("name").get_to(record.name);
  value.at("init_pid").get_to(record.init.value);
  value.at("init_start").get_to(record.init_start);
  value.at("boot").get_to(record.boot);
  value.at("root_pid").get_to(record.root.value);
  value.at("store").get_to(record.store);
  value.at("command").get_to(record.command);
  value.at("terminal_device").get_to(record.terminal_device);
  const json& stdio = value.at("stdio");
  for (size_t i = 0; i < record.stdio.size(); ++i) {
    const json& one = stdio.at(i);
    one.at("outside").get_to(record.stdio[i].outside);
    one.at("device").get_to(record.stdio[i].device);
    one.at("inode").get_to(record.stdio[i].inode);
    one.at("type").get_to(record.stdio[i].type);
  }
  value.at("user_namespace").get_to(record.user_namespace);
  value.at("interval_ns").get_to(record.interval_ns);
  value.at("keep").get_to(record.keep);
  value.at("started_ns").get_to(record.started_ns);
  record.image = value.value("image", std::string());
  auto mode = checkpoint::parse_file_mode(value.value("files", "auto"));
  record.files.mode = mode.value_or(checkpoint::FileMode::kAuto);
  record.files.limit = value.value("files_limit", checkpoint::kFilesLimit);
  record.opengl = value.value("opengl", false);
  record.plugins = value.value("plugins", std::vector<std::string>());
  record.private_network = value.value("private_network", false);
  record.origin = HostTid{value.value("origin_pid", 0)};
  record.origin_start = value.value("origin_start", uint64_t{0});
  if (value.contains("display")) record.display = display_from_json(value.at("display"));
  return record;
}

// Whether the number is still that of the process that began then.
bool runs(HostTid process, uint64_t start) {
  if (process.value <= 0) return false;
  auto stat = kernel::read_stat(process);
  return stat.ok() && stat->start_time == start && stat->state != 'Z' && stat->state != 'X';
}

Result<uint64_t> start_time_of(HostTid process) {
  STASIS_TRY(kernel::TaskStat stat, kernel::read_stat(process));
  return stat.start_time;
}

Result<std::string> sessions_directory() {
  STASIS_TRY(std::string state, image::state_directory());
  return state + "/sessions";
}

}  // namespace

Result<void> check_name(const std::string& name) {
  bool valid = !name.empty() && name.size() <= kLongestName && name.front() != '-' && name.front() != '.' &&
               name.front() != '+' && std::all_of(name.begin(), name.end(), is_name_character);
  if (valid) return {};
  return Error{"name the session", name, "not a valid name",
               "use up to 64 letters, digits, '.', '_', '+' and '-', beginning with a letter, a digit or '_'",
               ErrorCode::kUsage};
}

std::string name_for_program(const std::string& program) {
  std::string name = program.substr(program.rfind('/') + 1);
  // Room for a number behind it.
  if (name.size() > kLongestName - 8) name.resize(kLongestName - 8);
  for (char& c : name)
    if (!is_name_character(c)) c = '_';
  while (!name.empty() && (name.front() == '-' || name.front() == '.' || name.front() == '+'))
    name.erase(0, 1);
  return name.empty() ? "session" : name;
}

Result<std::string> session_directory(const std::string& name) {
  STASIS_CHECK(check_name(name));
  STASIS_TRY(std::string sessions, sessions_directory());
  return sessions + "/" + name;
}

Result<void> make_directories(const std::string& path) {
  for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    std::string part = path.substr(0, end);
    if (::mkdir(part.c_str(), 0700) < 0 && errno != EEXIST) return errno_error("create directory", part);
    if (end == std::string::npos) return {};
  }
}

Result<Record> load_record(const std::string& name) {
  STASIS_TRY(std::string directory, session_directory(name));
  auto text = read_file(directory + "/session.json", kLargestRecord);
  if (!text.ok()) {
    Error error = std::move(text).error();
    if (error.code == ErrorCode::kNotFound) {
      error.step = "find session";
      error.object = name;
      error.cause = "no such session";
      error.hint = "'stasis ps' lists those that run, 'stasis list' those with checkpoints";
    }
    return error;
  }
  json value = json::parse(*text, nullptr, /*allow_exceptions=*/false);
  try {
    return from_json(value);
  } catch (const json::exception& problem) {
    return Error{"read the record of session", name, problem.what(),
                 "remove " + directory + "/session.json if the session does not run", ErrorCode::kDamaged};
  }
}

Result<RecordDraft> RecordDraft::write(const Record& record) {
  STASIS_TRY(std::string directory, session_directory(record.name));
  STASIS_CHECK(make_directories(directory));
  RecordDraft draft(directory + "/session.json");
  STASIS_TRY(Fd file, open_file(draft.draft_, O_WRONLY | O_CREAT | O_TRUNC, 0600));
  // Arguments are any bytes, JSON is UTF-8: what is not is shown replaced, since it is for people only.
  auto written =
      write_all(file.get(), to_json(record).dump(2, ' ', false, json::error_handler_t::replace) + "\n");
  if (!written.ok()) return std::move(written).error().within("write " + draft.draft_);
  return draft;
}

RecordDraft::RecordDraft(std::string path)
    : path_(std::move(path)), draft_(fmt::format("{}.{}", path_, ::getpid())) {}

RecordDraft::RecordDraft(RecordDraft&& other) noexcept
    : path_(std::move(other.path_)), draft_(std::exchange(other.draft_, {})) {}

RecordDraft::~RecordDraft() {
  if (!draft_.empty()) ::unlink(draft_.c_str());
}

Result<void> RecordDraft::publish() {
  if (::rename(draft_.c_str(), path_.c_str()) < 0) return errno_error("replace", path_);
  draft_.clear();
  return {};
}

Result<void> save_record(const Record& record) {
  STASIS_TRY(RecordDraft draft, RecordDraft::write(record));
  return draft.publish();
}

Result<std::vector<Record>> all_records() {
  STASIS_TRY(std::string sessions, sessions_directory());
  std::vector<Record> records;
  std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(sessions.c_str()), ::closedir);
  if (!directory) {
    if (errno == ENOENT) return records;
    return errno_error("list", sessions);
  }
  while (const dirent* entry = ::readdir(directory.get())) {
    if (!check_name(entry->d_name).ok()) continue;
    auto record = load_record(entry->d_name);
    if (record.ok()) records.push_back(std::move(record).value());
  }
  std::sort(records.begin(), records.end(), [](const Record& a, const Record& b) { return a.name < b.name; });
  return records;
}

Result<void> identify_init(Record& record, HostTid init) {
  STASIS_TRY(record.init_start, start_time_of(init));
  record.init = init;
  record.boot = boot_id();
  return {};
}

Result<void> identify_origin(Record& record, HostTid origin) {
  STASIS_TRY(record.origin_start, start_time_of(origin));
  record.origin = origin;
  record.boot = boot_id();
  return {};
}

bool is_alive(const Record& record) {
  return runs(record.init, record.init_start) && record.boot == boot_id();
}

bool origin_runs(const Record& record) {
  return runs(record.origin, record.origin_start) && record.boot == boot_id();
}

Result<Record> load_live_record(const std::string& name) {
  STASIS_TRY(Record record, load_record(name));
  if (!is_alive(record))
    return Error{"find session", name, "it does not run any more",
                 fmt::format("'stasis restart {}' continues from its newest checkpoint, if it has one", name),
                 ErrorCode::kNotFound};
  return record;
}

namespace {

constexpr int kMomentsOfTheDead = 200;

// "PID: what", as the lock has it.
bool is_there(const std::string& holder) {
  const int pid = std::atoi(holder.c_str());
  return pid <= 0 || ::kill(pid, 0) == 0 || errno != ESRCH;
}

}  // namespace

Result<SessionLock> SessionLock::take(const std::string& name, const std::string& purpose) {
  STASIS_TRY(std::string directory, session_directory(name));
  STASIS_CHECK(make_directories(directory));
  std::string path = directory + "/lock";
  STASIS_TRY(Fd fd, open_file(path, O_RDWR | O_CREAT, 0600));
  struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  if (::fcntl(fd.get(), F_OFD_SETLK, &whole) < 0) {
    if (errno != EAGAIN && errno != EACCES) return errno_error("lock", path);
    auto holder = read_all(fd.get(), 256);
    // A start takes milliseconds, and whoever asks for something right after it wants it of the started
    // session.
    bool starting = holder.ok() && purpose != kStartPurpose && holder->ends_with(kStartPurpose);
    // One that was killed may have left a child behind that shares its lock, and ends within a moment.
    for (int i = 0; !starting && i < kMomentsOfTheDead && holder.ok() && !is_there(*holder); ++i) {
      timespec moment{0, 5'000'000};
      ::nanosleep(&moment, nullptr);
      if (::fcntl(fd.get(), F_OFD_SETLK, &whole) == 0) return take_over(std::move(fd), name, purpose);
      holder = read_file(path);
    }
    if (starting && ::fcntl(fd.get(), F_OFD_SETLKW, &whole) == 0)
      return take_over(std::move(fd), name, purpose);
    return Error{purpose + " session", name,
                 fmt::format("somebody else is working on it ({})",
                             holder.ok() && !holder->empty() ? "process " + *holder : "unknown"),
                 "try again when that is done", ErrorCode::kBusy};
  }
  return take_over(std::move(fd), name, purpose);
}

Result<SessionLock> SessionLock::take_over(Fd fd, const std::string& name, const std::string& purpose) {
  // A start that failed removes its directory; then this is the lock of nothing.
  struct stat status;
  if (::fstat(fd.get(), &status) == 0 && status.st_nlink == 0) return take(name, purpose);
  if (::ftruncate(fd.get(), 0) == 0)
    STASIS_CHECK(pwrite_all(fd.get(), fmt::format("{}: {}", ::getpid(), purpose), 0));
  return SessionLock(std::move(fd));
}

void SessionLock::release() {
  // A lock belongs to the open file description, which our children share: closing ours would not release it.
  if (fd_) {
    struct flock whole = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
    ::fcntl(fd_.get(), F_OFD_SETLK, &whole);
  }
  fd_.reset();
}

std::optional<std::string> SessionLock::purpose_of_holder(const std::string& name) {
  auto directory = session_directory(name);
  if (!directory.ok()) return {};
  auto fd = open_file(*directory + "/lock", O_RDONLY);
  if (!fd.ok()) return {};
  // Asking takes nothing, so it never makes somebody else's take() fail, as a trial with flock() would.
  struct flock whole = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
  if (::fcntl(fd->get(), F_OFD_GETLK, &whole) < 0 || whole.l_type == F_UNLCK) return {};
  auto holder = read_all(fd->get(), 256);
  if (!holder.ok()) return std::string();
  size_t colon = holder->find(": ");
  return colon == std::string::npos ? std::string() : holder->substr(colon + 2);
}

}  // namespace stasis::session
