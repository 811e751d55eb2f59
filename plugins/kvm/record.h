// What the library in the monitor remembers for the plugin in the engine: memory of the monitor with a name,
// a memfd, by which the engine finds it. It is saved and restored with all the other memory.
//
// A log of those requests whose effect the kernel does not tell (rules.h), from which superseded ones are
// removed; the rest in the order in which they were made. `lock` is held from before a request until it is in
// the log: while it is free, log and kernel agree.
#pragma once

#include <cstdint>

namespace stasis::kvm {

inline constexpr char kMemoryName[] = "stasis-kvm";
inline constexpr uint64_t kMagic = 0x6b766d2d73746173;  // "stas-kvm"
inline constexpr uint32_t kVersion = 1;
inline constexpr uint32_t kMostVcpus = 1024;
inline constexpr uint32_t kMostNumbers = 4096;  // descriptors of vCPUs are below
inline constexpr uint32_t kLogSize = 1 << 20;   // bytes

// What is known of a vCPU's last request to run. A device that it has accessed is served by the monitor, and
// the access is complete only when the vCPU is run again.
enum Progress : uint32_t {
  kComplete = 0,
  kAccessing = 1,
  kInside = 2,  // or: the request is being made, or has just returned
};

struct Vcpu {
  int32_t number;     // of its descriptor
  int32_t tid;        // of the thread that runs it, as it knows itself
  uint32_t progress;  // Progress, with kInside as a bit
  uint32_t waived;    // the value of `hold` for which it has waited long enough
};

// One request in the log.
struct Entry {
  uint32_t size;     // of it with what it carries, bytes; a multiple of 8
  uint32_t request;  // KVM_*
  int32_t number;    // the descriptor that it was made to
  int32_t made;      // the descriptor that it made; -1: none
  // Event descriptors that it carries by number: as fdinfo identifies what they are of ("eventfd-id"), since
  // numbers change hands; kNoEvent; or, where there is no /proc, as of_number().
  int32_t events[2];
  uint32_t carried;  // bytes that follow
  uint32_t flags;
};
inline constexpr int32_t kNoEvent = -1;
constexpr int32_t of_number(int32_t number) { return -2 - number; }  // its own inverse
// Of a slot of memory that is watched for changes: after a restart the kernel does not know what had been
// written, so all of it is reported once.
inline constexpr uint32_t kReportAll = 1;

struct Record {
  uint64_t magic;
  uint32_t version;
  int32_t owner;  // its process
  uint32_t lock;
  uint32_t hold;     // not 0: a checkpoint wants vCPUs to stand outside of accesses to devices
  uint32_t lost;     // something did not fit, or could not be read
  uint32_t unknown;  // the last request of which nothing is known
  uint32_t vcpus;    // how many
  uint32_t used;     // bytes of the log
  uint16_t by_number[kMostNumbers];  // index into `vcpu` plus 1
  Vcpu vcpu[kMostVcpus];
  alignas(8) unsigned char log[kLogSize];
};

}  // namespace stasis::kvm
