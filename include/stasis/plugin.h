// What a plugin gives to the engine. docs/writing-a-plugin.md is the walk through it.
//
// A plugin brings kinds of descriptors, which are saved and restored as the engine's own are (descriptor.h),
// and takes part in each checkpoint of a session that has it: a driver or a monitor may have to be brought to
// a state that can be saved. It is linked into the command, which is static: one list,
// src/plugin/plugins.cpp. It may have a part in the program as well: a library that is loaded before others.
// That links libc alone.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "stasis/descriptor.h"
#include "stasis/fd.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::plugin {

// A thread of the program that stands still.
struct StoppedThread {
  NsTid tid;
  long call = -1;      // SYS_* that it is leaving, as a stop made it; -1: it is in code of its own
  int64_t result = 0;  // of that call
};

struct StoppedProcess {
  HostTid task;
  NsTid pid;
  std::vector<StoppedThread> threads;
};

// Where a participant writes what is no descriptor's: files of the checkpoint's directory, whose sums are
// taken and verified by the engine.
class ImageFiles {
 public:
  virtual ~ImageFiles() = default;
  virtual Result<Fd> create(const std::string& name) = 0;
};

// One attempt to take a checkpoint, from beginning to end. Each step may return an Error, which ends the
// attempt; with kBusy or kRefusedNow everything is let go and tried again after a moment. Its destructor
// comes when the attempt is over, in whatever way, and the program goes on: it takes back what prepare() has
// done. Whoever kills us spares us that, so nothing may be left that the program does not get over by itself.
class Participant {
 public:
  virtual ~Participant() = default;
  // The session runs, with all its help. `processes`: those that it has at this moment.
  virtual Result<void> prepare(std::span<const HostTid> processes);
  // Everything stands still, and nothing has been looked at yet: can it be saved as it stands?
  virtual Result<void> inspect(std::span<const StoppedProcess> processes);
  // Everything stands still: what must be of this instant is copied, or begun to be.
  virtual Result<void> save(ImageFiles& files);
  // The program runs again. Not with `checkpoint --stop`, and not after an Error.
  virtual void go_on() {}
  // Everything that was begun in save() is complete when this returns. Gives warnings.
  virtual Result<std::vector<std::string>> finish();
};

// One line of `stasis check`.
struct Finding {
  std::string name;  // "KVM: nested guests"
  bool works = false;
  std::string reason;  // what was found
  std::string remedy;  // what to do about it; empty when all is well
};

class Plugin {
 public:
  virtual ~Plugin() = default;
  // Stable: in images, and in options (--kvm=off).
  virtual std::string_view name() const = 0;
  // Asked before the engine's own kinds.
  virtual std::span<const resource::DescriptorKind* const> kinds() const { return {}; }
  // Whether a program that is launched by this user, on this host, can need it: then the session has it, and
  // its checkpoints say so.
  virtual bool is_wanted() const { return true; }
  // The library that is to be loaded into the programs of a session, by its file name; empty: none. It is
  // looked for beside the command (<name>/) and where the distribution puts libraries of its own (stasis/).
  virtual std::string preload() const { return {}; }
  // Of a session that was launched with the plugin. Null: it takes no part.
  virtual std::unique_ptr<Participant> participate() const { return nullptr; }
  // Tries what this host offers.
  virtual std::vector<Finding> check() const { return {}; }
};

inline Result<void> Participant::prepare(std::span<const HostTid>) { return {}; }
inline Result<void> Participant::inspect(std::span<const StoppedProcess>) { return {}; }
inline Result<void> Participant::save(ImageFiles&) { return {}; }
inline Result<std::vector<std::string>> Participant::finish() { return std::vector<std::string>(); }

}  // namespace stasis::plugin
