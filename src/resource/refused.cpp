#include "resource/refused.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "resource/refusal.h"

namespace stasis::resource {
namespace {

// The kernel writes most names of anonymous inodes in brackets and some without.
bool is_anonymous(const OpenFile& file, std::string_view name) {
  constexpr std::string_view kPrefix = "anon_inode:";
  std::string_view link = file.link;
  if (!link.starts_with(kPrefix)) return false;
  link.remove_prefix(kPrefix.size());
  if (link.starts_with('[')) link.remove_prefix(1);
  return link.starts_with(name);
}

bool is_character_device(const OpenFile& file, unsigned number_major) {
  return S_ISCHR(file.status.st_mode) && major(file.status.st_rdev) == number_major;
}

bool is_misc_device(const OpenFile& file, unsigned number_minor) {
  return is_character_device(file, 10) && minor(file.status.st_rdev) == number_minor;
}

// Columns: name, group, title, cause, remedy, how to tell. Device numbers:
// Documentation/admin-guide/devices.txt.
constexpr RefusedRow kRows[] = {
    {"io_uring", "Descriptors", "io_uring",
     "requests are under way in the kernel, and its rings are shared with the program in a way that cannot "
     "be rebuilt",
     "run the program without io_uring (libuv: UV_USE_IO_URING=0; nginx, Redis and PostgreSQL do without)",
     [](const OpenFile& file) { return is_anonymous(file, "io_uring"); }},
    {"perf-event", "Descriptors", "perf events", "its counters belong to the hardware", "stop profiling",
     [](const OpenFile& file) { return is_anonymous(file, "perf_event"); }},
    {"bpf", "Descriptors", "BPF programs, maps and links", "the kernel does not give a loaded program back",
     "unload it before a checkpoint", [](const OpenFile& file) { return is_anonymous(file, "bpf"); }},
    {"userfaultfd", "Memory", "userfaultfd", "page faults of the program wait in it for an answer",
     "run the program without userfaultfd",
     [](const OpenFile& file) { return is_anonymous(file, "userfaultfd"); }},
    {"seccomp-listener", "Processes", "seccomp notification listeners",
     "system calls of another process wait in it for an answer", "end the sandbox supervisor",
     [](const OpenFile& file) { return is_anonymous(file, "seccomp"); }},
    {"landlock", "Credentials and limits", "Landlock rule sets", "the kernel does not show its rules",
     "close it after landlock_restrict_self()",
     [](const OpenFile& file) { return is_anonymous(file, "landlock"); }},
    {"mount-context", "Descriptors", "file system contexts (fsopen, fspick)",
     "a mount is being prepared in it", "try again when the mount is done",
     [](const OpenFile& file) { return is_anonymous(file, "fscontext"); }},
    {"gpu", "Devices", "GPU devices (/dev/dri, /dev/nvidia*, /dev/kfd), DMA buffers",
     "the state of the graphics is in the hardware and its driver",
     "launch with the plugin for OpenGL, or with a software renderer",
     [](const OpenFile& file) {
       return is_character_device(file, 226) || is_character_device(file, 195) ||
              file.link.starts_with("/dev/nvidia") || file.link.starts_with("/dev/kfd") ||
              file.link.starts_with("/dmabuf:") || is_anonymous(file, "sync_file") ||
              is_anonymous(file, "dmabuf");
     }},
    {"sound", "Devices", "sound devices", "what is playing is in the hardware",
     "use a sound server, or close it",
     [](const OpenFile& file) { return is_character_device(file, 116) || is_character_device(file, 14); }},
    {"input", "Devices", "input devices", "events that were not read are in the kernel", "close it",
     [](const OpenFile& file) { return is_character_device(file, 13); }},
    {"fuse", "Devices", "FUSE connections", "requests to the file system wait in it for an answer",
     "unmount it before a checkpoint", [](const OpenFile& file) { return is_misc_device(file, 229); }},
    {"secret-memory", "Memory", "memfd_secret", "only the program itself can see what is in it",
     "the kernel must be started with secretmem.enable=0",
     [](const OpenFile& file) { return file.link.starts_with("/secretmem"); }},
};

// After everything else.
constexpr RefusedRow kUnknown = {"unknown",
                                 "Descriptors",
                                 "every other kind of descriptor",
                                 "nothing is known of this kind of descriptor",
                                 "close it, and please report it",
                                 [](const OpenFile&) { return true; }};

}  // namespace

KindInfo RefusedKind::info() const {
  return {row_.name, row_.group, row_.title, Support::kRefused, row_.cause};
}

bool RefusedKind::recognises(const OpenFile& file, const Observation&) const { return row_.matches(file); }

Result<std::string> RefusedKind::observe(const OpenFile& file, Observation&) const {
  return refusal(file, fmt::format("{}: {}", row_.title, row_.cause), std::string(row_.remedy));
}

// An image never has one, but for forged ones.
Result<Fd> RefusedKind::make(const Record& record, Making&) const {
  return Error{"restore " + record.describe(),
               std::string(row_.title),
               std::string(row_.cause),
               {},
               ErrorCode::kRefused};
}

std::span<const RefusedRow> refused_rows() { return kRows; }
const RefusedRow& unknown_row() { return kUnknown; }

}  // namespace stasis::resource
