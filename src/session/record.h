// What is known of a session outside of it: <state>/sessions/NAME/session.json and its neighbours.
//
//   session.json   the record, replaced atomically; it stays when the session has ended, so that `restart`
//                  finds the store of the last one
//   lock           locked by whoever starts, saves or restarts the session; holds "PID: what"
//   exit           the wait status of the root process, once it has ended
//   stopping       exists while `checkpoint --stop` may end the session: tells the supervisor why it ended
//   terminal.sock  where init hands out the terminal (terminal_server.h)
//   tracking.sock  where it keeps what checkpoints know of changes of memory (tracking_keeper.h)
//   deadlines      when the sleeps end that the last freeze interrupted (remote/interrupted.h)
//   display        of a session with a private X server: its socket and the cookie (display.h)
//   opengl.log     what has gone wrong beside a session that uses OpenGL
//   log            what the interval checkpoints had to say
//   interval-failure  why the last of them failed (interval.h)
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/file_capture.h"
#include "schema/manifest.pb.h"
#include "stasis/fd.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::session {

// What launch's 0, 1 or 2 was when it came from outside of the session and cannot be opened again by name.
struct Stdio {
  bool outside = false;
  uint64_t device = 0;
  uint64_t inode = 0;
  std::string type;  // "pipe", "socket"
};

struct Record {
  std::string name;
  HostTid init;
  uint64_t init_start =
      0;              // field 22 of /proc/PID/stat: detects that the number belongs to somebody else now
  std::string boot;   // the boot that init belongs to
  NsTid root;         // the process whose exit status is the session's
  std::string store;  // holds NAME/ID
  std::vector<std::string> command;
  uint64_t terminal_device = 0;  // st_rdev of the slave of the session's terminal; 0: it has none
  std::array<Stdio, 3> stdio;
  bool user_namespace = false;
  int64_t interval_ns = 0;  // 0: no interval checkpoints
  uint32_t keep = 0;        // of those made by interval; 0: all
  int64_t started_ns = 0;   // real time
  std::string image;        // directory of the checkpoint from which it was restarted; empty: from none
  checkpoint::FilePolicy files;
  std::optional<schema::Display> display;  // its private X server
  bool opengl = false;                     // is recorded
  std::vector<std::string> plugins;        // with which it was launched
  bool private_network = false;            // it has a network of its own
  // Of a program that was not launched: the process that was saved, which may still run beside what was
  // restarted; of the same `boot`. 0: it was launched.
  HostTid origin;
  uint64_t origin_start = 0;  // as init_start
};

// [A-Za-z0-9._-]{1,64}, not starting with '-' or '.'.
Result<void> check_name(const std::string& name);
// The name of a session that runs `program`: its base name, made valid.
std::string name_for_program(const std::string& program);

// <state>/sessions/NAME
Result<std::string> session_directory(const std::string& name);

// kNotFound when there is no such session.
Result<Record> load_record(const std::string& name);
Result<void> save_record(const Record& record);

// A record that is on disk but not yet the session's; gone unless published.
class RecordDraft {
 public:
  static Result<RecordDraft> write(const Record& record);
  RecordDraft(RecordDraft&& other) noexcept;
  RecordDraft& operator=(RecordDraft&&) = delete;
  ~RecordDraft();
  Result<void> publish();

 private:
  explicit RecordDraft(std::string path);
  std::string path_, draft_;
};

// All that have a record, sorted by name, also those that have ended. Unreadable ones are left out.
Result<std::vector<Record>> all_records();

// Fills in what identifies the init that runs now.
Result<void> identify_init(Record& record, HostTid init);
bool is_alive(const Record& record);
// The same for the program that was saved without having been launched.
Result<void> identify_origin(Record& record, HostTid origin);
bool origin_runs(const Record& record);
// The record of a session that runs; kNotFound with a hint otherwise.
Result<Record> load_live_record(const std::string& name);

inline constexpr const char* kDeadlinesFile = "deadlines";

inline constexpr const char* kCheckpointPurpose = "checkpoint";
inline constexpr const char* kStartPurpose = "start";

// Exclusive work on a session. Holds <session>/lock until destroyed; kBusy, with who, when somebody else has
// it. Creates the session's directory.
class SessionLock {
 public:
  static Result<SessionLock> take(const std::string& name, const std::string& purpose);
  // What somebody holds it for.
  static std::optional<std::string> purpose_of_holder(const std::string& name);
  SessionLock(SessionLock&&) = default;
  SessionLock& operator=(SessionLock&&) = delete;
  ~SessionLock() { release(); }
  // For all processes that inherited it: a child must not keep a session locked.
  void release();

 private:
  static Result<SessionLock> take_over(Fd fd, const std::string& name, const std::string& purpose);
  explicit SessionLock(Fd fd) : fd_(std::move(fd)) {}
  Fd fd_;
};

// Creates a directory and its parents, 0700.
Result<void> make_directories(const std::string& path);

}  // namespace stasis::session
