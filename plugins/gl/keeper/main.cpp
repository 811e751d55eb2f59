// stasis-gl-keeper DESCRIPTOR: reads the rings that it receives there, and keeps the pruned log. Messages:
//
//   (a ring's file)   read it
//   load FILE         begin with this log
//   save              with a file: write the log
//   finish            -> when it is written
//   cut FILE          write the log as it is while the program runs, for a new renderer in the place of a
//   dead one status            what there is
//
// Each but the first is answered: "ok ...", or what is wrong.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>

#include "keeper/log.h"
#include "reader/ring_file.h"
#include "reader/ring_reader.h"

namespace stasis::gl {

namespace {

class Keeper {
 public:
  explicit Keeper(int connection) : connection_(connection) {}

  void run() {
    Message message;
    while (receive(connection_, message)) {
      if (message.file >= 0 && message.text == "ring") {
        add_ring(message.file);
      } else {
        send(connection_, {answer(message), -1});
        if (message.file >= 0) ::close(message.file);
      }
    }
  }

 private:
  struct Reading {
    Ring* ring;
    std::atomic<uint64_t> position;
  };

  std::string answer(const Message& message) {
    const std::string& request = message.text;
    if (request.starts_with("load ")) return load(request.substr(5));
    if (request == "save") return save(message.file);
    if (request == "finish") return finish();
    if (request.starts_with("cut ")) return cut(request.substr(4));
    if (request == "status") return status();
    return "an unknown request";
  }

  void add_ring(int file) {
    Ring* ring = map_ring(file);
    ::close(file);
    if (ring == nullptr) return;
    program_ = ring->program;
    auto reading = std::make_shared<Reading>();
    reading->ring = ring;
    const LogFile::Thread* restored = loaded_.thread(ring->id);
    if (restored != nullptr) RingReader(ring, kKeeper).skip_to(restored->position);
    reading->position = ring->reader[kKeeper].tail.load();
    {
      std::lock_guard lock(mutex_);
      rings_.push_back(reading);
    }
    std::thread([this, reading] { read(*reading); }).detach();
  }

  // Follows the program at the distance of a frame.
  void read(Reading& reading) {
    const uint32_t number = reading.ring->id;
    try {
      RingReader taker(reading.ring, kKeeper), looker(reading.ring, kKeeper, RingReader::Way::kLooks);
      bool ended = false;
      auto take = [&](const Packet& packet) {
        ended = packet.op == kOpEndOfThread;
        if (!ended) log_.add(number, packet);
        ++recorded_;
        reading.position = taker.end_of_packet();
        return !ended;
      };
      looker.run([&](const Packet& packet) {
        // Control calls belong to no frame.
        const bool whole = packet.op == kOpSwapBuffers || packet.op == kOpEndOfThread || number == 0 ||
                           looker.end_of_packet() - reading.position.load() > kLongestFrame;
        if (!whole) return true;
        std::lock_guard lock(mutex_);
        taker.run_to(looker.end_of_packet(), take);
        return !ended;
      });
    } catch (const BadStream& bad) {
      fprintf(stderr, "stasis: OpenGL: the program's stream of calls is damaged: %s\n", bad.what.c_str());
    }
    std::lock_guard lock(mutex_);
    log_.end_thread(number);
    std::erase_if(rings_, [&](const auto& one) { return one.get() == &reading; });
  }

  std::string load(const std::string& path) {
    if (std::string problem = loaded_.read(path); !problem.empty()) return problem;
    try {
      for (const auto& thread : loaded_.threads) for_each_packet(thread.packets, [&](const Packet&) {});
      for_each_packet(loaded_.replay, [&](const Packet& packet) { log_.add(kLoading, packet); });
      log_.end_thread(kLoading);
      for (const auto& thread : loaded_.threads)
        for_each_packet(thread.packets, [&](const Packet& packet) { log_.add(thread.ring, packet); });
    } catch (const BadStream& bad) {
      return path + ": " + bad.what;
    }
    return "ok";
  }

  // What is in the rings beyond the log is saved with the program's memory. A copy of this process writes, so
  // that the program, which stands still, does not wait for it.
  std::string save(int into) {
    std::lock_guard lock(mutex_);
    writer_ = fork();
    if (writer_ < 0) return std::string("no process to write the log: ") + strerror(errno);
    if (writer_ != 0) return "ok";
    const std::string problem = log_file().write(into);
    if (!problem.empty()) fprintf(stderr, "stasis: OpenGL: %s\n", problem.c_str());
    _exit(problem.empty() ? 0 : 1);
  }
  std::string finish() {
    std::lock_guard lock(mutex_);
    int status = 1;
    while (writer_ > 0 && waitpid(writer_, &status, 0) < 0 && errno == EINTR) {
    }
    writer_ = -1;
    if (status == 0 && log_.is_incomplete()) return "ok incomplete";
    return status == 0 ? "ok" : "the log could not be written; is the disk full?";
  }

  // A ring keeps what its slowest reader has not seen, so the dead renderer's place in it is where the new
  // one goes on.
  std::string cut(const std::string& path) {
    std::lock_guard lock(mutex_);
    for (const auto& one : rings_) one->ring->reader[kRenderer].tail = one->position.load();
    const int into = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    std::string problem = log_file().write(into);
    if (into >= 0) ::close(into);
    return problem.empty() ? "ok" : problem;
  }

  LogFile log_file() {
    LogFile file;
    file.program = program_;
    file.replay = log_.replay();
    auto threads = log_.threads();
    for (const auto& one : rings_)
      file.threads.push_back({one->ring->id, one->position.load(), threads[one->ring->id]});
    return file;
  }

  std::string status() {
    std::lock_guard lock(mutex_);
    LogStatistics now = log_.statistics();
    char text[256];
    snprintf(text, sizeof text, "ok recorded=%llu kept=%llu bytes=%llu objects=%llu",
             static_cast<unsigned long long>(recorded_), static_cast<unsigned long long>(now.kept),
             static_cast<unsigned long long>(now.bytes), static_cast<unsigned long long>(now.objects));
    return text;
  }

  static constexpr uint32_t kLoading = 0xffffffff;
  int connection_;
  std::mutex mutex_;
  Log log_;
  LogFile loaded_;
  uint64_t program_ = 0, recorded_ = 0;
  int writer_ = -1;
  std::vector<std::shared_ptr<Reading>> rings_;
};

}  // namespace

}  // namespace stasis::gl

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  stasis::gl::Keeper(atoi(argv[1])).run();
  _exit(0);
}
