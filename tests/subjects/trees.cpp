// Process trees: who is whose parent, sessions and groups, what happens at an exit after the restart.
#include <sys/resource.h>

#include "subject.h"

CASE(one_child) {
  pid_t parent = getpid();
  pid_t pid = subject::child([=] {
    pid_t self = getpid();
    subject::mark("born");
    subject::await("go");
    CHECK_EQ(getppid(), parent);
    CHECK_EQ(getpid(), self);
    _exit(subject::g_failures == 0 ? 33 : 1);
  });
  subject::await("born");
  subject::hold();
  CHECK_EQ(getpid(), parent);
  int status = 0;
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK(WIFEXITED(status));
  CHECK_EQ(WEXITSTATUS(status), 33);
}

CASE(grandchildren) {
  pid_t pid = subject::child([] {
    pid_t middle = getpid();
    pid_t below[3];
    for (int i = 0; i < 3; ++i) {
      below[i] = subject::child([=] {
        char name[16];
        snprintf(name, sizeof name, "leaf%d", i);
        subject::mark(name);
        subject::await("go");
        CHECK_EQ(getppid(), middle);
        CHECK_EQ(getpgrp(), getpgid(middle));
      });
    }
    subject::await("go");
    for (pid_t p : below) JOIN(p);
  });
  for (const char* leaf : {"leaf0", "leaf1", "leaf2"}) subject::await(leaf);
  subject::hold();
  JOIN(pid);
}

static void descend(int depth) {
  if (depth == 0) {
    subject::mark("bottom");
    subject::await("go");
    return;
  }
  pid_t self = getpid();
  pid_t pid = subject::child([=] {
    descend(depth - 1);
    CHECK_EQ(getppid(), self);
  });
  if (depth < 30) {
    JOIN(pid);  // the checkpoint finds every level inside waitpid
    return;
  }
  subject::await("bottom");
  subject::hold();
  JOIN(pid);
}
CASE(chain_of_thirty) { descend(30); }

CASE(fifty_children) {
  pid_t pids[50];
  pid_t parent = getpid();
  for (int i = 0; i < 50; ++i) {
    pids[i] = subject::child([=] {
      volatile int mine = i;
      char name[16];
      snprintf(name, sizeof name, "c%d", i);
      subject::mark(name);
      subject::await("go", 20);
      CHECK_EQ(mine, i);
      CHECK_EQ(getppid(), parent);
    });
  }
  for (int i = 0; i < 50; ++i) {
    char name[16];
    snprintf(name, sizeof name, "c%d", i);
    subject::await(name);
  }
  subject::hold();
  for (pid_t pid : pids) JOIN(pid);
}

// The parent of an orphan is the session's init; it must not become somebody else's child, nor be waited for
// here.
CASE(orphan) {
  pid_t middle = subject::child([] {
    subject::child([] {
      subject::await("go");
      // With a reaper between the session's init and us the number could be anything but our dead parent's.
      if (getppid() == 1) {
        subject::mark("orphan-well");
      } else {
        subject::say("the orphan's parent is %d", getppid());
      }
    });
  });
  JOIN(middle);
  subject::pass(20);
  subject::hold();
  for (int i = 0; i < 1000 && !subject::marked("orphan-well"); ++i) subject::pass(5);
  // Run without the session's init, the orphan belongs to the host's.
  CHECK(subject::marked("orphan-well"));
  CHECK_EQ(waitpid(-1, nullptr, 0), -1);
}

CASE(daemon) {
  pid_t middle = subject::child([] {
    MUST(setsid() == getpid());
    pid_t session = getpid();
    subject::child([=] {
      subject::mark("born");
      subject::await("go");
      CHECK_EQ(getsid(0), session);  // whose leader is dead
      CHECK_EQ(getpgrp(), session);
      CHECK(kill(session, 0) != 0);
      CHECK_EQ(setsid(), getpid());
      if (subject::g_failures == 0) subject::mark("daemon-well");
    });
  });
  JOIN(middle);
  subject::await("born");
  subject::hold();
  for (int i = 0; i < 1000 && !subject::marked("daemon-well"); ++i) subject::pass(5);
  CHECK(subject::marked("daemon-well"));
}

CASE(sessions_and_groups) {
  pid_t first = subject::child([] {
    MUST(setsid() == getpid());
    subject::mark("first");
    subject::await("go");
    CHECK_EQ(getsid(0), getpid());
    CHECK_EQ(getpgrp(), getpid());
    CHECK_EQ(setsid(), -1);
  });
  pid_t second = subject::child([] {
    MUST(setpgid(0, 0) == 0);
    subject::mark("second");
    subject::await("go");
    CHECK_EQ(getpgrp(), getpid());
    CHECK_EQ(getsid(0), getsid(getppid()));
  });
  subject::await("second");
  pid_t third = subject::child([=] {
    MUST(setpgid(0, second) == 0);
    subject::mark("third");
    subject::await("go");
    CHECK_EQ(getpgrp(), second);
  });
  subject::await("first");
  subject::await("third");
  pid_t session = getsid(0), group = getpgrp();
  subject::hold();
  CHECK_EQ(getsid(0), session);
  CHECK_EQ(getpgrp(), group);
  CHECK_EQ(getpgid(third), second);
  CHECK_EQ(getsid(first), first);
  JOIN(third);
  JOIN(second);
  JOIN(first);
}

CASE(group_whose_leader_is_dead) {
  pid_t leader = subject::child([] {
    MUST(setpgid(0, 0) == 0);
    subject::mark("leader");
    subject::await("member");
  });
  subject::await("leader");
  pid_t member = subject::child([=] {
    MUST(setpgid(0, leader) == 0);
    subject::mark("member");
    subject::await("go");
    CHECK_EQ(getpgrp(), leader);
    subject::mark("checked");
    pause();
  });
  JOIN(leader);
  subject::hold();
  subject::await("checked");
  CHECK_EQ(getpgid(member), leader);
  CHECK_EQ(kill(-leader, SIGTERM), 0);  // a signal to the group still reaches it
  int status = 0;
  CHECK_EQ(waitpid(member, &status, 0), member);
  CHECK(WIFSIGNALED(status));
}

CASE(zombie_with_exit_code) {
  pid_t pid = subject::child([] { _exit(42); });
  while (subject::state_of(pid) != 'Z') subject::pass(1);
  subject::hold();
  CHECK_EQ(subject::state_of(pid), 'Z');
  int status = 0;
  CHECK_EQ(waitpid(pid, &status, WNOHANG), pid);
  CHECK(WIFEXITED(status));
  CHECK_EQ(WEXITSTATUS(status), 42);
}

CASE(zombie_with_signal) {
  pid_t pid = subject::child([] {
    rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    raise(SIGUSR2);
  });
  pid_t second = subject::child([] {
    for (;;) pause();
  });
  kill(second, SIGKILL);
  while (subject::state_of(pid) != 'Z' || subject::state_of(second) != 'Z') subject::pass(1);
  subject::hold();
  int status = 0;
  CHECK_EQ(waitpid(second, &status, WNOHANG), second);
  CHECK(WIFSIGNALED(status));
  CHECK_EQ(WTERMSIG(status), SIGKILL);
  CHECK_EQ(waitpid(pid, &status, WNOHANG), pid);
  CHECK(WIFSIGNALED(status));
  CHECK_EQ(WTERMSIG(status), SIGUSR2);
}

CASE(zombie_leads_group_and_session) {
  pid_t pid = subject::child([] {
    MUST(setsid() == getpid());
    subject::child([] {
      subject::mark("below");
      subject::await("go");
    });
    subject::await("below");
    _exit(7);
  });
  while (subject::state_of(pid) != 'Z') subject::pass(1);
  subject::hold();
  int status = 0;
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK_EQ(WEXITSTATUS(status), 7);
}

// The dead leader of a group, a member of it that is an orphan, and a dead child of that one.
CASE(zombies_of_every_rank) {
  pid_t leader = subject::child([] {
    MUST(setpgid(0, 0) == 0);
    pid_t group = getpid();
    subject::child([=] {
      pid_t dead = subject::child([] { _exit(3); });
      while (subject::state_of(dead) != 'Z') subject::pass(1);
      subject::mark("member");
      subject::await("go");
      CHECK_EQ(getpgrp(), group);
      CHECK_EQ(getpgid(dead), group);
      int status = 0;
      CHECK_EQ(waitpid(dead, &status, 0), dead);
      CHECK_EQ(WEXITSTATUS(status), 3);
      if (subject::g_failures == 0) subject::mark("member-well");
    });
    subject::await("member");
    _exit(8);
  });
  while (subject::state_of(leader) != 'Z') subject::pass(1);
  subject::hold();
  for (int i = 0; i < 1000 && !subject::marked("member-well"); ++i) subject::pass(5);
  CHECK(subject::marked("member-well"));
  int status = 0;
  CHECK_EQ(getpgid(leader), leader);
  CHECK_EQ(waitpid(leader, &status, 0), leader);
  CHECK_EQ(WEXITSTATUS(status), 8);
}

// Whoever ignores SIGCHLD makes no zombies, but keeps those that it has.
CASE(zombie_of_one_that_ignores_its_children) {
  pid_t pid = subject::child([] { _exit(4); });
  while (subject::state_of(pid) != 'Z') subject::pass(1);
  signal(SIGCHLD, SIG_IGN);
  subject::hold();
  CHECK_EQ(subject::state_of(pid), 'Z');
  int status = 0;
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK_EQ(WEXITSTATUS(status), 4);
}

// A child by clone() that tells its end to nobody is found by __WALL only.
CASE(child_without_exit_signal) {
  pid_t pid = static_cast<pid_t>(syscall(SYS_clone, 0, nullptr, nullptr, nullptr, nullptr));
  MUST(pid >= 0);
  if (pid == 0) {
    subject::await("go");
    _exit(6);
  }
  subject::hold();
  subject::pass(50);
  CHECK_EQ(waitpid(-1, nullptr, 0), -1);
  CHECK_EQ(errno, ECHILD);
  int status = 0;
  CHECK_EQ(waitpid(pid, &status, __WALL), pid);
  CHECK_EQ(WEXITSTATUS(status), 6);
}

CASE(child_made_before_setsid) {
  pid_t session = getsid(0);
  pid_t pid = subject::child([=] {
    pid_t below = subject::child([=] {
      subject::mark("below");
      subject::await("go");
      CHECK_EQ(getsid(0), session);
    });
    MUST(setsid() == getpid());
    subject::await("below");
    subject::mark("above");
    subject::await("go");
    CHECK_EQ(getsid(0), getpid());
    JOIN(below);
  });
  subject::await("above");
  subject::hold();
  JOIN(pid);
}

// A sub-reaper has the orphans of three sessions below it: of one whose leader lives, of one whose leader is
// a zombie of its, and of one whose leader is gone.
CASE(subreaper_of_other_sessions) {
  MUST(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
  pid_t self = getpid();
  auto orphan = [=](const char* name, pid_t session) {
    subject::child([=] {
      subject::child([=] {
        while (getppid() != self) subject::pass(1);
        subject::mark(name);
        subject::await("go");
        CHECK_EQ(getppid(), self);
        CHECK_EQ(getsid(0), session);
      });
      _exit(0);
    });
  };
  pid_t living = subject::child([=] {
    pid_t session = setsid();
    orphan("of-living", session);
    while (wait(nullptr) > 0) {
    }
    subject::await("go");
    CHECK_EQ(getsid(0), session);
  });
  subject::await("of-living");
  pid_t zombie = subject::child([=] {
    orphan("of-zombie", setsid());
    while (wait(nullptr) > 0) {
    }
    subject::await("of-zombie");
    _exit(9);
  });
  pid_t gone = subject::child([=] {
    orphan("of-gone", setsid());
    while (wait(nullptr) > 0) {
    }
    subject::await("of-gone");
  });
  JOIN(gone);
  while (subject::state_of(zombie) != 'Z') subject::pass(1);
  subject::hold();
  int status = -1, orphans = 0;
  for (pid_t pid; (pid = waitpid(-1, &status, 0)) > 0;) {
    CHECK_EQ(status, pid == zombie ? 9 << 8 : 0);
    orphans += pid != zombie && pid != living;
  }
  CHECK_EQ(orphans, 3);
}

CASE(stopped_child) {
  pid_t pid = subject::child([] {
    subject::await("continued");
    _exit(5);
  });
  kill(pid, SIGSTOP);
  while (subject::state_of(pid) != 'T') subject::pass(1);
  subject::hold();
  subject::pass(50);
  CHECK_EQ(subject::state_of(pid), 'T');
  // It must not run before SIGCONT, whatever happens.
  subject::mark("continued");
  subject::pass(100);
  CHECK_EQ(waitpid(pid, nullptr, WNOHANG), 0);
  CHECK_EQ(subject::state_of(pid), 'T');
  CHECK_EQ(kill(pid, SIGCONT), 0);
  int status = 0;
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK(WIFEXITED(status));
  CHECK_EQ(WEXITSTATUS(status), 5);
}

static volatile sig_atomic_t g_children_ended;
static volatile pid_t g_child_of_signal;
CASE(death_of_a_child_is_announced) {
  struct sigaction action = {};
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  action.sa_sigaction = [](int, siginfo_t* info, void*) {
    if (info->si_code == CLD_EXITED) {
      g_children_ended = g_children_ended + 1;
      g_child_of_signal = info->si_pid;
    }
  };
  MUST(sigaction(SIGCHLD, &action, nullptr) == 0);
  pid_t pid = subject::child([] { subject::await("end"); });
  subject::hold();
  CHECK_EQ(g_children_ended, 0);  // the checkpoint itself must not send any
  subject::mark("end");
  for (int i = 0; i < 1000 && g_children_ended == 0; ++i) subject::pass(5);
  CHECK_EQ(g_children_ended, 1);
  CHECK_EQ(g_child_of_signal, pid);
  JOIN(pid);
}

// No child that the engine made may be seen by the program.
CASE(no_strange_children) {
  subject::hold();
  CHECK_EQ(waitpid(-1, nullptr, WNOHANG | __WALL), -1);
  CHECK_EQ(errno, ECHILD);
  char tasks[256];
  CHECK(subject::slurp("/proc/thread-self/children", tasks, sizeof tasks) >= 0);
  CHECK_EQ(strlen(tasks), 0u);
}

CASE(parent_waits) {
  pid_t parent = subject::child([] {
    pid_t pid = subject::child([] {
      subject::mark("born");
      subject::await("go");
      subject::pass(50);
      _exit(9);
    });
    int status = 0;
    CHECK_EQ(wait4(pid, &status, 0, nullptr), pid);
    CHECK_EQ(WEXITSTATUS(status), 9);
  });
  subject::await("born");
  subject::await_asleep(parent);
  subject::hold();
  JOIN(parent);
}

// One was a sub-reaper when the leader of a session below it made an orphan, and none when that leader lost
// its own father: the leader went to whoever was above.
CASE(leader_adopted_past_an_ancestor) {
  MUST(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
  pid_t self = getpid(), own_session = getsid(0);
  pid_t between = subject::child([=] {
    pid_t adopter = getpid();
    pid_t early = subject::child([=] {
      subject::await("go");
      CHECK_EQ(getppid(), adopter);
      CHECK_EQ(getsid(0), own_session);
    });
    MUST(setsid() == adopter);
    MUST(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    pid_t father = subject::child([=] {
      subject::child([=] {
        pid_t session = setsid();
        pid_t ends = subject::child([=] {
          subject::child([=] {
            while (getppid() != adopter) subject::pass(1);
            subject::mark("orphan");
            subject::await("go");
            CHECK_EQ(getppid(), adopter);
            CHECK_EQ(getsid(0), session);
          });
          _exit(0);
        });
        JOIN(ends);
        while (getppid() != self) subject::pass(1);
        subject::mark("leader");
        subject::await("go");
        CHECK_EQ(getppid(), self);
        CHECK_EQ(getsid(0), getpid());
      });
      subject::await("orphan");
      subject::await("let-go");
    });
    subject::await("orphan");
    MUST(prctl(PR_SET_CHILD_SUBREAPER, 0) == 0);
    subject::mark("let-go");
    JOIN(father);
    subject::mark("between");
    JOIN(early);
    int status = -1;
    CHECK(waitpid(-1, &status, 0) > 0);
    CHECK_EQ(status, 0);
    CHECK_EQ(waitpid(-1, &status, 0), -1);
  });
  subject::await("leader");
  subject::await("between");
  subject::hold();
  JOIN(between);
  int status = -1;
  CHECK(waitpid(-1, &status, 0) > 0);  // the leader
  CHECK_EQ(status, 0);
  CHECK_EQ(waitpid(-1, &status, 0), -1);
}

CASE(subreaper) {
  MUST(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
  pid_t self = getpid();
  pid_t middle = subject::child([=] {
    subject::child([=] {
      subject::mark("born");
      subject::await("go");
      CHECK_EQ(getppid(), self);
    });
    subject::await("born");
  });
  JOIN(middle);
  subject::hold();
  int is = 0;
  CHECK_EQ(prctl(PR_GET_CHILD_SUBREAPER, &is), 0);
  CHECK_EQ(is, 1);
  int status = -1;
  CHECK(waitpid(-1, &status, 0) > 0);  // the orphan is ours
  CHECK_EQ(status, 0);
}

CASE(new_children_after) {
  pid_t before = subject::child([] {});
  JOIN(before);
  subject::hold();
  for (int i = 0; i < 20; ++i) {
    pid_t pid = subject::child([] {});
    CHECK(pid > 1);
    JOIN(pid);
  }
}

CASE(parent_death_signal) {
  pid_t middle = subject::child([] {
    subject::child([] {
      MUST(prctl(PR_SET_PDEATHSIG, SIGUSR1) == 0);
      struct sigaction action = {};
      action.sa_handler = [](int) { subject::mark("told"); };
      sigaction(SIGUSR1, &action, nullptr);
      subject::mark("born");
      subject::await("told");
    });
    subject::await("end");
  });
  subject::await("born");
  subject::hold();
  CHECK(!subject::marked("told"));
  subject::mark("end");
  JOIN(middle);
  for (int i = 0; i < 1000 && !subject::marked("told"); ++i) subject::pass(5);
  CHECK(subject::marked("told"));
}

CASE(exec_after) {
  pid_t pid = subject::child([] {
    subject::mark("born");
    subject::await("go");
    execl("/bin/sh", "sh", "-c", "exit 0", nullptr);
    _exit(1);
  });
  subject::await("born");
  subject::hold();
  JOIN(pid);
}
