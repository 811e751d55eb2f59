// What `stasis inspect` says of a checkpoint, computed once for its text and its JSON.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "schema/manifest.pb.h"

namespace stasis::cli {

// One open file description with all its owners.
struct DescriptionView {
  uint32_t id = 0;
  std::string kind;
  std::string shown;
  std::string summary;  // by the kind itself
  struct Owner {
    int pid;
    int number;
    bool close_on_exec;
  };
  std::vector<Owner> owners;  // by process, then number; empty: in flight in a socket, or held by a mapping
  bool shared() const;        // by more than one process
};

struct MemoryView {
  const schema::Memory* memory = nullptr;
  std::vector<int> pids;
  uint64_t mapped = 0;  // bytes of address space
  uint64_t stored = 0;  // bytes of its pages in the image
};

struct SharedMemoryView {
  const schema::SharedMemory* memory = nullptr;
  std::vector<int> pids;
  uint64_t stored = 0;
};

// Processes in the order of a tree, with their depth in it.
struct ProcessView {
  const schema::Process* process = nullptr;
  int depth = 0;
};

struct Inspection {
  std::vector<ProcessView> processes;
  std::vector<DescriptionView> descriptions;
  std::vector<MemoryView> memories;
  std::vector<SharedMemoryView> shared_memories;
};

// Points into the manifest.
Inspection inspect_manifest(const schema::Manifest& manifest);

const char* state_name(schema::Process::State state);
const char* mapping_kind_name(schema::Mapping::Kind kind);
// "rw-"
std::string protection_text(uint32_t protection);

}  // namespace stasis::cli
