#include "inspect/system_v.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <functional>
#include <map>

#include "kernel/huge_pages.h"
#include "kernel/proc.h"
#include "remote/semaphore_operations.h"
#include "stasis/fd.h"

namespace stasis::inspect {

using remote::Batch;

namespace {

constexpr const char* kRemoveHint = "ipcrm removes what is not needed";

Error refuse(std::string object, std::string cause, std::string hint) {
  return Error{"save", std::move(object), std::move(cause), std::move(hint), ErrorCode::kRefused};
}

uint64_t size_in_pages(const schema::IpcSegment& segment) {
  return kernel::in_whole_pages(segment.size(), segment.huge_page_shift());
}

// Of all objects of the namespace, those that are saved.
class Wanted {
 public:
  Wanted(const freeze::FrozenTree& tree, const std::set<int>& attached)
      : all_(tree.scope().is_session()), users_(freeze::users_of(tree)), attached_(attached) {}
  bool owned(const ipc_perm& permissions) const {
    return all_ || users_.contains(permissions.uid) || users_.contains(permissions.cuid);
  }
  bool segment(int id, const ipc_perm& permissions) const {
    return owned(permissions) || attached_.contains(id);
  }

 private:
  bool all_;
  std::set<uint32_t> users_;
  const std::set<int>& attached_;
};

// --- in the helper, which has all rights in the session's namespaces

Result<void> enter_session(const freeze::Scope& scope) {
  if (!scope.is_session()) return {};
  const HostTid init = scope.init;
  STASIS_TRY(auto ours, kernel::read_proc_link(HostTid{::getpid()}, "ns/user"));
  STASIS_TRY(auto theirs, kernel::read_proc_link(init, "ns/user"));
  int kinds = CLONE_NEWIPC | (ours != theirs ? CLONE_NEWUSER : 0);
  Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, init.value, 0)));
  if (!pidfd || ::setns(pidfd.get(), kinds) != 0)
    return errno_error("save", "System V objects", errno,
                       "look at them by ipcs; " + std::string(kRemoveHint));
  return {};
}

void describe(const ipc_perm& permissions, int id, schema::IpcObject& out) {
  out.set_id(id);
  out.set_key(permissions.__key);
  out.set_user(permissions.uid);
  out.set_group(permissions.gid);
  out.set_creator(permissions.cuid);
  out.set_creator_group(permissions.cgid);
  out.set_mode(permissions.mode & 0777);
}

// Only a mapping tells.
Result<uint32_t> huge_page_shift(int id) {
  void* at = ::shmat(id, nullptr, SHM_RDONLY);
  if (at == reinterpret_cast<void*>(-1)) return errno_error("save", fmt::format("segment {}", id));
  uint32_t shift = 0;
  auto maps = kernel::read_maps(HostTid{::getpid()});
  for (const auto& entry : maps.ok() ? *maps : std::vector<kernel::MapsEntry>{}) {
    if (entry.start == reinterpret_cast<uint64_t>(at)) shift = kernel::huge_page_shift_of(entry.device);
  }
  ::shmdt(at);
  return shift;
}

bool has_reserved_huge_pages() {
  auto text = read_file("/proc/sys/vm/nr_hugepages", 64);
  auto more = read_file("/proc/sys/vm/nr_overcommit_hugepages", 64);
  return (text.ok() && std::atoi(text->c_str()) > 0) || (more.ok() && std::atoi(more->c_str()) > 0);
}

Result<void> read_segments(const Wanted& wanted, schema::SystemV& out) {
  shm_info info = {};
  int last = ::shmctl(0, SHM_INFO, reinterpret_cast<shmid_ds*>(&info));
  bool huge_pages = info.used_ids > 0 && has_reserved_huge_pages();
  for (int index = 0; index <= last; ++index) {
    shmid_ds state = {};
    int id = ::shmctl(index, SHM_STAT, &state);
    if (id < 0) continue;  // a free place
    if (!wanted.segment(id, state.shm_perm)) continue;
    auto* segment = out.add_segments();
    if (huge_pages) {
      STASIS_TRY(const uint32_t shift, huge_page_shift(id));
      segment->set_huge_page_shift(shift);
    }
    describe(state.shm_perm, id, *segment->mutable_object());
    segment->set_size(state.shm_segsz);
    segment->set_removed((state.shm_perm.mode & SHM_DEST) != 0);
    segment->set_locked((state.shm_perm.mode & SHM_LOCKED) != 0);
  }
  return {};
}

Result<void> read_semaphores(const Wanted& wanted, schema::SystemV& out) {
  seminfo info = {};
  int last = ::semctl(0, 0, SEM_INFO, &info);
  for (int index = 0; index <= last; ++index) {
    semid_ds state = {};
    int id = ::semctl(index, 0, SEM_STAT, &state);
    if (id < 0 || !wanted.owned(state.sem_perm)) continue;
    auto* set = out.add_semaphore_sets();
    describe(state.sem_perm, id, *set->mutable_object());
    std::vector<uint16_t> values(state.sem_nsems);
    if (::semctl(id, 0, GETALL, values.data()) < 0)
      return errno_error("save", fmt::format("semaphore set {}", id));
    for (size_t i = 0; i < values.size(); ++i) {
      set->add_values(values[i]);
      set->add_last_pids(::semctl(id, static_cast<int>(i), GETPID));
    }
  }
  return {};
}

Result<void> read_messages(schema::MessageQueue& queue, const msqid_ds& state) {
  std::vector<char> buffer(sizeof(long) + std::max<size_t>(state.__msg_cbytes, 1));
  for (uint64_t i = 0; i < state.msg_qnum; ++i) {
    ssize_t size = ::msgrcv(queue.object().id(), buffer.data(), buffer.size() - sizeof(long),
                            static_cast<long>(i), MSG_COPY | IPC_NOWAIT);
    if (size < 0) {
      return refuse(fmt::format("message queue {}", queue.object().id()),
                    fmt::format("its messages cannot be looked at: {}", std::strerror(errno)),
                    errno == ENOSYS ? "the kernel was built without CONFIG_CHECKPOINT_RESTORE" : "");
    }
    auto* message = queue.add_messages();
    long type = 0;
    std::memcpy(&type, buffer.data(), sizeof type);
    message->set_type(type);
    message->set_text(buffer.data() + sizeof(long), static_cast<size_t>(size));
  }
  return {};
}

Result<void> read_queues(const Wanted& wanted, schema::SystemV& out) {
  msginfo info = {};
  int last = ::msgctl(0, MSG_INFO, reinterpret_cast<msqid_ds*>(&info));
  for (int index = 0; index <= last; ++index) {
    msqid_ds state = {};
    int id = ::msgctl(index, MSG_STAT, &state);
    if (id < 0 || !wanted.owned(state.msg_perm)) continue;
    auto* queue = out.add_queues();
    describe(state.msg_perm, id, *queue->mutable_object());
    queue->set_max_bytes(state.msg_qbytes);
    STASIS_CHECK(read_messages(*queue, state));
  }
  return {};
}

// mincore() knows nothing of reserved huge pages that we have not touched.
void find_huge_pages(const char* memory, uint64_t size, schema::IpcSegment& segment) {
  constexpr uint64_t kPiece = uint64_t{2} << 20;
  for (uint64_t at = 0; at < size; at += kPiece) {
    if (memory[at] == 0 && std::memcmp(memory + at, memory + at + 1, kPiece - 1) == 0) continue;
    auto* run = segment.add_runs();
    run->set_address(at);
    run->set_offset(at);
    run->set_size(kPiece);
  }
}

// Which pages of the segment exist: reading the others would make them.
void find_pages(const char* memory, uint64_t size, schema::IpcSegment& segment) {
  constexpr uint64_t kAtOnce = uint64_t{64} << 20;
  std::vector<unsigned char> there(kAtOnce / kPageSize);
  schema::PageRun* run = nullptr;
  for (uint64_t at = 0; at < size; at += kAtOnce) {
    uint64_t bytes = std::min(kAtOnce, size - at);
    bool known = ::mincore(const_cast<char*>(memory) + at, bytes, there.data()) == 0;
    for (uint64_t page = 0; page < bytes; page += kPageSize) {
      if (known && (there[page / kPageSize] & 1) == 0) continue;
      if (run == nullptr || run->address() + run->size() != at + page) {
        run = segment.add_runs();
        run->set_address(at + page);
        run->set_offset(at + page);
      }
      run->set_size(run->size() + kPageSize);
    }
  }
}

Result<void> write_segment(int file, schema::IpcSegment& segment) {
  const int id = segment.object().id();
  void* at = ::shmat(id, nullptr, SHM_RDONLY);
  if (at == reinterpret_cast<void*>(-1)) return errno_error("save", fmt::format("System V segment {}", id));
  const char* memory = static_cast<const char*>(at);
  const uint64_t size = size_in_pages(segment);
  if (segment.huge_page_shift() != 0) {
    find_huge_pages(memory, size, segment);
  } else {
    find_pages(memory, size, segment);
  }
  Result<void> written;
  for (const auto& run : segment.runs()) {
    written = pwrite_all(file, {memory + run.address(), run.size()}, static_cast<off_t>(run.offset()));
    if (!written.ok()) break;
  }
  ::shmdt(at);
  return written;
}

// --- around the helper

// Runs `work` in a child that has entered the session's namespaces. What it says comes back as SystemV.
Result<schema::SystemV> ask_helper(const freeze::Scope& scope,
                                   const std::function<Result<schema::SystemV>()>& work) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return errno_error("save", "System V objects");
  Fd from(ends[0]), to(ends[1]);
  pid_t self = ::getpid();
  pid_t helper = ::fork();
  if (helper < 0) return errno_error("save", "System V objects");
  if (helper == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != self) ::_exit(1);
    auto entered = enter_session(scope);
    auto found = entered.ok() ? work() : Result<schema::SystemV>(std::move(entered).error());
    const std::string answer = found.ok() ? '+' + found->SerializeAsString() : '-' + packed(found.error());
    ::_exit(write_all(to.get(), answer).ok() ? 0 : 1);
  }
  to.reset();
  auto answer = read_all(from.get(), size_t{1} << 31);
  while (::waitpid(helper, nullptr, 0) < 0 && errno == EINTR) {
  }
  STASIS_TRY(std::string bytes, std::move(answer));
  schema::SystemV found;
  if (bytes.starts_with('+') && found.ParseFromArray(bytes.data() + 1, static_cast<int>(bytes.size() - 1)))
    return found;
  if (!bytes.starts_with('-')) return Error{"save", "System V objects", "the helper ended", "try again"};
  return unpacked(std::string_view(bytes).substr(1));
}

// --- SEM_UNDO

constexpr int kMostValue = remote::kMostSemaphoreValue;
using Operations = remote::SemaphoreOperations;

// The last ones: they leave less than nothing, whatever the value is.
void fail(Operations& operations, size_t semaphore) {
  operations.add(semaphore, -kMostValue);
  operations.add(semaphore, -kMostValue);
}

class AdjustmentSearch {
 public:
  AdjustmentSearch(remote::Foothold& foothold, const schema::SemaphoreSet& set)
      : foothold_(foothold), set_(set) {}

  enum class Answer { kNo, kYes, kCannotTell };

  // Whether any of the semaphores [first, last) has a note that is not zero.
  Result<Answer> any(size_t first, size_t last) {
    Operations operations;
    for (size_t i = first; i < last; ++i) {
      operations.add(i, kMostValue - value(i));
      operations.add(i, -kMostValue, true);  // overflows when the note is above zero
      operations.add(i, kMostValue, true);
      operations.add(i, -kMostValue);
      operations.add(i, kMostValue, true);
      operations.add(i, -kMostValue);
      operations.add(i, 1, true);  // the note is 32768 lower now: overflows when it was below zero
    }
    fail(operations, first);
    return ask(operations);
  }
  static constexpr size_t kMostAtOnce = (Operations::kMost - 2) / 7;

  // The note of one semaphore that has one.
  Result<int> find(size_t semaphore) {
    STASIS_TRY(Answer positive, is_beyond(semaphore, 1));
    int sign = positive == Answer::kYes ? 1 : -1;
    int low = 1, high = sign > 0 ? kMostValue : kMostValue + 1;  // low: it is at least this
    while (low < high) {
      int middle = low + (high - low + 1) / 2;
      STASIS_TRY(Answer beyond, is_beyond(semaphore, sign * middle));
      if (beyond == Answer::kYes) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    return sign * low;
  }

 private:
  int value(size_t semaphore) const { return static_cast<int>(set_.values(static_cast<int>(semaphore))); }

  // Whether the note is at least `limit`, or, for a negative one, at most.
  Result<Answer> is_beyond(size_t semaphore, int limit) {
    Operations operations;
    if (limit > 0) {
      operations.add(semaphore, kMostValue - value(semaphore));
      operations.add(semaphore, -(kMostValue + 1 - limit), true);
    } else {
      int step = kMostValue + 2 + limit;  // 1 to 32768, one more than an operation can have
      operations.add(semaphore, -value(semaphore));
      operations.add(semaphore, std::min(step, kMostValue), true);
      if (step > kMostValue) {
        operations.add(semaphore, -kMostValue);
        operations.add(semaphore, 1, true);
      }
    }
    fail(operations, semaphore);
    return ask(operations);
  }

  Result<Answer> ask(const Operations& operations) {
    Batch batch(foothold_.scratch());
    size_t asked = operations.call(batch, set_.object().id());
    STASIS_CHECK(foothold_.run(batch));
    if (batch.result(asked) == -ERANGE) return Answer::kYes;
    return batch.result(asked) == -EAGAIN ? Answer::kNo : Answer::kCannotTell;
  }

  remote::Foothold& foothold_;
  const schema::SemaphoreSet& set_;
};

}  // namespace

Result<schema::SystemV> read_system_v(const freeze::FrozenTree& tree, const std::set<int>& attached) {
  const Wanted wanted(tree, attached);
  STASIS_TRY(auto objects, ask_helper(tree.scope(), [&]() -> Result<schema::SystemV> {
               schema::SystemV found;
               STASIS_CHECK(read_segments(wanted, found));
               STASIS_CHECK(read_semaphores(wanted, found));
               STASIS_CHECK(read_queues(wanted, found));
               return found;
             }));
  std::map<int, int> numbers;
  for (const auto& process : tree.processes()) numbers[process.leader.value] = process.status.ns_tgid.value;
  for (auto& set : *objects.mutable_semaphore_sets()) {
    for (auto& pid : *set.mutable_last_pids()) {
      auto known = numbers.find(pid);
      pid = known != numbers.end() ? known->second : 0;
    }
  }
  return objects;
}

Result<void> match_segment(const MappingFacts& facts, const std::string& task, schema::SystemV& objects) {
  auto* segments = objects.mutable_segments();
  auto segment = std::find_if(segments->begin(), segments->end(), [&](const auto& candidate) {
    return candidate.object().id() == facts.mapping.segment();
  });
  const uint64_t end = facts.mapping.file_offset() + (facts.entry.end - facts.entry.start);
  if (segment == segments->end() || end > size_in_pages(*segment)) {
    return refuse(fmt::format("mapping {:#x} of {} ({})", facts.entry.start, task, facts.entry.name),
                  segment == segments->end() ? "there is no such System V segment in the session"
                                             : "it is larger than its System V segment",
                  {});
  }
  // A segment that is removed has no key any more, but its mappings have a name, /SYSV and the key that it
  // had.
  if (segment->removed()) {
    auto key = static_cast<uint32_t>(std::strtoul(facts.entry.name.c_str() + 5, nullptr, 16));
    segment->mutable_object()->set_key(static_cast<int32_t>(key));
  }
  return {};
}

Result<void> save_segments(const freeze::FrozenTree& tree, image::Writer& writer, schema::SystemV& objects) {
  std::vector<Fd> files;
  for (auto& segment : *objects.mutable_segments()) {
    segment.set_page_file(fmt::format("segment-{}.stasis-pages", segment.object().id()));
    STASIS_TRY(Fd file, writer.create_file(segment.page_file()));
    files.push_back(std::move(file));
  }
  if (files.empty()) return {};
  STASIS_TRY(auto saved, ask_helper(tree.scope(), [&]() -> Result<schema::SystemV> {
               schema::SystemV runs;
               for (size_t i = 0; i < files.size(); ++i) {
                 auto* segment = runs.add_segments();
                 *segment = objects.segments(static_cast<int>(i));
                 STASIS_CHECK(write_segment(files[i].get(), *segment));
               }
               return runs;
             }));
  objects.mutable_segments()->Swap(saved.mutable_segments());
  return {};
}

Result<void> observe_adjustments(remote::Foothold& foothold, const schema::SystemV& objects,
                                 schema::Process& out, std::vector<std::string>& warnings) {
  using Answer = AdjustmentSearch::Answer;
  for (const auto& set : objects.semaphore_sets()) {
    AdjustmentSearch search(foothold, set);
    const auto count = static_cast<size_t>(set.values_size());
    for (size_t first = 0; first < count; first += AdjustmentSearch::kMostAtOnce) {
      size_t last = std::min(first + AdjustmentSearch::kMostAtOnce, count);
      STASIS_TRY(Answer some, search.any(first, last));
      if (some == Answer::kCannotTell) {
        warnings.push_back(
            fmt::format("whether task {} has something to undo in semaphore set {} cannot be seen", out.pid(),
                        set.object().id()));
      }
      for (size_t i = first; i < last && some == Answer::kYes; ++i) {
        STASIS_TRY(Answer this_one, search.any(i, i + 1));
        if (this_one != Answer::kYes) continue;
        STASIS_TRY(int note, search.find(i));
        auto* adjustment = out.add_adjustments();
        adjustment->set_set(set.object().id());
        adjustment->set_number(static_cast<uint32_t>(i));
        adjustment->set_value(note);
      }
    }
  }
  return {};
}

}  // namespace stasis::inspect
