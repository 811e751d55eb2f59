// The record that the library in a monitor keeps (record.h), read from outside.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "record.h"
#include "stasis/process.h"

namespace stasis::kvm {

// Where a process has its record; nothing: it has none.
std::optional<RemotePtr> find_record(HostTid process);

class RecordReader {
 public:
  // An Error when it is no record of this version.
  static Result<RecordReader> read(HostTid process, RemotePtr address);

  RemotePtr address() const { return address_; }
  const Record& head() const { return *record_; }  // without its log
  std::span<const Vcpu> vcpus() const;
  struct Remembered {
    Entry entry;
    std::string data;
    uint32_t offset = 0;  // in the log, bytes
  };
  // In the order of the requests.
  Result<std::vector<Remembered>> log() const;

 private:
  HostTid process_;
  RemotePtr address_;
  std::unique_ptr<Record> record_;
};

// Memory of a process, which need not stand still.
Result<void> peek(HostTid process, RemotePtr address, std::span<std::byte> into);
Result<void> poke(HostTid process, RemotePtr address, std::span<const std::byte> bytes);

}  // namespace stasis::kvm
