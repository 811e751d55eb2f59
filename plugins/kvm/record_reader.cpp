#include "record_reader.h"

#include <sys/uio.h>

#include <algorithm>
#include <cstring>

#include "stasis/fd.h"

namespace stasis::kvm {
namespace {

constexpr const char* kStep = "read what KVM was asked for";

std::string object(HostTid process) { return fmt::format("task {}", process); }

Error no_sense(HostTid process) {
  return Error{kStep, object(process), "what was remembered makes no sense", "launch it again",
               ErrorCode::kRefused};
}

}  // namespace

std::optional<RemotePtr> find_record(HostTid process) {
  auto maps = read_file(fmt::format("/proc/{}/maps", process));
  if (!maps.ok()) return std::nullopt;
  const std::string name = fmt::format("/memfd:{} (deleted)\n", kMemoryName);
  const size_t found = maps->find(name);
  if (found == std::string::npos) return std::nullopt;
  const size_t line = maps->rfind('\n', found);
  return RemotePtr{std::strtoull(maps->c_str() + (line == std::string::npos ? 0 : line + 1), nullptr, 16)};
}

Result<void> peek(HostTid process, RemotePtr address, std::span<std::byte> into) {
  iovec here{into.data(), into.size()}, there{reinterpret_cast<void*>(address.value), into.size()};
  if (process_vm_readv(process.value, &here, 1, &there, 1, 0) != static_cast<ssize_t>(into.size()))
    return errno_error(kStep, object(process));
  return {};
}

Result<void> poke(HostTid process, RemotePtr address, std::span<const std::byte> bytes) {
  iovec here{const_cast<std::byte*>(bytes.data()), bytes.size()};
  iovec there{reinterpret_cast<void*>(address.value), bytes.size()};
  if (process_vm_writev(process.value, &here, 1, &there, 1, 0) != static_cast<ssize_t>(bytes.size()))
    return errno_error("tell a monitor", object(process));
  return {};
}

Result<RecordReader> RecordReader::read(HostTid process, RemotePtr address) {
  RecordReader reader;
  reader.process_ = process;
  reader.address_ = address;
  reader.record_ = std::make_unique<Record>();
  auto* record = reader.record_.get();
  STASIS_CHECK(peek(process, address, {reinterpret_cast<std::byte*>(record), offsetof(Record, log)}));
  if (record->magic != kMagic || record->version != kVersion || record->used > kLogSize ||
      record->vcpus > kMostVcpus)
    return no_sense(process);
  return reader;
}

std::span<const Vcpu> RecordReader::vcpus() const { return {record_->vcpu, record_->vcpus}; }

Result<std::vector<RecordReader::Remembered>> RecordReader::log() const {
  std::string bytes(record_->used, '\0');
  STASIS_CHECK(peek(process_, address_ + offsetof(Record, log), std::as_writable_bytes(std::span(bytes))));
  std::vector<Remembered> all;
  for (uint32_t offset = 0; offset < bytes.size();) {
    auto& one = all.emplace_back();
    one.offset = offset;
    if (bytes.size() - offset < sizeof(Entry)) return no_sense(process_);
    std::memcpy(&one.entry, bytes.data() + offset, sizeof(Entry));
    const Entry& entry = one.entry;
    if (entry.size < sizeof(Entry) || entry.size > bytes.size() - offset || entry.size % 8 != 0 ||
        entry.carried > entry.size - sizeof(Entry))
      return no_sense(process_);
    one.data = bytes.substr(offset + sizeof(Entry), entry.carried);
    offset += entry.size;
  }
  return all;
}

}  // namespace stasis::kvm
