// The interface of a kind of file descriptor: recognise, observe, make, fill, finish.
//
// The life of one open file description:
//   checkpoint, tree frozen:  recognises() -> observe()   reads facts, disturbing nothing; an Error refuses
//   the checkpoint restart, in the builder:  make()       once for each description, before any process of
//   the program exists
//                             fill()       after all are made: contents of pipes and sockets
//   restart, in init:         settle()     what shows whose doing it was: the kernel notes that with a socket
//   restart, in the program:  finish()     in the first owner, when its descriptors have their numbers (epoll
//   sets)
// The builder is an ordinary process in the session's new user and mount namespaces; what it opens is
// inherited by the whole tree, so make() needs no help from the program.
#pragma once

#include <sys/stat.h>

#include <any>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "stasis/fd.h"
#include "stasis/kind.h"
#include "stasis/process.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::resource {

// Whose doing something is to be.
struct Actor {
  NsTid pid;  // 0: somebody who is gone
  uint32_t user = 0;
  uint32_t group = 0;
  auto operator<=>(const Actor&) const = default;
};

struct Queued;  // socket/queue.h

// The facts about one open file description of the frozen tree.
struct OpenFile {
  uint32_t id = 0;          // its number in the image, from 1
  HostTid task;             // the first owner found
  NsTid pid;                // the same for messages
  int number = -1;          // its descriptor number there
  std::string link;         // what /proc/PID/fd/N points to
  struct stat status = {};  // fstat of it
  std::string fdinfo;       // the text of /proc/PID/fdinfo/N
  uint32_t flags = 0;       // O_* as F_GETFL gives them
  int64_t position = 0;
  Fd duplicate;  // our own descriptor of the same description (pidfd_getfd): whatever one does
                 // with it that changes state (reading, seeking, F_SETFL) the program would see
  // Our own descriptor of the directory that the path in `link` counts from; -1: the root directory of
  // `task`.
  int root = -1;
  // Every (process, number) that has it. None: it is in flight in a socket, and `task` and `number` are ours.
  std::vector<std::pair<NsTid, int>> owners;

  // "descriptor 7 of task 42 (pipe:[123])": the object for error messages.
  std::string describe() const;
  // The value after "key:" in fdinfo, trimmed; empty when absent.
  std::string info(std::string_view key) const;

  // What waits in the queue of a socket, when it was looked at: a second look would not find empty messages.
  mutable std::shared_ptr<const std::vector<Queued>> queue;
};

// What observe() may look at beyond its own descriptor.
class Observation {
 public:
  virtual ~Observation() = default;
  // All open file descriptions of the tree; find peers here (by inode or socket cookie).
  virtual const std::vector<std::unique_ptr<OpenFile>>& all() const = 0;
  // The description that `number` refers to in process `pid` (host), if open.
  virtual const OpenFile* find(HostTid pid, int number) const = 0;
  // st_rdev of the slave of the session's own terminal; 0 when it has none.
  virtual uint64_t session_terminal() const = 0;
  // Which of launch's own 0, 1, 2 this is, when it is one that came from outside the session; else nothing.
  virtual std::optional<int> session_stdio(const OpenFile& file) const = 0;
  // A new file in the checkpoint's directory for contents (unlinked files); it is checksummed and verified.
  virtual Result<Fd> create_file(const std::string& name) = 0;
  // The number of the process that SO_PEERCRED shows to the owner of a socket, which may be gone; 0: nobody
  // whom the session could name.
  virtual NsTid peer_process(const OpenFile& socket) const = 0;
  // The number in the session of a task as we see it; 0: it is none of the session's.
  virtual NsTid session_task(HostTid) const { return NsTid{0}; }
  // The description that a descriptor of our own is of (one that was in flight); nullptr: none of the tree.
  virtual const OpenFile* description_of(int own) const;
  // The files of all() by a key that the kind chooses (an inode, an address), built when first asked for: a
  // tree with a thousand connections must not search a thousand files a thousand times. Files with an empty
  // key are left out.
  using Index = std::unordered_multimap<std::string, const OpenFile*>;
  using Key = std::function<std::string(const OpenFile&)>;
  const Index& index(const std::string& name, const Key& key) const;
  // What a kind has found out about all at once, under a name of its own; empty when first asked for.
  std::any& memory(const std::string& name) const { return memories_[name]; }

  // The first owner of a description, to be asked what only it can ask; valid for as long as the observation.
  // An Error when it cannot be asked (a description in flight).
  virtual Result<Process*> owner(const OpenFile& file);

  // Text for the user that does not stop the checkpoint ("the connection to 10.0.0.1:80 will be closed").
  virtual void warn(std::string text) = 0;

 private:
  mutable std::map<std::string, Index> indices_;
  mutable std::map<std::string, std::any> memories_;
};

// What the image says of one description.
struct Record {
  uint32_t id = 0;
  std::string kind;
  std::string payload;  // the kind's serialized message
  uint32_t flags = 0;
  int64_t position = 0;
  std::string shown;  // for messages

  // "pipe (pipe:[123])": the object for error messages.
  std::string describe() const;
};

// The builder's context for make() and fill().
class Making {
 public:
  virtual ~Making() = default;
  virtual const std::vector<Record>& records() const = 0;
  // The builder's descriptor of another description, making it first if need be. Stays owned by the context.
  virtual Result<int> description(uint32_t id) = 0;
  // Gives the descriptor of a description other than the one being made (the other end of a pair). A
  // description that was provided is not made again.
  virtual void provide(uint32_t id, Fd fd) = 0;
  virtual bool provided(uint32_t id) const = 0;
  // State that several descriptions of a kind share while they are made (a pipe's inode). Keys are the kind's
  // own. Kept until the last fill() is done; to be closed before a process of the program exists, else the
  // write end of a pipe that is kept here would hide the end of file from the program.
  virtual std::map<std::string, Fd>& shared_objects() = 0;
  // The same, but kept until the last settle() is done.
  virtual std::map<std::string, Fd>& kept_objects() = 0;
  // The file that stands in for the one with this path at the checkpoint: itself, or a copy of the session's
  // own.
  virtual std::string place_of(const std::string& path) const { return path; }
  // Only in settle(): lets a process that has the number and the ids of the actor, and shares our
  // descriptors, do this and end. It is done when the round is over: one process does all that is one
  // actor's.
  virtual void as(const Actor& actor, std::function<Result<void>()> act) = 0;
  // Does this where a description has to be made: in its network and among its mounts.
  virtual Result<void> within(uint32_t, const std::function<Result<void>()>& act) { return act(); }
  // A file of the checkpoint's directory.
  virtual Result<Fd> open_image_file(const std::string& name) = 0;
  // The slave side of the new session terminal; empty when the restart has none.
  virtual std::string terminal_path() const = 0;
  // Our own 0, 1 or 2, which replaces that of launch.
  virtual int stdio(int which) const = 0;

  // The record with this id, or nullptr.
  const Record* record(uint32_t id) const;
  // The records of one kind by a key that the kind chooses, ascending by id within a key; as
  // Observation::index().
  using Index = std::multimap<std::string, const Record*>;
  using Key = std::function<std::string(const Record&)>;
  const Index& index(std::string_view kind, const std::string& name, const Key& key) const;

 private:
  mutable std::map<std::string, Index> indices_;
  mutable std::unordered_map<uint32_t, const Record*> by_id_;
};

// The first owner's context for finish(): that process, with its memory and its descriptors, standing still.
class Finishing : public Process {
 public:
  // The descriptor's number in the owner.
  virtual int number() const = 0;
  // What the owner calls a task of the session, which may be in another pid namespace; 0: it cannot name it.
  virtual NsTid as_seen(NsTid task) const { return task; }
};

class DescriptorKind {
 public:
  virtual ~DescriptorKind() = default;
  virtual KindInfo info() const = 0;
  // The tree tells what the file alone does not: that a pipe is launch's own output, or a pty the session's
  // terminal.
  virtual bool recognises(const OpenFile& file, const Observation& tree) const = 0;
  // The payload for the image. An Error refuses the whole checkpoint: step "save", object file.describe(),
  // cause, hint.
  virtual Result<std::string> observe(const OpenFile& file, Observation& tree) const = 0;
  // The descriptor. Status flags (O_APPEND, O_NONBLOCK, ...) and position are its own business.
  virtual Result<Fd> make(const Record& record, Making& context) const = 0;
  virtual Result<void> fill(const Record& record, int fd, Making& context) const;
  // The rounds of settle(); each is for all descriptions. In the last one nothing is left to others.
  enum class Round { kListen, kConnect, kWait, kSend, kEnd };
  // May put another description at the number `fd`.
  virtual Result<void> settle(const Record& record, int fd, Making& context, Round round) const;
  virtual Result<void> finish(const Record& record, Finishing& owner) const;
  // Whether it refers to a process, so that the owner can open it only in finish(): then it puts it in the
  // place of what make() has made, and the others who share it get it from there.
  virtual bool is_opened_by_owner() const { return false; }
  // Whether finish() has to wait until the owner closes nothing any more: closing any descriptor of some
  // objects takes from a process what it has asked for.
  virtual bool finishes_last() const { return false; }
  // Before a restart in which files are in other places (restart --map-path): changes the paths in the
  // payload. `place` tells where the file is that was at a path.
  using Place = std::function<std::string(const std::string& path)>;
  virtual Result<void> relocate(Record& record, const Place& place) const;
  // Whether memory with this name in /proc/PID/maps is the kind's own: then it is neither saved nor mapped by
  // the engine, and finish() has to map it again.
  virtual bool maps(std::string_view) const { return false; }
  // One line for `stasis inspect`: "count 3, semaphore".
  virtual std::string summary(const Record& record) const;
};

}  // namespace stasis::resource
