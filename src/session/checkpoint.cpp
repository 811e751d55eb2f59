#include "session/checkpoint.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <memory>

#include "image/store.h"
#include "kernel/proc.h"
#include "plugin/plugins.h"
#include "restore/topology.h"
#include "session/opengl.h"
#include "session/tracking_keeper.h"

namespace stasis::session {
namespace {

// The file that tells the supervisor why its session ended. It stays when the stop succeeded, until the next
// start.
class StopMarker {
 public:
  static Result<StopMarker> set(const std::string& directory) {
    StopMarker marker(directory + "/stopping");
    STASIS_TRY(Fd file, open_file(marker.path_, O_WRONLY | O_CREAT, 0600));
    return marker;
  }
  StopMarker(StopMarker&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  StopMarker& operator=(StopMarker&&) = delete;
  ~StopMarker() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  void keep() { path_.clear(); }

 private:
  explicit StopMarker(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

checkpoint::Request engine_request(const Record& record, const CheckpointRequest& request,
                                   const std::string& directory) {
  checkpoint::Request engine;
  engine.approve = restore::check_order_of_births;
  engine.scope = freeze::Scope::session(record.init);
  engine.root = record.root;
  engine.session = record.name;
  engine.store = record.store + "/" + record.name;
  engine.tag = request.tag;
  engine.deadlines = directory + "/" + kDeadlinesFile;
  engine.stop = request.stop;
  if (!request.full) engine.base = find_base(record);
  engine.command = record.command;
  engine.streams.terminal = record.terminal_device;
  for (size_t i = 0; i < record.stdio.size(); ++i) {
    const Stdio& one = record.stdio[i];
    engine.streams.stdio[i] = {one.outside, one.device, one.inode};
  }
  engine.user_namespace = record.user_namespace;
  engine.private_network = record.private_network;
  engine.display = record.display;
  engine.opengl = record.opengl;
  if (record.opengl) {
    engine.participants.emplace_back([directory] { return std::make_unique<OpenGlSave>(directory); });
  }
  engine.plugins = record.plugins;
  for (const std::string& name : record.plugins) {
    if (const auto* plugin = plugin::find(name))
      engine.participants.emplace_back([plugin] { return plugin->participate(); });
  }
  engine.files.mode = request.files.value_or(record.files.mode);
  engine.files.limit = request.files_limit.value_or(record.files.limit);
  engine.progress = request.progress;
  return engine;
}

// Who is in the user namespace of the session has the rights in it that its owner has from outside, and those
// to enter other namespaces of it.
void enter_user_namespace(const Record& record) {
  if (!record.user_namespace || ::geteuid() == 0) return;
  auto place = kernel::open_proc(record.init, "ns/user", O_RDONLY);
  // Without it what needs these rights is refused.
  if (!place.ok() || ::setns(place->get(), CLONE_NEWUSER) != 0) return;
  ::prctl(PR_SET_DUMPABLE, 1);
}

}  // namespace

// Any would do, since pages are compared, and none at all is no failure.
std::string find_base(const Record& record) {
  const auto newest = image::newest(record.store + "/" + record.name);
  const bool of_this_run = newest && newest->created_ns >= record.started_ns;
  if (!record.image.empty() && !of_this_run) return record.image;
  return newest ? newest->directory : std::string();
}

Result<checkpoint::Report> checkpoint_session(const CheckpointRequest& request) {
  STASIS_TRY(Record found, load_live_record(request.name));
  STASIS_TRY(SessionLock lock, SessionLock::take(request.name, kCheckpointPurpose));
  STASIS_TRY(Record record, load_live_record(request.name));  // it may have ended while we waited for nobody
  STASIS_TRY(std::string directory, session_directory(request.name));
  STASIS_CHECK(make_directories(record.store + "/" + record.name));

  std::optional<StopMarker> marker;
  ::unlink((directory + "/stopping").c_str());  // of a checkpoint that was killed
  if (request.stop) {
    auto set = StopMarker::set(directory);
    if (!set.ok()) return std::move(set).error();
    marker.emplace(std::move(set).value());
  }
  checkpoint::Request engine = engine_request(record, request, directory);
  checkpoint::Tracking tracking = take_tracking(directory);
  engine.tracking = &tracking;
  enter_user_namespace(record);
  auto report = checkpoint::run(engine);
  // Also after a failure: what it says is true, and trackers that nobody has end for the program as well,
  // which takes time.
  if (!report.ok() || !request.stop) leave_tracking(directory, tracking);
  if (report.ok() && marker) marker->keep();
  return report;
}

bool is_stopping(const std::string& name) {
  auto directory = session_directory(name);
  return directory.ok() && ::access((*directory + "/stopping").c_str(), F_OK) == 0;
}

}  // namespace stasis::session
