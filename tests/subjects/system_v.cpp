// System V shared memory, semaphores and message queues: they belong to the session, not to a process.
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

#include "subject.h"

using subject::differs;
using subject::fill;

namespace {

constexpr size_t kPage = 4096;
constexpr size_t kSize = 32 * kPage;

uint8_t* attach(int id, const void* at = nullptr, int flags = 0) {
  void* memory = shmat(id, at, flags);
  MUST(memory != reinterpret_cast<void*>(-1));
  return static_cast<uint8_t*>(memory);
}
shmid_ds state_of_segment(int id) {
  shmid_ds state = {};
  CHECK_EQ(shmctl(id, IPC_STAT, &state), 0);
  return state;
}
int new_segment(key_t key, size_t size, int mode) {
  int id = shmget(key, size, IPC_CREAT | IPC_EXCL | mode);
  MUST(id >= 0);
  return id;
}

// Ids of fresh namespaces are all alike. After some coming and going they are not.
void use_up_ids() {
  for (int i = 0; i < 150; ++i) {
    int segment = shmget(IPC_PRIVATE, 1, 0600);
    int set = semget(IPC_PRIVATE, 1, 0600);
    int queue = msgget(IPC_PRIVATE, 0600);
    MUST(segment >= 0 && set >= 0 && queue >= 0);
    MUST(shmctl(segment, IPC_RMID, nullptr) == 0 && semctl(set, 0, IPC_RMID) == 0 &&
         msgctl(queue, IPC_RMID, nullptr) == 0);
  }
}

void change(int set, int number, int by, int flags = 0) {
  sembuf operation = {static_cast<unsigned short>(number), static_cast<short>(by), static_cast<short>(flags)};
  MUST(semop(set, &operation, 1) == 0);
}

struct Message {
  long type;
  char text[256];
};
void send(int queue, long type, const char* text) {
  Message message = {type, {}};
  strcpy(message.text, text);
  MUST(msgsnd(queue, &message, strlen(text), 0) == 0);
}
void receive(int queue, long wanted, long type, const char* text) {
  Message message = {};
  CHECK_EQ(msgrcv(queue, &message, sizeof message.text, wanted, IPC_NOWAIT),
           static_cast<ssize_t>(strlen(text)));
  CHECK_EQ(message.type, type);
  if (strcmp(message.text, text) != 0) subject::say("got \"%s\", expected \"%s\"", message.text, text);
  CHECK_EQ(strcmp(message.text, text), 0);
}

}  // namespace

CASE(segment_with_key_and_mode) {
  use_up_ids();
  int id = new_segment(0x5717a, kSize - 100, 0640);
  auto* memory = attach(id);
  fill(memory, kSize - 104, 1);
  subject::hold();
  CHECK_EQ(differs(memory, kSize - 104, 1), -1);
  CHECK_EQ(shmget(0x5717a, 0, 0), id);
  shmid_ds state = state_of_segment(id);
  CHECK_EQ(state.shm_segsz, kSize - 100);
  CHECK_EQ(state.shm_perm.mode, 0640);
  CHECK_EQ(state.shm_perm.uid, geteuid());
  CHECK_EQ(state.shm_perm.cuid, geteuid());
  CHECK_EQ(state.shm_perm.gid, getegid());
  CHECK_EQ(state.shm_nattch, 1);
  CHECK_EQ(shmdt(memory), 0);
  CHECK_EQ(state_of_segment(id).shm_nattch, 0);
  memory = attach(id);
  CHECK_EQ(differs(memory, kSize - 104, 1), -1);
  CHECK_EQ(shmctl(id, IPC_RMID, nullptr), 0);
}

CASE(segments_of_many_processes) {
  int id = new_segment(IPC_PRIVATE, kSize, 0600);
  auto* memory = attach(id);
  fill(memory, kSize, 2);
  auto* turn = reinterpret_cast<volatile int*>(memory + kSize - kPage);
  *turn = 0;
  pid_t children[3];
  for (int i = 0; i < 3; ++i) {
    children[i] = subject::child([=] {
      // One by inheritance, one at an address of its own, one that only reads.
      auto* mine = memory;
      if (i == 1) mine = attach(id);
      if (i == 2) mine = attach(id, nullptr, SHM_RDONLY);
      if (i != 0) MUST(shmdt(memory) == 0);
      subject::mark(i == 0 ? "first" : i == 1 ? "second" : "third");
      subject::await("go");
      CHECK_EQ(differs(mine, kSize - kPage, 2), -1);
      auto* my_turn = reinterpret_cast<volatile int*>(mine + kSize - kPage);
      if (i == 2) {
        CHECK_EQ(mprotect(mine, kPage, PROT_READ | PROT_WRITE), -1);
        for (int n = 0; n < 2000 && *my_turn != 2; ++n) subject::pass(1);
        CHECK_EQ(*my_turn, 2);
        subject::mark("seen");
        return;
      }
      for (int n = 0; n < 2000 && *my_turn != i; ++n) subject::pass(1);
      CHECK_EQ(*my_turn, i);
      *my_turn = i + 1;
      subject::await("seen");
    });
  }
  for (const char* name : {"first", "second", "third"}) subject::await(name);
  subject::hold();
  CHECK_EQ(state_of_segment(id).shm_nattch <= 4, true);
  for (pid_t pid : children) JOIN(pid);
  CHECK_EQ(state_of_segment(id).shm_nattch, 1);
  CHECK_EQ(shmctl(id, IPC_RMID, nullptr), 0);
}

// While it runs on after a checkpoint nothing of ours may count as a user.
CASE_WITH(attachments_are_counted, subject::kBusy) {
  int id = new_segment(IPC_PRIVATE, 4 << 20, 0600);
  auto* memory = attach(id);
  auto* again = attach(id);
  fill(memory, 4 << 20, 9);
  for (;;) {
    CHECK_EQ(state_of_segment(id).shm_nattch, 2);
    subject::answer();
    if (!subject::marked("ready")) subject::ready();
    if (subject::told_to_go()) break;
    if (subject::g_failures != 0) break;
  }
  subject::wait();
  CHECK_EQ(differs(again, 4 << 20, 9), -1);
  CHECK_EQ(shmctl(id, IPC_RMID, nullptr), 0);
}

CASE(removed_segment) {
  int id = new_segment(77, kSize, 0600);
  auto* memory = attach(id);
  fill(memory, kSize, 3);
  MUST(shmctl(id, IPC_RMID, nullptr) == 0);
  // Its key is free at once.
  int next = new_segment(77, kPage, 0600);
  MUST(next != id);
  subject::hold();
  CHECK_EQ(differs(memory, kSize, 3), -1);
  CHECK_EQ(shmget(77, 0, 0), next);
  CHECK_EQ((state_of_segment(id).shm_perm.mode & SHM_DEST) != 0, true);
  CHECK_EQ(state_of_segment(id).shm_nattch, 1);
  auto* second = attach(id);
  second[5] = 0x77;
  CHECK_EQ(memory[5], 0x77);
  CHECK_EQ(shmdt(second), 0);
  CHECK_EQ(shmdt(memory), 0);
  shmid_ds state;
  CHECK_EQ(shmctl(id, IPC_STAT, &state), -1);
  CHECK_EQ(errno, EINVAL);
  CHECK_EQ(shmctl(next, IPC_RMID, nullptr), 0);
}

CASE(segment_that_nobody_has_attached) {
  int id = new_segment(IPC_PRIVATE, kSize, 0400);
  auto* memory = attach(id, nullptr, SHM_RDONLY);
  MUST(memory[0] == 0);
  shmid_ds state = state_of_segment(id);
  state.shm_perm.mode = 0600;
  MUST(shmctl(id, IPC_SET, &state) == 0);
  MUST(shmdt(memory) == 0);
  memory = attach(id);
  fill(memory, kSize, 4);
  MUST(shmdt(memory) == 0);
  subject::hold();
  memory = attach(id);
  CHECK_EQ(differs(memory, kSize, 4), -1);
  CHECK_EQ(shmctl(id, IPC_RMID, nullptr), 0);
}

CASE(parts_of_a_segment) {
  int id = new_segment(IPC_PRIVATE, kSize, 0600);
  auto* memory = attach(id);
  fill(memory, kSize, 5);
  // A hole, a piece that only reads, and one that has moved.
  MUST(munmap(memory + 4 * kPage, 2 * kPage) == 0);
  MUST(mprotect(memory + 8 * kPage, kPage, PROT_READ) == 0);
  auto* room = subject::map(4 * kPage, PROT_NONE);
  auto* moved = static_cast<uint8_t*>(
      mremap(memory + 20 * kPage, 2 * kPage, 2 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, room + kPage));
  MUST(moved == room + kPage);
  auto attached = state_of_segment(id).shm_nattch;
  subject::hold();
  CHECK_EQ(state_of_segment(id).shm_nattch, attached);
  auto* whole = attach(id);
  CHECK_EQ(differs(whole, kSize, 5), -1);
  whole[20 * kPage + 7] = 0x55;
  CHECK_EQ(moved[7], 0x55);
  CHECK_EQ(mprotect(memory + 8 * kPage, kPage, PROT_READ | PROT_WRITE), 0);
  memory[8 * kPage] = 0x66;
  CHECK_EQ(whole[8 * kPage], 0x66);
  memory[31 * kPage] = 0x67;
  CHECK_EQ(whole[31 * kPage], 0x67);
  CHECK_EQ(shmctl(id, IPC_RMID, nullptr), 0);
}

CASE(sparse_segment) {
  constexpr size_t kLarge = size_t{1} << 30;
  int id = new_segment(IPC_PRIVATE, kLarge, 0600);
  auto* memory = attach(id);
  memory[kLarge / 2] = 1;
  subject::hold();
  CHECK_EQ(memory[kLarge / 2], 1);
  CHECK_EQ(memory[kLarge / 2 + kPage], 0);
  shm_info info = {};
  CHECK(shmctl(0, SHM_INFO, reinterpret_cast<shmid_ds*>(&info)) >= 0);
  CHECK_BETWEEN(info.shm_rss, 1u, 64u);  // pages
  CHECK_EQ(shmctl(id, IPC_RMID, nullptr), 0);
}

// They are those of a new namespace until somebody changes them.
struct Setting {
  const char* name;  // below /proc/sys
  const char* value;
};
constexpr Setting kSettings[] = {
    {"kernel/shmmax", "1048576"},
    {"kernel/shmall", "100000"},
    {"kernel/shmmni", "77"},
    {"kernel/msgmax", "99"},
    {"kernel/msgmnb", "999"},
    {"kernel/msgmni", "55"},
    {"kernel/sem", "123\t4567\t89\t44"},
    {"kernel/shm_rmid_forced", "1"},
    {"kernel/sem_next_id", "4711"},
    {"fs/mqueue/msg_max", "33"},
    {"fs/mqueue/queues_max", "44"},
    {"fs/mqueue/msgsize_default", "4096"},
};

void set_limits() {
  for (const Setting& setting : kSettings) {
    char name[64];
    snprintf(name, sizeof name, "/proc/sys/%s", setting.name);
    int fd = open(name, O_WRONLY);
    MUST(fd >= 0);
    MUST(write(fd, setting.value, strlen(setting.value)) == static_cast<ssize_t>(strlen(setting.value)));
    close(fd);
  }
}

void expect_limits() {
  for (const Setting& setting : kSettings) {
    char name[64], value[64];
    snprintf(name, sizeof name, "/proc/sys/%s", setting.name);
    MUST(subject::slurp(name, value, sizeof value) > 0);
    value[strcspn(value, "\n")] = 0;
    if (strcmp(value, setting.value) != 0) subject::say("%s is %s", setting.name, value);
    CHECK_EQ(strcmp(value, setting.value), 0);
  }
}

CASE(limits_of_the_session) {
  if (access("/proc/sys/kernel/shmmax", W_OK) != 0) SKIP("only root can change these limits");
  // What is there may be more than what is allowed by now.
  int queue = msgget(IPC_PRIVATE, 0600);
  MUST(queue >= 0);
  for (int i = 1; i <= 100; ++i) send(queue, i, "one of many messages");
  set_limits();
  subject::hold();
  expect_limits();
  for (int i = 1; i <= 100; ++i) receive(queue, 0, i, "one of many messages");
  CHECK_EQ(semget(IPC_PRIVATE, 1, 0600), 4711);
}

CASE(limits_of_a_namespace_of_its_own) {
  if (unshare(CLONE_NEWIPC) != 0) SKIP("only root has IPC namespaces here");
  set_limits();
  subject::hold();
  expect_limits();
}

CASE(semaphores_with_key_and_values) {
  use_up_ids();
  int set = semget(0x5ee, 4, IPC_CREAT | 0620);
  MUST(set >= 0);
  unsigned short values[4] = {0, 7, 32767, 1}, now[4] = {};
  MUST(semctl(set, 0, SETALL, values) == 0);
  pid_t other = subject::child([=] {
    change(set, 1, 2);
    subject::mark("changed");
    subject::await("go");
  });
  subject::await("changed");
  change(set, 2, -1);
  subject::hold();
  CHECK_EQ(semget(0x5ee, 4, 0), set);
  CHECK_EQ(semctl(set, 0, GETALL, now), 0);
  CHECK_EQ(now[0], 0);
  CHECK_EQ(now[1], 9);
  CHECK_EQ(now[2], 32766);
  CHECK_EQ(now[3], 1);
  CHECK_EQ(semctl(set, 1, GETPID), other);
  CHECK_EQ(semctl(set, 2, GETPID), getpid());
  semid_ds state = {};
  CHECK_EQ(semctl(set, 0, IPC_STAT, &state), 0);
  CHECK_EQ(state.sem_perm.mode, 0620);
  CHECK_EQ(state.sem_nsems, 4);
  JOIN(other);
  CHECK_EQ(semctl(set, 0, IPC_RMID), 0);
}

// What a process has taken with SEM_UNDO is given back when it ends, also when it ends in another life.
CASE(what_is_undone_at_the_end) {
  constexpr int kMany = 90;
  int set = semget(IPC_PRIVATE, kMany, IPC_CREAT | 0600);
  MUST(set >= 0);
  unsigned short values[kMany], now[kMany] = {};
  for (auto& value : values) value = 100;
  values[5] = 32767;
  values[6] = 0;
  MUST(semctl(set, 0, SETALL, values) == 0);
  pid_t holder = subject::child([=] {
    change(set, 0, -1, SEM_UNDO);
    change(set, 1, 5, SEM_UNDO);
    change(set, 2, -40, SEM_UNDO);
    change(set, 2, 10, SEM_UNDO);
    change(set, 3, -1, SEM_UNDO);
    change(set, 3, 1, SEM_UNDO);
    change(set, 5, -32767, SEM_UNDO);  // the largest there is
    change(set, 6, 32767, SEM_UNDO);
    change(set, 85, -1, SEM_UNDO);
    subject::mark("held");
    subject::await("end");
  });
  subject::await("held");
  change(set, 4, 1, SEM_UNDO);
  subject::hold();
  CHECK_EQ(semctl(set, 0, GETVAL), 99);
  CHECK_EQ(semctl(set, 1, GETVAL), 105);
  CHECK_EQ(semctl(set, 2, GETVAL), 70);
  CHECK_EQ(semctl(set, 4, GETVAL), 101);
  CHECK_EQ(semctl(set, 5, GETVAL), 0);
  CHECK_EQ(semctl(set, 6, GETVAL), 32767);
  CHECK_EQ(semctl(set, 85, GETVAL), 99);
  subject::mark("end");
  JOIN(holder);
  CHECK_EQ(semctl(set, 0, GETALL, now), 0);
  for (int i = 0; i < kMany; ++i) {
    if (i == 4) continue;
    if (now[i] != values[i]) subject::say("semaphore %d is %d", i, now[i]);
    CHECK_EQ(now[i], values[i]);
  }
  CHECK_EQ(now[4], 101);
  CHECK_EQ(semctl(set, 0, IPC_RMID), 0);
}

CASE(several_wait_for_a_semaphore) {
  int set = semget(IPC_PRIVATE, 2, IPC_CREAT | 0600);
  MUST(set >= 0);
  change(set, 1, 1);
  pid_t down = subject::child([=] {
    sembuf both[2] = {{0, -3, SEM_UNDO}, {1, 0, 0}};
    CHECK_EQ(semop(set, both, 2), 0);
  });
  pid_t zero_waiter = subject::child([=] {
    sembuf zero = {1, 0, 0};
    CHECK_EQ(semop(set, &zero, 1), 0);
  });
  subject::await_asleep(down);
  subject::await_asleep(zero_waiter);
  subject::hold();
  subject::await_asleep(down);
  subject::await_asleep(zero_waiter);
  CHECK_EQ(semctl(set, 1, GETZCNT), 1);
  CHECK_EQ(semctl(set, 0, GETNCNT), 1);
  change(set, 0, 3);
  change(set, 1, -1);
  JOIN(zero_waiter);
  JOIN(down);
  CHECK_EQ(semctl(set, 0, GETVAL), 3);
  CHECK_EQ(semctl(set, 0, IPC_RMID), 0);
}

CASE(queue_with_messages) {
  use_up_ids();
  int queue = msgget(0x9e0e, IPC_CREAT | 0660);
  MUST(queue >= 0);
  int empty = msgget(IPC_PRIVATE, 0600);
  MUST(empty >= 0);
  send(queue, 3, "first");
  send(queue, 1, "second");
  send(queue, 3, "");
  send(queue, 2, "fourth");
  send(queue, 1, "fifth");
  subject::hold();
  CHECK_EQ(msgget(0x9e0e, 0), queue);
  msqid_ds state = {};
  CHECK_EQ(msgctl(queue, IPC_STAT, &state), 0);
  CHECK_EQ(state.msg_perm.mode, 0660);
  CHECK_EQ(state.msg_perm.uid, geteuid());
  CHECK_EQ(state.msg_qnum, 5);
  CHECK_EQ(state.__msg_cbytes, 22);
  receive(queue, 0, 3, "first");
  receive(queue, -2, 1, "second");
  receive(queue, 2, 2, "fourth");
  receive(queue, 0, 3, "");
  receive(queue, 0, 1, "fifth");
  Message message;
  CHECK_EQ(msgrcv(empty, &message, sizeof message.text, 0, IPC_NOWAIT), -1);
  CHECK_EQ(errno, ENOMSG);
  CHECK_EQ(msgctl(queue, IPC_RMID, nullptr), 0);
  CHECK_EQ(msgctl(empty, IPC_RMID, nullptr), 0);
}

CASE(full_queue_with_a_waiting_sender) {
  int queue = msgget(IPC_PRIVATE, 0600);
  MUST(queue >= 0);
  msqid_ds state = {};
  MUST(msgctl(queue, IPC_STAT, &state) == 0);
  for (int i = 0; i < 8; ++i) send(queue, i + 1, "0123456789");
  // It holds more than it is allowed to now.
  state.msg_qbytes = 50;
  MUST(msgctl(queue, IPC_SET, &state) == 0);
  pid_t sender = subject::child([=] { send(queue, 99, "late"); });
  subject::await_asleep(sender);
  subject::hold();
  CHECK_EQ(msgctl(queue, IPC_STAT, &state), 0);
  CHECK_EQ(state.msg_qbytes, 50);
  CHECK_EQ(state.msg_qnum, 8);
  for (int i = 0; i < 8; ++i) receive(queue, 0, i + 1, "0123456789");
  JOIN(sender);
  receive(queue, 0, 99, "late");
  CHECK_EQ(msgctl(queue, IPC_RMID, nullptr), 0);
}
