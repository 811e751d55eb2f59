// stasis-gl-server SOCKET [--no-keeper] [--restore DIRECTORY DISPLAY PID...]
//
// For each program that connects, a renderer and a keeper, to which its rings are passed on. With --restore
// the rings are looked for in the processes PID, which stand still, and their logs in DIRECTORY; "ready" on
// standard output says that they may go on. A connection that sends no ring is one of stasis:
//
//   save DIRECTORY   the keepers write their logs there: gl-NUMBER.log for each program
//   status           a line for each program
//   move NAME=VALUE  the programs go on with a renderer that has this in its environment: another driver
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "reader/ring_file.h"

namespace stasis::gl {

namespace {

std::string directory_of_program() {
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
  if (length < 0) return ".";
  const std::string whole(path, static_cast<size_t>(length));
  return whole.substr(0, whole.rfind('/'));
}

std::string log_name(const std::string& directory, uint64_t program) {
  char name[64];
  snprintf(name, sizeof name, "/gl-%016llx.log", static_cast<unsigned long long>(program));
  return directory + name;
}

// Another process of ours, which answers what it is asked.
class Helper {
 public:
  Helper(const std::string& program, const std::vector<std::string>& environment = {}) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) return;
    pid_ = fork();
    if (pid_ == 0) {
      for (const std::string& one : environment) putenv(strdup(one.c_str()));
      fcntl(ends[1], F_SETFD, 0);
      setenv("__GLX_VENDOR_LIBRARY_NAME", "mesa", 1);
      unsetenv("STASIS_GL_SOCKET");
      execl(program.c_str(), program.c_str(), std::to_string(ends[1]).c_str(), nullptr);
      fprintf(stderr, "stasis: OpenGL: %s: %s\n", program.c_str(), strerror(errno));
      _exit(127);
    }
    close(ends[1]);
    connection_ = ends[0];
  }
  ~Helper() {
    if (connection_ >= 0) close(connection_);
  }
  Helper(const Helper&) = delete;
  Helper& operator=(const Helper&) = delete;

  int pid() const { return pid_; }
  void pass(int file) { send(connection_, {"ring", file}); }
  std::string ask(const std::string& request, int file = -1) {
    Message answer;
    if (!send(connection_, {request, file}) || !receive(connection_, answer)) return "it has ended";
    return answer.text;
  }

 private:
  int connection_ = -1;
  int pid_ = -1;
};

// One process with its rings. When the renderer dies, another takes its place.
class Program {
 public:
  Program(std::string directory, bool with_keeper, std::string display)
      : directory_(std::move(directory)), display_(std::move(display)) {
    if (with_keeper) keeper_ = std::make_unique<Helper>(directory_ + "/stasis-gl-keeper");
    start_renderer();
  }
  ~Program() {
    for (int ring : rings_) close(ring);
  }

  uint64_t number() const { return number_; }
  bool has_keeper() const { return keeper_ != nullptr; }

  // All of these: empty, or "ok ...", on success.
  std::string load(const std::string& log) {
    std::lock_guard lock(mutex_);
    if (std::string said = renderer_->ask("load " + log); said != "ok") return "renderer: " + said;
    if (!keeper_) return "";
    std::string said = keeper_->ask("load " + log);
    return said == "ok" ? "" : "keeper: " + said;
  }
  std::string add_ring(int file) {
    std::lock_guard lock(mutex_);
    if (Ring* ring = map_ring(file)) number_ = ring->program;
    rings_.push_back(fcntl(file, F_DUPFD_CLOEXEC, 3));
    if (keeper_) keeper_->pass(file);
    const std::string said = renderer_->ask("ring", file);
    return said == "ok" ? "" : said;
  }
  std::string ask_keeper(const std::string& request) {
    std::lock_guard lock(mutex_);
    return keeper_->ask(request);
  }

  // Waits for the end of the renderer; returns when the program has ended, too.
  void watch() {
    for (;;) {
      const int pid = renderer_pid();
      while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
      }
      if (ended_) return;
      const std::string problem = replace_renderer();
      if (!problem.empty()) {
        fprintf(stderr, "stasis: OpenGL: there is no new renderer: %s\n", problem.c_str());
        return;
      }
    }
  }
  void move(const std::string& setting) {
    std::lock_guard lock(mutex_);
    environment_.push_back(setting);
    kill(renderer_->pid(), SIGKILL);
  }
  void end() {
    std::lock_guard lock(mutex_);
    ended_ = true;
    kill(renderer_->pid(), SIGKILL);
  }

 private:
  int renderer_pid() {
    std::lock_guard lock(mutex_);
    return renderer_->pid();
  }

  void start_renderer() {
    renderer_ = std::make_unique<Helper>(directory_ + "/stasis-gl-renderer", environment_);
    renderer_->ask("display " + display_);
  }

  std::string replace_renderer() {
    std::lock_guard lock(mutex_);
    if (!keeper_) return "nothing was kept";
    char name[] = "/tmp/stasis-gl-XXXXXX";
    if (mkdtemp(name) == nullptr) return strerror(errno);
    const std::string log = std::string(name) + "/log";
    std::string said = keeper_->ask("cut " + log);
    if (said == "ok") {
      start_renderer();
      said = renderer_->ask("load " + log);
    }
    unlink(log.c_str());
    rmdir(name);
    for (int ring : rings_) {
      if (said == "ok") said = renderer_->ask("ring", ring);
    }
    return said == "ok" ? "" : said;
  }

  std::mutex mutex_;
  std::string directory_, display_;
  std::vector<std::string> environment_;
  uint64_t number_ = 0;
  std::unique_ptr<Helper> renderer_, keeper_;
  std::vector<int> rings_;
  std::atomic<bool> ended_ = false;
};

class Server {
 public:
  Server(std::string socket, bool with_keeper)
      : socket_(std::move(socket)), directory_(directory_of_program()), with_keeper_(with_keeper) {}

  bool listen() {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    if (socket_.size() >= sizeof address.sun_path) return false;
    strcpy(address.sun_path, socket_.c_str());
    unlink(socket_.c_str());
    listener_ = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    return bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
           ::listen(listener_, 16) == 0;
  }

  void run() {
    for (;;) {
      const int connection = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (connection >= 0) std::thread(&Server::serve, this, connection).detach();
    }
  }

  // Empty on success.
  std::string restore(const std::string& logs, const std::string& display, const std::vector<int>& pids) {
    std::map<uint64_t, std::shared_ptr<Program>> programs;
    for (int pid : pids) {
      for (int file : rings_of(pid)) {
        std::string problem = restore_ring(file, logs, display, programs);
        close(file);
        if (!problem.empty()) return problem;
      }
    }
    return "";
  }

 private:
  static std::vector<int> rings_of(int pid) {
    std::vector<int> found;
    const std::string directory = "/proc/" + std::to_string(pid) + "/fd";
    DIR* listing = opendir(directory.c_str());
    while (dirent* entry = listing != nullptr ? readdir(listing) : nullptr) {
      const std::string path = directory + "/" + entry->d_name;
      char target[256];
      const ssize_t length = readlink(path.c_str(), target, sizeof target - 1);
      if (length <= 0 ||
          std::string(target, static_cast<size_t>(length)).find("memfd:stasis-gl-ring") == std::string::npos)
        continue;
      const int file = open(path.c_str(), O_RDWR | O_CLOEXEC);
      if (file >= 0) found.push_back(file);
    }
    if (listing != nullptr) closedir(listing);
    return found;
  }

  std::string restore_ring(int file, const std::string& logs, const std::string& display,
                           std::map<uint64_t, std::shared_ptr<Program>>& programs) {
    Ring* ring = map_ring(file);
    if (ring == nullptr) return "a ring of the checkpoint is damaged";
    auto& program = programs[ring->program];
    if (!program) {
      program = add(display);
      if (std::string problem = program->load(log_name(logs, ring->program)); !problem.empty())
        return problem;
    }
    return program->add_ring(file);
  }

  std::shared_ptr<Program> add(const std::string& display) {
    auto made = std::make_shared<Program>(directory_, with_keeper_, display);
    std::thread([made] { made->watch(); }).detach();
    std::lock_guard lock(mutex_);
    programs_.push_back(made);
    return made;
  }

  void serve(int connection) {
    Message message;
    std::shared_ptr<Program> program;
    while (receive(connection, message)) {
      if (message.file < 0) {
        send(connection, {answer(message.text), -1});
        continue;
      }
      if (!program) program = add(message.text);
      const std::string problem = program->add_ring(message.file);
      close(message.file);
      if (!problem.empty()) fprintf(stderr, "stasis: OpenGL: %s\n", problem.c_str());
    }
    close(connection);
    if (!program) return;
    program->end();
    std::lock_guard lock(mutex_);
    std::erase(programs_, program);
  }

  std::string answer(const std::string& request) {
    std::lock_guard lock(mutex_);
    std::string text = "ok";
    for (const auto& program : programs_) {
      if (request.starts_with("move ")) program->move(request.substr(5));
      if (!program->has_keeper()) continue;
      if (request.starts_with("save ")) {
        const std::string said =
            program->ask_keeper("save " + log_name(request.substr(5), program->number()));
        if (said != "ok") return said;
      } else if (request == "status") {
        text += "\n" + program->ask_keeper(request);
      }
    }
    return text;
  }

  std::string socket_, directory_;
  bool with_keeper_;
  int listener_ = -1;
  std::mutex mutex_;
  std::vector<std::shared_ptr<Program>> programs_;
};

}  // namespace

}  // namespace stasis::gl

int main(int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  if (words.empty()) {
    fprintf(stderr, "usage: stasis-gl-server SOCKET [--no-keeper] [--restore DIRECTORY DISPLAY PID...]\n");
    return 2;
  }
  const bool with_keeper = std::find(words.begin(), words.end(), "--no-keeper") == words.end();
  stasis::gl::Server server(words[0], with_keeper);
  if (!server.listen()) {
    perror(words[0].c_str());
    return 1;
  }
  auto restore = std::find(words.begin(), words.end(), "--restore");
  if (words.end() - restore > 2) {
    std::vector<int> pids;
    for (auto pid = restore + 3; pid != words.end(); ++pid) pids.push_back(atoi(pid->c_str()));
    if (std::string problem = server.restore(restore[1], restore[2], pids); !problem.empty()) {
      printf("%s\n", problem.c_str());
      return 1;
    }
  }
  printf("ready\n");
  fflush(stdout);
  server.run();
}
