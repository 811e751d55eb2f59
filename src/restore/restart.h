// Brings a checkpoint back to life.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "image/reader.h"
#include "restore/memory_guard.h"
#include "restore/path_map.h"
#include "schema/manifest.pb.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::restore {

enum class MemoryMode {
  kMapped,  // private memory is mapped from the page files: as quick for 100 GiB as for 10 MiB. Small
            // programs, and all where the memory guard cannot be had, are read nevertheless
  kEager,   // everything is read before the program goes on
};

// One restart, over three processes. The order of the calls is the order of their declaration:
//   supervisor: prepare()
//   builder:    make_descriptions()   in the session's new namespaces, before init is forked
//   init:       spawn_roots()         in the session's pid namespace
//   builder:    build(), release()
// The builder traces everything that is being made, with PTRACE_O_EXITKILL: when it fails or dies, nothing is
// left.
class Restart {
 public:
  // Reads and validates everything, and what the image asks of this host; forks nothing.
  static Result<std::unique_ptr<Restart>> prepare(const std::string& directory, MemoryMode mode,
                                                  const PathMap& paths = {});
  virtual ~Restart() = default;

  virtual const schema::Manifest& manifest() const = 0;
  virtual const image::Image& image() const = 0;
  // Files that stand in for those of the checkpoint, by path (captured_files.h). Before make_descriptions().
  virtual void set_copies(std::map<std::string, std::string> copies) = 0;
  // How the session's clocks will differ from those of the host. Before make_descriptions().
  virtual void set_clocks(const kernel::ClockOffsets& clocks) = 0;
  // `terminal_slave_path`: the session's new terminal; empty: it has none. Our own 0, 1, 2 become what
  // launch's were.
  virtual Result<void> make_descriptions(const std::string& terminal_slave_path) = 0;
  // The guard, when memory is going to be mapped, is served by init as long as it lives.
  virtual Result<std::unique_ptr<MemoryGuard>> spawn_roots() = 0;
  // `deadlines`: a file of the session, see remote::Deadlines. `read` is told of pages that have been read.
  virtual Result<void> build(HostTid init, const std::string& deadlines,
                             const std::function<void(uint64_t bytes)>& read) = 0;
  virtual Result<void> release() = 0;
};

}  // namespace stasis::restore
