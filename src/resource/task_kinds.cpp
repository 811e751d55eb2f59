#include "resource/task_kinds.h"

namespace stasis::resource {
namespace {

constexpr auto kFull = Support::kFull;
constexpr auto kPartial = Support::kPartial;
constexpr auto kRefused = Support::kRefused;

// Columns: name, group, title, support, note.
constexpr KindInfo kRows[] = {
    {"private-memory", "Memory", "private anonymous memory, heaps, stacks that grow", kFull, ""},
    {"shared-memory", "Memory", "anonymous memory shared with children", kFull, ""},
    {"private-file-mapping", "Memory", "private mappings of files: pages that were written, protections",
     kPartial, "unwritten pages come from the file again, which must be unchanged"},
    {"shared-file-mapping", "Memory", "shared mappings of files", kPartial,
     "what is mapped for reading only has the content of the file at restart"},
    {"huge-pages", "Memory", "transparent and reserved huge pages", kPartial,
     "reserved ones must be available at restart"},
    {"memory-advice", "Memory",
     "madvise and mlock: DONTFORK, WIPEONFORK, HUGEPAGE, DONTDUMP, locked, locked on fault, mlockall", kFull,
     ""},
    {"guard-pages", "Memory", "inaccessible areas, guard pages", kFull, ""},
    {"memory-layout", "Memory", "brk, arguments, environment, auxiliary vector, executable, vDSO", kFull, ""},
    {"sysv-ipc", "Memory",
     "System V shared memory, semaphores with what is to be undone, message queues: ids, keys, owners, "
     "content, limits (sysctls)",
     kPartial,
     "a message that is longer than what is allowed by now refuses the checkpoint; the times that ipcs "
     "shows, and who made or used a segment or queue last, are those of the restart; "
     "reserved huge pages must be available at restart"},
    {"aio-ring", "Memory",
     "contexts of Linux's asynchronous I/O (io_setup), with events that were not collected", kPartial,
     "a checkpoint is refused while disks are at work for a program that has files open with O_DIRECT; "
     "requests that "
     "wait for a file (IOCB_CMD_POLL) do not end after a restart"},
    {"device-mapping", "Memory", "mappings of devices", kRefused,
     "the memory belongs to the hardware; see the plugins"},

    {"tree", "Processes", "process trees: pids, parents, groups, sessions, orphans, sub-reapers", kFull, ""},
    {"zombie", "Processes", "zombies with their exit status", kFull, ""},
    {"stopped", "Processes", "processes stopped by job control", kFull, ""},
    {"vfork", "Processes", "a parent waiting in vfork", kPartial,
     "the checkpoint waits until the child has called exec or ended"},
    {"working-directory", "Processes", "working directory, root, umask, also shared by clone", kPartial,
     "of working directories in /proc whose processes have ended there may be one only, and none in another "
     "mount "
     "namespace"},
    {"control-groups", "Processes",
     "control groups in which processes, threads and the roots of cgroup namespaces are", kPartial,
     "a group that is gone is made again without its settings; an ordinary user's must be open to it"},
    {"process-settings", "Processes",
     "personality, dumpable, OOM score, transparent huge pages, no memory both writable and executable, core "
     "dump filter, no_new_privs, machine check policy, membarrier(), merging of memory, login uid",
     kFull, ""},
    {"call-dispatch", "Processes",
     "system calls that are sent back to the program (PR_SET_SYSCALL_USER_DISPATCH)", kRefused,
     "those that a checkpoint makes in it would be, too"},
    {"shared-memory-processes", "Processes", "processes that share memory without being threads (CLONE_VM)",
     kRefused, "not supported yet"},
    {"own-tables", "Threads", "threads with a descriptor table or working directory of their own (unshare)",
     kRefused, "not supported"},
    {"traced", "Processes", "processes that a debugger traces", kRefused,
     "a process has one tracer only: detach the debugger"},
    {"nested-namespaces", "Processes",
     "containers and sandboxes with namespaces of their own inside the session", kPartial,
     "pids and users at any depth, times, host names, networks, IPC without objects, cgroups and mounts, "
     "also "
     "with a root of their own (pivot_root); those of the program's own user namespaces for everybody, "
     "others as "
     "root; refused: threads in different ones, who has unshared those of its children (pids: before the "
     "first "
     "child; times: always), who has seen its pid namespace end and may not leave it, descriptors that name "
     "a "
     "process outside of the pid namespace; where a user namespace owns the mounts, one that came with "
     "another "
     "one can be unmounted by itself afterwards, and flags that are like those of the session's mount are "
     "locked"},
    {"networks", "Processes",
     "what is in a network of the session's own (launch --net=private), or in one that the program has made: "
     "interfaces (loopback, veth, bridge, macvlan, vlan, ipvlan, dummy, ifb, tun, tap), addresses, routes, "
     "rules, permanent neighbours, settings, packet filters (nftables, and iptables that uses it)",
     kPartial,
     "refused: other kinds of interfaces, and those that lead out of the session; of nftables flow tables, "
     "tables that a program owns and chains within rules; iptables-legacy, IPsec, traffic control, nexthop "
     "objects, VLANs of a bridge; what conntrack knows is forgotten, and packets on their way are lost, as "
     "on "
     "a network"},
    {"mounts", "Processes",
     "what the program has mounted, also what is hidden or unmounted while in use: tmpfs with content, bind "
     "mounts, overlay, proc, devpts, disks; flags and propagation",
     kPartial,
     "refused: file systems that a process serves (FUSE), idmapped mounts, overlays with relative or removed "
     "directories, another root for the session itself; of a file system in memory that is mounted nowhere, "
     "files "
     "to which no open directory leads lose their names; what is hidden beneath another root directory is "
     "private afterwards; a /proc of a pid namespace that has ended; what is written to a disk that the "
     "program "
     "has mounted is not part of a checkpoint; a unix socket whose file is hidden by a mount "
     "cannot be reached by it when that is taken away; in a user namespace, mounts with locked ones on them "
     "that two mount namespaces share are refused, since they cannot be joined again"},

    {"thread", "Threads",
     "threads: ids, names, masks, affinity, scheduling, nice, I/O priority, timer slack; a main thread that "
     "has ended",
     kFull, ""},
    {"registers", "Threads", "registers with AVX, AVX-512, AMX and protection keys", kPartial,
     "the processor at restart must have the features of the one before"},
    {"robust-list", "Threads", "robust lists, clear_child_tid, restartable sequences", kFull, ""},
    {"blocked-call", "Threads", "blocked system calls, with what is left of their timeouts", kFull, ""},

    {"signal-actions", "Signals", "signal actions, alternate stacks", kFull, ""},
    {"pending-signals", "Signals", "pending signals with their siginfo, of threads and processes", kFull, ""},
    {"parent-death-signal", "Signals", "parent-death signal, exit signal", kFull, ""},

    {"interval-timer", "Timers", "setitimer: real, virtual, profiling", kFull, ""},
    {"posix-timer", "Timers", "timer_create: ids, notification, overruns", kFull, ""},
    {"clocks", "Timers", "monotonic and boot clocks that go on where they stopped", kPartial,
     "needs a time namespace; the wall clock is that of the host"},

    {"credentials", "Credentials and limits",
     "user and group ids, supplementary groups, capabilities, securebits", kPartial,
     "an ordinary user can restore only its own ids"},
    {"limits", "Credentials and limits", "resource limits", kPartial,
     "hard limits cannot be raised without root"},
    {"seccomp", "Credentials and limits", "seccomp: strict mode and filters, of single threads and of all",
     kPartial,
     "only root can read filters; when stasis is killed during a checkpoint, a filter may end the program; "
     "filters that "
     "ask another process are refused"},
    {"descriptor-table", "Descriptors",
     "descriptor tables: numbers, close-on-exec, descriptions shared by dup and fork, tables shared by clone",
     kFull, ""},
    {"locks", "Descriptors", "locks: flock, record locks of processes (fcntl) and of open files, leases",
     kPartial,
     "a lock that somebody has taken meanwhile refuses the restart; the time within which a lease must be "
     "given up "
     "begins anew"},
    {"signal-owner", "Descriptors", "whom a descriptor sends signals (F_SETOWN, F_SETSIG, O_ASYNC)", kFull,
     ""},
    {"controlling-terminal", "Terminals", "controlling terminals and foreground groups", kFull, ""},
};

}  // namespace

std::span<const KindInfo> task_kinds() { return kRows; }

}  // namespace stasis::resource
