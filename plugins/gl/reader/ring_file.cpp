#include "reader/ring_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "generated/commands.h"
#include "reader/ring_reader.h"

namespace stasis::gl {

Ring* map_ring(int file) {
  struct stat status = {};
  if (fstat(file, &status) < 0 || status.st_size < static_cast<off_t>(kRingFileSize)) return nullptr;
  void* room = mmap(nullptr, kRingFileSize + kDataSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (room == MAP_FAILED) return nullptr;
  constexpr int kProtection = PROT_READ | PROT_WRITE;
  char* base = static_cast<char*>(room);
  if (mmap(base, kRingFileSize, kProtection, MAP_SHARED | MAP_FIXED, file, 0) == MAP_FAILED ||
      mmap(base + kRingFileSize, kDataSize, kProtection, MAP_SHARED | MAP_FIXED, file,
           kHeaderSize + kReplySize) == MAP_FAILED)
    return nullptr;
  auto* ring = reinterpret_cast<Ring*>(base);
  const bool ours =
      ring->magic == kRingMagic && ring->version == kRingVersion && ring->table == kCommandTable;
  return ours ? ring : nullptr;
}

RingPlace place_of_ring(int file) {
  Ring* ring = map_ring(file);
  if (ring == nullptr) return {};
  const RingPlace place = {true, ring->program,
                           ring->reader[kKeeper].tail.load() + ring->reply_number.load()};
  munmap(ring, kRingFileSize + kDataSize);
  return place;
}

bool receive(int connection, Message& message) {
  char text[kLongestText];
  iovec data{text, sizeof text};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header = {};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  ssize_t size = 0;
  do size = recvmsg(connection, &header, MSG_CMSG_CLOEXEC);
  while (size < 0 && errno == EINTR);
  if (size <= 0) return false;
  message.text.assign(text, strnlen(text, static_cast<size_t>(size)));
  message.file = -1;
  cmsghdr* passed = CMSG_FIRSTHDR(&header);
  if (passed != nullptr && passed->cmsg_type == SCM_RIGHTS)
    std::memcpy(&message.file, CMSG_DATA(passed), sizeof message.file);
  return true;
}

bool send(int connection, const Message& message) {
  std::string text = message.text + '\0';
  iovec data{text.data(), text.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header = {};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  if (message.file >= 0) {
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    cmsghdr* passed = CMSG_FIRSTHDR(&header);
    passed->cmsg_level = SOL_SOCKET;
    passed->cmsg_type = SCM_RIGHTS;
    passed->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(passed), &message.file, sizeof message.file);
  }
  return sendmsg(connection, &header, MSG_NOSIGNAL) > 0;
}

bool read_all(int file, std::string& bytes) {
  struct stat status = {};
  if (fstat(file, &status) < 0) return false;
  bytes.resize(static_cast<size_t>(status.st_size));
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t size = pread(file, bytes.data() + done, bytes.size() - done, static_cast<off_t>(done));
    if (size <= 0) return false;
    done += static_cast<size_t>(size);
  }
  return true;
}

bool write_all(int file, const std::string& bytes) {
  if (ftruncate(file, 0) < 0) return false;
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t size = pwrite(file, bytes.data() + done, bytes.size() - done, static_cast<off_t>(done));
    if (size < 0) return false;
    done += static_cast<size_t>(size);
  }
  return true;
}

namespace {

constexpr uint64_t kLogMagic = 0x316c67736973ULL << 16 | 0x6174;
constexpr uint32_t kLogVersion = 2;

struct FileHeader {
  uint64_t magic;
  uint32_t version, threads;
  uint64_t table, program, replay_size;
};
struct ThreadHeader {
  uint32_t ring, pad;
  uint64_t position, size;
};

std::string with_error(const std::string& path) { return path + ": " + std::strerror(errno); }

}  // namespace

std::string LogFile::bytes() const {
  std::string bytes;
  bytes.reserve(replay.size() + 4096);
  auto put = [&](const void* from, size_t size) { bytes.append(static_cast<const char*>(from), size); };
  FileHeader header = {kLogMagic,     kLogVersion, static_cast<uint32_t>(threads.size()),
                       kCommandTable, program,     replay.size()};
  put(&header, sizeof header);
  for (const Thread& thread : threads) {
    ThreadHeader one = {thread.ring, 0, thread.position, thread.packets.size()};
    put(&one, sizeof one);
    bytes += thread.packets;
  }
  bytes += replay;
  return bytes;
}

std::string LogFile::write(int into) const {
  return write_all(into, bytes()) ? "" : std::string("write the log: ") + std::strerror(errno);
}

std::string LogFile::read(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  std::string bytes;
  const bool done = file >= 0 && read_all(file, bytes);
  std::string problem = done ? "" : with_error(path);
  if (file >= 0) ::close(file);
  return done ? parse(std::move(bytes), path) : problem;
}

std::string LogFile::parse(std::string bytes, const std::string& path) {
  size_t at = 0;
  auto take = [&](void* into, size_t size) {
    if (size > bytes.size() - at) return false;
    std::memcpy(into, bytes.data() + at, size);
    at += size;
    return true;
  };
  auto take_text = [&](std::string& into, uint64_t size) {
    if (size > bytes.size() - at) return false;
    into = bytes.substr(at, size);
    at += size;
    return true;
  };
  FileHeader header;
  std::string damaged = path + ": it is not a log of OpenGL calls, or damaged";
  if (!take(&header, sizeof header) || header.magic != kLogMagic) return damaged;
  if (header.version != kLogVersion || header.table != kCommandTable)
    return path + ": it was written by another version";
  program = header.program;
  for (uint32_t i = 0; i < header.threads; ++i) {
    ThreadHeader one;
    Thread thread;
    if (!take(&one, sizeof one) || !take_text(thread.packets, one.size)) return damaged;
    thread.ring = one.ring;
    thread.position = one.position;
    threads.push_back(std::move(thread));
  }
  if (header.replay_size > bytes.size() - at) return damaged;
  bytes.resize(at + header.replay_size);
  replay = std::move(bytes.erase(0, at));  // it may be large
  return "";
}

const LogFile::Thread* LogFile::thread(uint32_t ring) const {
  for (const Thread& one : threads) {
    if (one.ring == ring) return &one;
  }
  return nullptr;
}

void for_each_packet(const std::string& packets, const std::function<void(const Packet&)>& handle) {
  for (size_t at = 0; at < packets.size();) {
    if (packets.size() - at < sizeof(Packet)) throw BadStream{"a log ends within a packet"};
    const auto& packet = *reinterpret_cast<const Packet*>(packets.data() + at);
    if (packet.size < sizeof(Packet) || packet.size % 8 != 0 || packet.size > packets.size() - at)
      throw BadStream{"the size of a packet in a log"};
    handle(packet);
    at += packet.size;
  }
}

}  // namespace stasis::gl
