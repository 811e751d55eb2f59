#include "session/foreign.h"

#include <unistd.h>

#include <optional>

#include "base/clock.h"
#include "image/store.h"
#include "kernel/proc.h"
#include "restore/topology.h"
#include "session/names.h"
#include "session/namespaces.h"
#include "session/record.h"

namespace stasis::session {
namespace {

constexpr uint64_t kKernelThread = 0x00200000;  // PF_KTHREAD

// The session in whose pid namespace the process is, if it is one of ours.
std::optional<std::string> session_of(HostTid process) {
  auto records = all_records();
  const auto theirs = kernel::pid_namespace(process);
  if (!records.ok()) return {};
  for (const Record& record : *records) {
    if (!is_alive(record)) continue;
    if (process == record.init || (theirs && kernel::pid_namespace(record.init) == theirs))
      return record.name;
  }
  return {};
}

// Returns the program's name.
Result<std::string> examine(HostTid root) {
  auto status = kernel::read_status(root);
  auto stat = kernel::read_stat(root);
  if (!status.ok() || !stat.ok())
    return Error{
        "checkpoint", fmt::format("process {}", root), "there is no such process", {}, ErrorCode::kNotFound};
  auto refuse = [&](std::string cause, std::string hint) {
    return Error{"checkpoint", fmt::format("process {} ({})", root, status->name), std::move(cause),
                 std::move(hint), ErrorCode::kRefused};
  };
  if (status->tgid != root)
    return refuse(fmt::format("it is a thread of process {}", status->tgid),
                  fmt::format("--pid {} saves the whole process", status->tgid));
  if ((stat->flags & kKernelThread) != 0) return refuse("it is a thread of the kernel", {});
  if (root.value == 1) return refuse("it is the first process of the system, from which all descend", {});
  if (stat->state == 'Z' || stat->state == 'X') return refuse("it has ended", {});
  if (auto name = session_of(root))
    return refuse(fmt::format("it belongs to the session {}", *name), "stasis checkpoint " + *name);
  if (status->namespace_depth != 1)
    return refuse("it is in another pid namespace (a container, or the session of another user)",
                  "save it from inside of the container, or as that user by the session's name");
  return status->name;
}

std::vector<std::string> command_of(HostTid root) {
  std::vector<std::string> command;
  auto text = kernel::read_proc(root, "cmdline");
  if (!text.ok()) return command;
  for (size_t start = 0; start < text->size();) {
    const size_t end = std::min(text->find('\0', start), text->size());
    command.push_back(text->substr(start, end - start));
    start = end + 1;
  }
  return command;
}

// What is known of the same process from an earlier checkpoint, under the wanted name or any.
std::optional<Record> earlier_record(HostTid root, const std::string& name) {
  auto records = all_records();
  if (!records.ok()) return {};
  for (Record& record : *records) {
    if (!name.empty() && record.name != name) continue;
    if (record.origin == root && origin_runs(record) && !is_alive(record)) return std::move(record);
  }
  return {};
}

// The session's directory, and that of its checkpoints, which go again when nothing comes into them.
class Places {
 public:
  static Result<Places> make(const std::string& name, const std::string& store) {
    Places places;
    STASIS_TRY(places.session_, session_directory(name));
    places.store_ = store + "/" + name;
    places.is_new_ = !load_record(name).ok();
    STASIS_CHECK(make_directories(places.store_));
    return places;
  }
  Places(Places&& other) noexcept
      : session_(std::move(other.session_)),
        store_(std::move(other.store_)),
        is_new_(std::exchange(other.is_new_, false)) {}
  Places& operator=(Places&&) = delete;
  ~Places() {
    if (!is_new_) return;
    ::rmdir(store_.c_str());  // fails, rightly, when something is in it
    for (const char* name : {kDeadlinesFile, "lock"}) ::unlink((session_ + "/" + name).c_str());
    ::rmdir(session_.c_str());
  }
  void keep() { is_new_ = false; }
  const std::string& session() const { return session_; }
  const std::string& store() const { return store_; }

 private:
  Places() = default;
  std::string session_, store_;
  bool is_new_ = false;
};

}  // namespace

Result<ForeignSaved> checkpoint_foreign(const ForeignRequest& request) {
  STASIS_TRY(const std::string program, examine(request.root));
  const CheckpointRequest& common = request.common;
  const auto earlier = earlier_record(request.root, common.name);
  std::string store = request.store.empty() && earlier ? earlier->store : request.store;
  STASIS_TRY(store, absolute_store(store));
  const std::string& wanted = common.name.empty() && earlier ? earlier->name : common.name;
  STASIS_TRY(ClaimedName claimed, claim_name(wanted, program, store, kCheckpointPurpose));
  STASIS_TRY(Places places, Places::make(claimed.name, store));

  Record record;
  // The settings of a session of this name that has ended; nothing else of it.
  if (auto known = load_record(claimed.name); known.ok()) {
    record.interval_ns = known->interval_ns;
    record.keep = known->keep;
    record.files = known->files;
  }
  record.name = claimed.name;
  record.root = NsTid{request.root.value};
  record.store = store;
  record.command = command_of(request.root);
  record.started_ns = clock_ns(CLOCK_REALTIME);
  STASIS_CHECK(identify_origin(record, request.root));

  checkpoint::Request engine;
  engine.approve = restore::check_order_of_births;
  engine.scope = freeze::Scope::program(request.root);
  engine.root = record.root;
  engine.session = record.name;
  engine.store = places.store();
  engine.tag = common.tag;
  engine.deadlines = places.session() + "/" + kDeadlinesFile;
  engine.stop = common.stop;
  if (!common.full) engine.base = find_base(record);
  engine.command = record.command;
  // Whether a restart by the same user will make one.
  engine.user_namespace = needs_user_namespace();
  engine.files.mode = common.files.value_or(record.files.mode);
  engine.files.limit = common.files_limit.value_or(record.files.limit);
  engine.progress = common.progress;
  STASIS_TRY(checkpoint::Report report, checkpoint::run(engine));
  places.keep();
  STASIS_CHECK(save_record(record));
  return ForeignSaved{record.name, std::move(report)};
}

}  // namespace stasis::session
