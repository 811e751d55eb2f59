#include "restore/system_v.h"

#include <fcntl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <functional>

#include "image/page_files.h"
#include "remote/semaphore_operations.h"
#include "stasis/fd.h"

namespace stasis::restore {

using remote::Batch;
using remote::kMostSemaphoreValue;
using Operations = remote::SemaphoreOperations;

namespace {

Error cannot_make(const std::string& what, int error = errno, std::string hint = {}) {
  return errno_error("restart: make System V objects", what, error, std::move(hint));
}

bool write_sysctl(const char* name, const std::string& value) {
  auto file = open_file(std::string("/proc/sys/kernel/") + name, O_WRONLY);
  return file.ok() && ::write(file->get(), value.data(), value.size()) == static_cast<ssize_t>(value.size());
}

// The user and group that the objects made meanwhile are created by.
class Creator {
 public:
  explicit Creator(const schema::IpcObject& object) : user_(::geteuid()), group_(::getegid()) {
    // For root only. Others have nothing but their own ids in the session.
    if (object.creator_group() != group_) ::syscall(SYS_setresgid, -1, object.creator_group(), -1);
    if (object.creator() != user_) ::syscall(SYS_setresuid, -1, object.creator(), -1);
  }
  ~Creator() {
    if (::geteuid() != user_) ::syscall(SYS_setresuid, -1, user_, -1);
    if (::getegid() != group_) ::syscall(SYS_setresgid, -1, group_, -1);
  }
  Creator(const Creator&) = delete;
  Creator& operator=(const Creator&) = delete;

 private:
  uid_t user_;
  gid_t group_;
};

// An object with the id that it had. The owner of a namespace may tell it the next id; where /proc/sys cannot
// be written, ids come in a fixed order, and one that is not far is waited for.
Result<void> make_with_id(const std::string& what, const char* next_id, const schema::IpcObject& object,
                          const std::function<int()>& get, const std::function<void(int)>& remove) {
  constexpr int kAttempts = 50'000;
  const int wanted = object.id();
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    write_sysctl(next_id, std::to_string(wanted));
    int id = -1, error = 0;
    {
      Creator creator(object);
      id = get();
      error = errno;
    }
    if (id == wanted) return {};
    if (id < 0) return cannot_make(what, error, "see `ipcs -l` for the limits of this host");
    remove(id);
  }
  return Error{"restart: make System V objects", what, "it cannot have the id that it had",
               fmt::format("/proc/sys/kernel/{} must be there and writable", next_id),
               ErrorCode::kUnsupported};
}

void set_owner(const schema::IpcObject& object, ipc_perm& permissions) {
  permissions.uid = object.user();
  permissions.gid = object.group();
  permissions.mode = static_cast<decltype(permissions.mode)>(object.mode());
}

// Operations that change nothing but the note, which is the negative of what was done with SEM_UNDO.
Operations note(uint32_t semaphore, int value, int wanted) {
  Operations operations;
  operations.add(semaphore, -value);
  if (wanted > 0) {
    operations.add(semaphore, wanted);
    operations.add(semaphore, -wanted, true);
  } else {
    const int most = std::min(-wanted, kMostSemaphoreValue);
    operations.add(semaphore, most, true);
    operations.add(semaphore, -most);
    if (-wanted > most) {
      operations.add(semaphore, 1, true);
      operations.add(semaphore, -1);
    }
  }
  operations.add(semaphore, value);
  return operations;
}

}  // namespace

SystemV::SystemV(const image::Image& image) : image_(image), objects_(image.manifest().system_v()) {}

Result<void> SystemV::make() {
  // What was removed first: another segment may have taken its key.
  for (bool removed : {true, false}) {
    for (const auto& segment : objects_.segments()) {
      if (segment.removed() == removed) STASIS_CHECK(make_segment(segment));
    }
  }
  for (const auto& set : objects_.semaphore_sets()) STASIS_CHECK(make_set(set));
  for (const auto& queue : objects_.queues()) STASIS_CHECK(make_queue(queue));
  return {};
}

void SystemV::detach() {
  for (void* memory : attached_) ::shmdt(memory);
  attached_.clear();
}

Result<void> SystemV::make_segment(const schema::IpcSegment& segment) {
  const auto& object = segment.object();
  const std::string what = fmt::format("segment {}", object.id());
  STASIS_CHECK(make_with_id(
      what, "shm_next_id", object,
      [&] {
        const uint32_t shift = segment.huge_page_shift();
        const int pages = shift != 0 ? SHM_HUGETLB | static_cast<int>(shift << MAP_HUGE_SHIFT) : 0;
        return ::shmget(object.key(), segment.size(),
                        IPC_CREAT | IPC_EXCL | static_cast<int>(object.mode()) | pages);
      },
      [](int id) { ::shmctl(id, IPC_RMID, nullptr); }));
  if (segment.runs_size() > 0 || segment.removed()) {
    void* memory = ::shmat(object.id(), nullptr, 0);
    if (memory == reinterpret_cast<void*>(-1)) return cannot_make(what);
    attached_.push_back(memory);
    if (segment.runs_size() > 0) {
      STASIS_TRY(auto files, image::open_page_files(image_, segment));
      for (const auto& run : segment.runs()) {
        STASIS_CHECK(pread_all(files[run.layer()].get(),
                               {static_cast<char*>(memory) + run.address(), run.size()},
                               static_cast<off_t>(run.offset())));
      }
    }
  }
  shmid_ds state = {};
  set_owner(object, state.shm_perm);
  if (::shmctl(object.id(), IPC_SET, &state) != 0) return cannot_make(what);
  // Not worth failing for: the limit of locked memory may be lower here.
  if (segment.locked()) ::shmctl(object.id(), SHM_LOCK, nullptr);
  if (segment.removed()) {
    if (::shmctl(object.id(), IPC_RMID, nullptr) != 0) return cannot_make(what);
  } else if (!attached_.empty() && segment.runs_size() > 0) {
    ::shmdt(attached_.back());
    attached_.pop_back();
  }
  return {};
}

Result<void> SystemV::make_set(const schema::SemaphoreSet& set) {
  const auto& object = set.object();
  const std::string what = fmt::format("semaphore set {}", object.id());
  STASIS_CHECK(make_with_id(
      what, "sem_next_id", object,
      [&] {
        return ::semget(object.key(), set.values_size(),
                        IPC_CREAT | IPC_EXCL | static_cast<int>(object.mode()));
      },
      [](int id) { ::semctl(id, 0, IPC_RMID); }));
  std::vector<uint16_t> values;
  for (uint32_t value : set.values()) values.push_back(static_cast<uint16_t>(value));
  semid_ds state = {};
  set_owner(object, state.sem_perm);
  if (::semctl(object.id(), 0, SETALL, values.data()) != 0 ||
      ::semctl(object.id(), 0, IPC_SET, &state) != 0) {
    return cannot_make(what);
  }
  return {};
}

Result<void> SystemV::make_queue(const schema::MessageQueue& queue) {
  const auto& object = queue.object();
  const std::string what = fmt::format("message queue {}", object.id());
  STASIS_CHECK(make_with_id(
      what, "msg_next_id", object,
      [&] { return ::msgget(object.key(), IPC_CREAT | IPC_EXCL | static_cast<int>(object.mode())); },
      [](int id) { ::msgctl(id, IPC_RMID, nullptr); }));
  // It may hold more than it is allowed to now.
  uint64_t total = 0, longest = 0;
  for (const auto& message : queue.messages()) {
    total += std::max<uint64_t>(message.text().size(), 1);
    longest = std::max<uint64_t>(longest, message.text().size());
  }
  msqid_ds state = {};
  set_owner(object, state.msg_perm);
  state.msg_qbytes = std::max(queue.max_bytes(), total);
  // The limits of the namespace are those of a fresh one.
  if (::msgctl(object.id(), IPC_SET, &state) != 0 &&
      (!write_sysctl("msgmnb", std::to_string(state.msg_qbytes)) ||
       ::msgctl(object.id(), IPC_SET, &state) != 0)) {
    // Whoever may not raise them gets what new queues have here, if the messages fit: where the program ran
    // that may have been more.
    msqid_ds fresh = {};
    if (::msgctl(object.id(), IPC_STAT, &fresh) != 0 || fresh.msg_qbytes < total)
      return cannot_make(what, EPERM, "see kernel.msgmnb");
    state.msg_qbytes = fresh.msg_qbytes;
    if (::msgctl(object.id(), IPC_SET, &state) != 0) return cannot_make(what);
  }
  std::vector<char> buffer(sizeof(long) + longest);
  for (const auto& message : queue.messages()) {
    const long type = message.type();
    std::memcpy(buffer.data(), &type, sizeof type);
    std::memcpy(buffer.data() + sizeof type, message.text().data(), message.text().size());
    auto send = [&] { return ::msgsnd(object.id(), buffer.data(), message.text().size(), IPC_NOWAIT) == 0; };
    if (!send() && (errno != EINVAL || !write_sysctl("msgmax", std::to_string(longest)) || !send()))
      return cannot_make(what, errno, "see kernel.msgmax");
  }
  state.msg_qbytes = queue.max_bytes();
  if (state.msg_qbytes < total && ::msgctl(object.id(), IPC_SET, &state) != 0) return cannot_make(what);
  return {};
}

Result<void> SystemV::restore_semaphores(std::map<int, Skeleton>& skeletons) const {
  if (objects_.semaphore_sets().empty()) return {};
  std::map<int, const schema::SemaphoreSet*> sets;
  for (const auto& set : objects_.semaphore_sets()) sets[set.object().id()] = &set;
  for (const auto& process : image_.manifest().processes()) {
    if (process.adjustments().empty() || process.state() == schema::Process::ZOMBIE) continue;
    Skeleton& task = skeletons.at(process.pid());
    STASIS_CHECK(task.prepare());
    Batch batch = task.batch();
    for (const auto& adjustment : process.adjustments()) {
      const auto value = sets.at(adjustment.set())->values(static_cast<int>(adjustment.number()));
      if (!batch.fits(1, 256)) {
        STASIS_CHECK(task.run_checked(batch, "note what is to be undone"));
        batch.clear();
      }
      note(adjustment.number(), static_cast<int>(value), adjustment.value()).call(batch, adjustment.set());
    }
    STASIS_CHECK(task.run_checked(batch, "note what is to be undone"));
  }
  // Up and down again, or down and up, by the one who is to be remembered.
  for (const auto& [id, set] : sets) {
    std::map<int, Operations> by_pid;
    auto flush = [&skeletons, id = id](int pid, Operations& operations) -> Result<void> {
      Skeleton& task = skeletons.at(pid);
      STASIS_CHECK(task.prepare());
      Batch batch = task.batch();
      operations.call(batch, id);
      operations.clear();
      return task.run_checked(batch, "remember who changed a semaphore");
    };
    for (int i = 0; i < set->values_size(); ++i) {
      const int pid = set->last_pids(i);
      if (!skeletons.contains(pid)) continue;
      const int first = set->values(i) == kMostSemaphoreValue ? -1 : 1;
      auto& operations = by_pid[pid];
      operations.add(static_cast<uint32_t>(i), first);
      operations.add(static_cast<uint32_t>(i), -first);
      if (operations.size() == Operations::kMost) STASIS_CHECK(flush(pid, operations));
    }
    for (auto& [pid, operations] : by_pid) {
      if (!operations.empty()) STASIS_CHECK(flush(pid, operations));
    }
  }
  return {};
}

}  // namespace stasis::restore
