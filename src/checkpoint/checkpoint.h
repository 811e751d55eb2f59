// Takes one checkpoint of a running session or program.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/file_capture.h"
#include "checkpoint/tracking.h"
#include "freeze/scope.h"
#include "image/writer.h"
#include "inspect/descriptors.h"
#include "schema/manifest.pb.h"
#include "stasis/plugin.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::checkpoint {

struct Request {
  freeze::Scope scope;
  NsTid root;  // the process whose exit status is the session's
  std::string session;
  std::string store;  // <store>/<SESSION>
  std::string tag;
  std::string deadlines;  // a file of the session, see remote::Deadlines
  std::string base;       // directory of a checkpoint whose page files may be shared; empty: none
  bool stop = false;      // end the session when the image is complete; it does not run on in between
  std::vector<std::string> command;
  // Of a session; those of a program are looked for.
  inspect::OutsideStreams streams;
  bool user_namespace = false;
  bool private_network = false;            // of a session
  std::optional<schema::Display> display;  // the session's X server; the checkpoint gets a picture of it
  bool opengl = false;                     // is recorded
  std::vector<std::string> plugins;        // with which it was launched
  // Who takes part beside the engine; made anew for each attempt.
  using MakeParticipant = std::function<std::unique_ptr<plugin::Participant>()>;
  std::vector<MakeParticipant> participants;
  // Whether a restart could make this; what it could not is refused while the program is there. May be empty.
  std::function<Result<void>(const schema::Manifest& manifest)> approve;
  FilePolicy files;
  Tracking* tracking = nullptr;  // what is known of the base, and after the checkpoint of the new one
  std::function<void(uint64_t done, uint64_t total)> progress;  // bytes of pages written; may be empty
};

struct Report {
  uint32_t id = 0;
  std::string directory;
  int64_t pause_ns = 0;  // how long the program stood still
  int64_t total_ns = 0;
  uint64_t stored = 0;    // bytes written
  uint64_t shared = 0;    // bytes in files that are shared with earlier checkpoints
  uint32_t base = 0;      // the number of the checkpoint to which this one adds what has changed; 0: none
  uint64_t compared = 0;  // bytes of memory that were read to see whether they had changed
  uint64_t processes = 0;
  std::vector<std::string> warnings;
};

// Freezes the tree, saves it, lets it go on (or ends it), and publishes the image. After an Error the program
// runs on unharmed and the store is as it was. Being killed at any moment has the same effect.
Result<Report> run(const Request& request);

}  // namespace stasis::checkpoint
