// Gives the processes and threads of the new tree what the kernel kept for the old ones.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <vector>

#include "remote/interrupted.h"
#include "restore/descriptors.h"
#include "restore/skeleton.h"
#include "restore/work_area.h"
#include "schema/manifest.pb.h"
#include "stasis/result.h"

namespace stasis::restore {

// Whether its working directory is one of /proc whose process has ended.
bool works_where_process_has_ended(const schema::Process& process);

// Builds one process, in steps that the tree takes together: what a step needs of other processes exists when
// it comes.
// tasks.cpp has the steps; task_threads.cpp what is done for single threads.
class TaskBuilder {
  using Batch = remote::Batch;

 public:
  TaskBuilder(Skeleton& skeleton, const schema::Process& process, const schema::Manifest& manifest,
              const schema::Memory& memory, const WorkArea& area, const kernel::PidNamespace& session,
              const DescriptorTable& table)
      : skeleton_(skeleton),
        process_(process),
        manifest_(manifest),
        memory_(memory),
        area_(area),
        user_namespace_(manifest.user_namespace()),
        session_(session),
        table_(table) {}

  // Foreground group, working directory, umask, signal actions, limits that are not in our way: of the
  // process.
  // `born_in`: the user namespace in which it is.
  Result<void> set_process(uint32_t born_in);
  Skeleton& skeleton() { return skeleton_; }
  // Goes to the user namespace of the process, which its threads cannot do, and returns it; with its ids,
  // which have other numbers there. `born_in`: where it is.
  Result<uint32_t> enter_users(uint32_t born_in);
  // Where it has not the right to choose the numbers of its threads: see RestartFromImage::prepare_numbers().
  using Numbering = std::function<Result<std::vector<int>>(const std::vector<int>& levels)>;
  void choose_numbers(Numbering numbering) { numbering_ = std::move(numbering); }
  // Threads come into being, and get what is each one's own; those beside the leader all of it.
  Result<void> make_threads();
  // Timers run from here on.
  Result<void> start_timers();
  // As job control had stopped it (see job_control.cpp). Remote calls still work.
  Result<void> stop();
  // Locks are taken, rights are given up, signals become pending: the last remote calls. Then the work area
  // goes.
  Result<void> finish();
  // Registers. The task would go on if it were let go.
  Result<void> arm(remote::Deadlines& deadlines);
  void detach();

 private:
  struct ThreadState {
    Skeleton skeleton;
    const schema::Thread* record;
    bool primed = false;      // is inside a sleep that was given what was left of its time
    int64_t deadline_ns = 0;  // of that sleep, CLOCK_MONOTONIC of the host
  };
  // Calls of which some may fail: their indices.
  using Optional = std::vector<size_t>;
  void add_login_uid(Batch& batch, Optional& optional) const;
  Result<void> make_posix_timers();
  Result<void> skip_timers(int next, int wanted);
  static void add_ids(Batch& batch, const schema::Credentials& wanted);
  Result<void> add_ids_inside(Batch& batch, uint32_t users) const;
  void add_settings(Batch& batch, const ThreadState& thread, Optional& optional) const;
  void add_credentials(Batch& batch, const ThreadState& thread, Optional& optional) const;
  Result<void> check(const Batch& batch, const ThreadState& thread, const Optional& optional) const;
  static remote::Registers recorded_registers(const schema::Thread& thread);
  Result<void> set_threads();
  // While it is built they let everything through.
  Result<void> install_filters();
  Result<void> install_filters(ThreadState& thread, uint64_t flags);
  // Ends and stops of children while the tree was made are not news to the program.
  static void add_forgetting(Batch& batch);
  Result<void> queue_signals(ThreadState& thread, bool shared);
  Result<void> prime_sleeps();
  Result<void> begin_sleeps(std::span<ThreadState* const> threads, const remote::Stations& stations);
  static int64_t time_to_sleep(const schema::Thread& thread);
  static void add_sleep(Batch& batch, const schema::Thread& thread);
  Result<void> interrupt_sleep(ThreadState& thread, const remote::Executor& executor);
  Result<void> end_leader();
  Result<void> drop_work_area();
  uint64_t find_system_call() const;
  void send_stops_again() const;
  std::string name() const;

  Skeleton& skeleton_;
  const schema::Process& process_;
  const schema::Manifest& manifest_;
  const schema::Memory& memory_;
  const WorkArea& area_;
  bool user_namespace_;
  bool inner_users_ = false;  // it is in a user namespace of the program
  Numbering numbering_;
  const kernel::PidNamespace& session_;
  const DescriptorTable& table_;
  std::vector<ThreadState> threads_;
};

// Lets a skeleton end the way a zombie did.
Result<void> become_zombie(Skeleton& skeleton, const schema::Process& process);

}  // namespace stasis::restore
