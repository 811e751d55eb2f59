// A snapshot child: a fork of a frozen process that writes the process's pages while the process itself runs
// on.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "remote/foothold.h"
#include "stasis/fd.h"
#include "stasis/result.h"

namespace stasis::checkpoint {

// Pages to be written: of the child's memory at `address` to `offset` of the page file.
struct Run {
  uint64_t address = 0;
  uint64_t size = 0;
  uint64_t offset = 0;
};

// Owns the child; kills it when destroyed. The kernel does the same when we die. The program never sees it:
// it is a grandchild without an exit signal, and the child between the two is reaped on the spot.
class SnapshotChild {
 public:
  // Forks the processes in which the footholds stand, all at the same time; the children are in their order.
  static Result<std::vector<std::unique_ptr<SnapshotChild>>> fork(
      std::span<remote::Foothold* const> footholds);
  ~SnapshotChild();
  SnapshotChild(const SnapshotChild&) = delete;
  SnapshotChild& operator=(const SnapshotChild&) = delete;

  HostTid pid() const { return pid_; }
  // It was born on the processor where the program was saved. From now on it may run anywhere.
  void leave_processor() const;

  // Gives the child a descriptor of ours; returns its number there. The child has no others.
  Result<int> pass(int fd);
  // Lets the child write runs to its descriptor `number`; `written` is told of each piece. The data do not
  // pass through us, unless the child may not write them: its limits are those of the program (RLIMIT_FSIZE),
  // ours are not. `fd` is the same file here. The child lends its pages to a pipe and has the kernel copy
  // them to the file from there (vmsplice, splice): in a fresh fork, write() would meet every page for the
  // first time, and where page tables are virtual that costs more than the copy (docs/decisions/0005).
  Result<void> write(int number, int fd, const std::vector<Run>& runs,
                     const std::function<void(const Run&)>& written);
  Result<void> run(remote::Batch& batch);
  remote::Batch batch() const { return remote::Batch(executor_.scratch()); }

 private:
  class Forks;
  // What goes through the pipe at once.
  struct Load {
    std::vector<Run> pieces;
    size_t first_call = 0;
  };
  // In the child. Without a capacity there is none.
  struct Pipe {
    uint64_t read_end = 0, write_end = 0, capacity = 0;
  };

  Result<void> open_pipe();
  void add_load(remote::Batch& batch, int number, Load& load) const;
  static bool is_done(const remote::Batch& batch, const Load& load);
  Result<void> write_for_it(int fd, const Run& piece) const;
  SnapshotChild(HostTid pid, const remote::Foothold& foothold);
  Result<void> take_over();

  HostTid pid_;
  remote::Executor executor_;
  remote::TaskContext context_;
  std::string affinity_;
  bool is_ours_ = false;
  Pipe pipe_;
};

}  // namespace stasis::checkpoint
