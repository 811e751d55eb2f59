// stasis-gl-keeper CONNECTION JOURNAL: reads the rings that it receives there, and keeps the pruned log, in
// the journal, too: a keeper that is given the journal of one that has died goes on in its place. Messages:
//
//   (a ring's file)   read it
//   load FILE         begin with this log
//   save              with a file: write the log
//   finish            -> when it is written
//   cut FILE          write the log as it is while the program runs, for a new renderer in the place of one
//   status            what there is
//
// What only the driver knows is asked for before "save" or "cut":
//
//   hold              take nothing more; "ok RING:POSITION ..." says how far the log goes, and "ok" that
//   there
//                     is nothing to ask for
//   meet POSITIONS    take everything before these, where the renderer stands; questions for it go into a
//   file take              with a file that has the answers release           go on; "save" and "cut" do
//   that, too
//
// Each but the first is answered: "ok ...", or what is wrong.
#include <fcntl.h>
#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <climits>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <sstream>
#include <thread>

#include "generated/commands.h"
#include "keeper/journal.h"
#include "keeper/log.h"
#include "reader/ring_file.h"
#include "reader/ring_reader.h"

namespace stasis::gl {

namespace {

class Keeper {
 public:
  Keeper(int connection, int journal) : connection_(connection), journal_(journal) {}

  void run() {
    if (!journal_.is_mapped() || !begin()) {
      fprintf(stderr, "stasis: OpenGL: the journal of a keeper cannot be used\n");
      return;
    }
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
    explicit Reading(Ring* its) : ring(its), taker(its, kKeeper), position(taker.end_of_packet()) {}
    Ring* ring;
    RingReader taker;
    std::atomic<uint64_t> position;  // everything before is in the log
    bool ended = false;
  };

  std::string answer(const Message& message) {
    const std::string& request = message.text;
    if (request.starts_with("load ")) return load(request.substr(5));
    if (request == "save") return save(message.file);
    if (request == "finish") return finish();
    if (request.starts_with("cut ")) return cut(request.substr(4));
    if (request == "status") return status();
    if (request == "hold") return hold();
    if (request.starts_with("meet")) return meet(request.substr(4), message.file);
    if (request == "take") return take(message.file);
    if (request == "release") {
      std::lock_guard lock(mutex_);
      release();
      return "ok";
    }
    return "an unknown request";
  }

  void add_ring(int file) {
    Ring* ring = map_ring(file);
    ::close(file);
    if (ring == nullptr) return;
    program_ = ring->program;
    if (ended_.contains(ring->id)) return;
    auto known = positions_.find(ring->id);
    if (known != positions_.end()) {
      RingReader(ring, kKeeper).skip_to(known->second);
      positions_.erase(known);
    }
    auto reading = std::make_shared<Reading>(ring);
    // What the writer may write over now is not needed any more, whatever happens.
    reading->taker.before_release([this, id = ring->id](uint64_t position) {
      if (last_noted_[id] != position) note(id, position, kNothing);
    });
    {
      std::lock_guard lock(mutex_);
      rings_.push_back(reading);
    }
    std::thread([this, reading] { read(*reading); }).detach();
  }

  static bool is_beginning(const Packet& packet) {
    return packet.op == kOpClear && (view<PClear>(packet).mask & GL_COLOR_BUFFER_BIT) != 0;
  }

  // Follows the program at the distance of a frame.
  void read(Reading& reading) {
    const uint32_t number = reading.ring->id;
    try {
      RingReader looker(reading.ring, kKeeper, RingReader::Way::kLooks);
      uint64_t begun = 0;  // where a picture was begun last
      looker.run([&](const Packet& packet) {
        const uint64_t end = looker.end_of_packet(), position = reading.position.load();
        if (is_beginning(packet)) begun = end - packet.size;
        // Control calls belong to no frame.
        const bool whole = packet.op == kOpSwapBuffers || packet.op == kOpEndOfThread || number == 0;
        const bool too_long = end > position + kLongestFrame;
        if (!whole && !too_long) return true;
        // What draws into no window finishes no frames.
        std::unique_lock lock(mutex_);
        released_.wait(lock, [&] { return !held_; });
        take_until(reading, !whole && begun > position ? begun : end);
        return !reading.ended;
      });
    } catch (const BadStream& bad) {
      fprintf(stderr, "stasis: OpenGL: the program's stream of calls is damaged: %s\n", bad.what.c_str());
    }
    std::lock_guard lock(mutex_);
    log_.end_thread(number);
    std::erase_if(rings_, [&](const auto& one) { return one.get() == &reading; });
  }

  // With the lock.
  void take_until(Reading& reading, uint64_t position) {
    reading.taker.run_to(position, [&](const Packet& packet) {
      reading.ended = packet.op == kOpEndOfThread;
      const uint32_t id = reading.ring->id;
      const uint64_t end = reading.taker.end_of_packet();
      if (reading.ended || log_.add(id, packet)) note(id, end, packet);
      journal_.recorded().fetch_add(1, std::memory_order_relaxed);
      reading.position = end;
      return !reading.ended;
    });
    if (journal_.is_long()) write_journal();
  }
  void note(uint32_t ring, uint64_t position, const Packet& packet) {
    last_noted_[ring] = position;
    journal_.add(ring, position, packet);
  }
  void write_journal() {
    journal_.begin(log_file([](const Reading& one) { return one.position.load(); }).bytes(),
                   log_.questions());
  }

  // With what the keeper before has left, if there was one.
  bool begin() {
    if (journal_.is_empty()) {
      write_journal();
      return true;
    }
    try {
      std::string log, more;
      std::vector<Journal::Entry> entries;
      if (!journal_.read(log, more, [&](const Journal::Entry& entry) { entries.push_back(entry); }))
        return false;
      if (LogFile file; !file.parse(log, "").empty() || !use(file)) return false;
      for_each_packet(more, [&](const Packet& packet) { log_.add(kLoading, packet); });
      log_.end_thread(kLoading);
      for (const Journal::Entry& entry : entries) {
        positions_[entry.ring] = entry.position;
        if (entry.packet->op == kOpEndOfThread) {
          log_.end_thread(entry.ring);
          ended_.insert(entry.ring);
        } else if (entry.packet->op != kOpNothing) {
          log_.add(entry.ring, *entry.packet);
        }
      }
    } catch (const BadStream&) {
      return false;
    }
    write_journal();
    return true;
  }
  bool use(const LogFile& file) {
    program_ = file.program;
    for (const auto& thread : file.threads) for_each_packet(thread.packets, [&](const Packet&) {});
    for_each_packet(file.replay, [&](const Packet& packet) { log_.add(kLoading, packet); });
    log_.end_thread(kLoading);
    for (const auto& thread : file.threads) {
      positions_[thread.ring] = thread.position;
      for_each_packet(thread.packets, [&](const Packet& packet) { log_.add(thread.ring, packet); });
    }
    return true;
  }

  void release() {
    held_ = false;
    released_.notify_all();
  }

  std::string hold() {
    std::lock_guard lock(mutex_);
    if (!log_.has_written()) return "ok";
    held_ = true;
    std::string text = "ok";
    for (const auto& one : rings_)
      text += " " + std::to_string(one->ring->id) + ":" + std::to_string(one->position.load());
    return text;
  }
  std::string meet(const std::string& positions, int into) {
    std::lock_guard lock(mutex_);
    std::istringstream stream(positions);
    char colon = 0;
    uint32_t number = 0;
    for (uint64_t position = 0; stream >> number >> colon >> position;) {
      for (const auto& one : rings_) {
        if (one->ring->id == number) take_until(*one, position);
      }
    }
    questions_ = log_.questions();
    return write_all(into, questions_) ? "ok" : "the questions cannot be written";
  }
  std::string take(int from) {
    std::lock_guard lock(mutex_);
    std::string answers;
    if (!read_all(from, answers)) return "the answers cannot be read";
    try {
      log_.take_answers(questions_, answers);
      write_journal();
    } catch (const BadStream& bad) {
      return bad.what;
    }
    return "ok";
  }

  std::string load(const std::string& path) {
    LogFile file;
    if (std::string problem = file.read(path); !problem.empty()) return problem;
    try {
      (void)use(file);
      file = {};  // its memory is used again
      write_journal();
    } catch (const BadStream& bad) {
      return path + ": " + bad.what;
    }
    return "ok";
  }

  // What is in the rings beyond the log is saved with the program's memory. A copy of this process writes, so
  // that the program, which stands still, does not wait for it.
  std::string save(int into) {
    std::lock_guard lock(mutex_);
    // Of a checkpoint that came to nothing.
    if (writer_ > 0) waitpid(writer_, nullptr, 0);
    writer_ = fork();
    if (writer_ != 0) release();
    if (writer_ < 0) return std::string("no process to write the log: ") + strerror(errno);
    if (writer_ != 0) return "ok";
    const std::string problem = log_file(place_of).write(into);
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
    release();
    for (const auto& one : rings_) one->ring->reader[kRenderer].tail = place_of(*one);
    const int into = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    std::string problem = log_file(place_of).write(into);
    if (into >= 0) ::close(into);
    return problem.empty() ? "ok" : problem;
  }

  // Where a new renderer goes on. A question that is still open is asked again, even when it is in the log:
  // what it does twice (making a context or a surface) nobody has used yet.
  static uint64_t place_of(const Reading& reading) {
    const Ring& ring = *reading.ring;
    const uint64_t position = reading.position.load();
    const bool is_open = ring.questions.load() != ring.reply_number.load();
    return is_open ? std::min(position, ring.last_question.load()) : position;
  }

  template <typename Place>
  LogFile log_file(Place place) {
    LogFile file;
    file.program = program_;
    file.replay = log_.replay();
    auto threads = log_.threads();
    // Of a keeper before, whose rings have not come yet.
    for (const auto& [id, position] : positions_) file.threads.push_back({id, position, threads[id]});
    for (const auto& one : rings_)
      file.threads.push_back({one->ring->id, place(*one), threads[one->ring->id]});
    return file;
  }

  std::string status() {
    std::lock_guard lock(mutex_);
    LogStatistics now = log_.statistics();
    unsigned long long questions = 0;
    std::string driver;
    for (const auto& one : rings_) {
      questions += one->ring->questions.load();
      if (driver.empty()) driver = shown_driver(*one->ring);
    }
    char text[256];
    snprintf(text, sizeof text, "ok recorded=%llu kept=%llu bytes=%llu objects=%llu round_trips=%llu driver=",
             static_cast<unsigned long long>(journal_.recorded().load()),
             static_cast<unsigned long long>(now.kept), static_cast<unsigned long long>(now.bytes),
             static_cast<unsigned long long>(now.objects), questions);
    return text + driver;
  }

  // The program can write there, too.
  static std::string shown_driver(const Ring& ring) {
    std::string name(ring.driver, strnlen(ring.driver, sizeof ring.driver));
    std::erase_if(name, [](char c) { return c < ' ' || c > '~'; });
    return name;
  }

  static constexpr Packet kNothing = {sizeof(Packet), kOpNothing, 0};
  static constexpr uint32_t kLoading = 0xffffffff;
  int connection_;
  std::mutex mutex_;
  Log log_;
  std::condition_variable released_;
  bool held_ = false;
  std::string questions_;
  Journal journal_;
  std::map<uint32_t, uint64_t> positions_;   // from which rings that come are read
  std::map<uint32_t, uint64_t> last_noted_;  // in the journal
  std::set<uint32_t> ended_;
  uint64_t program_ = 0;
  int writer_ = -1;
  std::vector<std::shared_ptr<Reading>> rings_;
};

}  // namespace

}  // namespace stasis::gl

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  // The log is written into the journal again and again: the memory for that stays.
  mallopt(M_MMAP_THRESHOLD, INT_MAX);
  mallopt(M_TRIM_THRESHOLD, INT_MAX);
  stasis::gl::Keeper(atoi(argv[1]), atoi(argv[2])).run();
  _exit(0);
}
