// stasis-gl-server SOCKET [--no-keeper] [--display DIRECTORY] [--no-x]
//
// For each program that connects, a renderer and a keeper, to which its rings are passed on. With --display
// they have DIRECTORY as their /tmp/.X11-unix, where the X server of the session is; with --no-x there is
// none. "ready" on standard output says that programs may connect. A connection that sends no ring is one of
// stasis:
//
//   until PID        end when this process does
//   programs         -> their numbers
//   prepare          what only the drivers know goes into the logs, which then stay as they are until they
//   are
//                    saved, or this connection ends; "later" when that is not possible just now
//   save NUMBER      with a file: the keeper of that program writes its log there
//   finish NUMBER    -> when it is written
//   restore DIRECTORY NL SETTING NL PID...
//                    the rings in these processes get renderers, which begin with the logs in DIRECTORY
//   status           a line for each program
//   move NAME=VALUE ...
//                    the programs go on with a renderer that has these in its environment (an empty VALUE:
//                    that has none of this name): another driver
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <future>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
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

// The X server of a session has its socket in a directory of the session's. X clients know numbers only, and
// where sockets are is built into them, so the directory goes there, in a mount namespace of the client's
// own.
bool enter_display(const std::string& directory) {
  const uid_t user = geteuid();
  const gid_t group = getegid();
  if (unshare(CLONE_NEWNS) < 0) {
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0) return false;
    auto put = [](const char* path, const std::string& text) {
      const int file = open(path, O_WRONLY | O_CLOEXEC);
      const bool done =
          file >= 0 && write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
      if (file >= 0) close(file);
      return done;
    };
    const std::string user_text = std::to_string(user), group_text = std::to_string(group);
    if (!put("/proc/self/setgroups", "deny") ||
        !put("/proc/self/uid_map", user_text + " " + user_text + " 1") ||
        !put("/proc/self/gid_map", group_text + " " + group_text + " 1"))
      return false;
  }
  constexpr const char* kSockets = "/tmp/.X11-unix";
  setenv("XAUTHORITY", "/tmp/.X11-unix/authority", 1);
  return mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) == 0 &&
         mount(directory.c_str(), kSockets, nullptr, MS_BIND, nullptr) == 0;
}

constexpr const char* kEnded = "it has ended";

// Another process of ours, which answers what it is asked.
class Helper {
 public:
  Helper(const std::string& program, const std::vector<std::string>& environment = {},
         const std::string& display_directory = {}, int more = -1) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) return;
    pid_ = fork();
    if (pid_ == 0) {
      for (const std::string& one : environment) {
        const size_t sign = one.find('=');
        if (sign == std::string::npos) continue;
        const std::string name = one.substr(0, sign), value = one.substr(sign + 1);
        value.empty() ? unsetenv(name.c_str()) : setenv(name.c_str(), value.c_str(), 1);
      }
      fcntl(ends[1], F_SETFD, 0);
      if (more >= 0) fcntl(more, F_SETFD, 0);
      setenv("__GLX_VENDOR_LIBRARY_NAME", "mesa", 1);
      if (getenv("STASIS_GL_SOCKET") != nullptr) unsetenv("__EGL_VENDOR_LIBRARY_FILENAMES");
      unsetenv("STASIS_GL_SOCKET");
      if (!display_directory.empty() && !enter_display(display_directory))
        fprintf(stderr, "stasis: OpenGL: %s: %s\n", display_directory.c_str(), strerror(errno));
      const std::string connection = std::to_string(ends[1]), other = std::to_string(more);
      execl(program.c_str(), program.c_str(), connection.c_str(), more >= 0 ? other.c_str() : nullptr,
            nullptr);
      fprintf(stderr, "stasis: OpenGL: %s: %s\n", program.c_str(), strerror(errno));
      _exit(127);
    }
    close(ends[1]);
    connection_ = ends[0];
  }
  // It ends when nobody asks any more.
  ~Helper() {
    if (connection_ >= 0) close(connection_);
    while (!reaped_ && pid_ > 0 && waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  Helper(const Helper&) = delete;
  Helper& operator=(const Helper&) = delete;

  int pid() const { return pid_; }
  void set_reaped() { reaped_ = true; }
  void kill() const {
    if (!reaped_ && pid_ > 0) ::kill(pid_, SIGKILL);
  }
  void pass(int file) { send(connection_, {"ring", file}); }
  std::string ask(const std::string& request, int file = -1) {
    Message answer;
    if (!send(connection_, {request, file}) || !receive(connection_, answer)) return kEnded;
    return answer.text;
  }

 private:
  int connection_ = -1;
  int pid_ = -1;
  bool reaped_ = false;
};

// One process with its rings. When its renderer or its keeper dies, another takes its place.
class Program {
 public:
  Program(uint64_t number, int pid, std::string directory, bool with_keeper, std::string display,
          std::string display_directory, std::vector<std::string> environment)
      : number_(number),
        process_(static_cast<int>(syscall(SYS_pidfd_open, pid, 0))),
        directory_(std::move(directory)),
        display_(std::move(display)),
        display_directory_(std::move(display_directory)),
        environment_(std::move(environment)),
        before_move_(environment_) {
    if (with_keeper) journal_ = memfd_create("stasis-gl-journal", MFD_CLOEXEC);
    if (with_keeper) start_keeper();
    start_renderer();
  }
  ~Program() {
    for (int ring : rings_) close(ring);
    if (journal_ >= 0) close(journal_);
    if (process_ >= 0) close(process_);
  }

  uint64_t number() const { return number_; }
  bool has_keeper() const { return keeper_ != nullptr; }

  // All of these: empty, or "ok ...", on success.
  std::string load(const std::string& log) {
    std::lock_guard lock(mutex_);
    auto replayed = std::async(std::launch::async, [&] { return replay(log); });
    const std::string kept = keeper_ ? ask_keeper_now("load " + log) : "ok";
    if (std::string said = replayed.get(); said != "ok") return "renderer: " + said;
    return kept == "ok" ? "" : "keeper: " + kept;
  }
  std::string add_ring(int file) {
    std::lock_guard lock(mutex_);
    rings_.push_back(fcntl(file, F_DUPFD_CLOEXEC, 3));
    if (keeper_) keeper_->pass(file);
    const std::string said = renderer_->ask("ring", file);
    return said == "ok" ? "" : said;
  }
  std::string status() {
    std::lock_guard lock(mutex_);
    return "replay_us=" + std::to_string(replay_us_) + " " + ask_keeper_now("status");
  }
  std::string ask_keeper(const std::string& request, int file = -1) {
    std::lock_guard lock(mutex_);
    return ask_keeper_now(request, file);
  }
  std::string save(int file) {
    std::lock_guard lock(mutex_);
    // A keeper that has taken the place of one that was ready is not.
    return prepared_by_ == keeper_->pid() ? keeper_->ask("save", file) : "later";
  }

  // While the program runs, since reading back may need its X server: what only the driver knows becomes a
  // part of the log. The keeper takes nothing more until it has been asked to save or cut it, or to release.
  // Empty, or "later" when that is not possible just now.
  std::string prepare() {
    std::lock_guard lock(mutex_);
    const std::string said = read_back();
    prepared_by_ = keeper_->pid();
    return said;
  }

  // Waits for the end of the renderer; returns when the program has ended, too.
  void watch() {
    for (;;) {
      int status = wait_for_renderer();
      if (ended_ || give_up(status)) return;
      std::string problem;
      int failures = 0, kills = 0;
      // It may end while it replays the log, too. Who kills it then is not the driver.
      while (failures < 3 && !(problem = replace_renderer()).empty() && !ended_) {
        status = problem == kEnded ? wait_for_renderer() : 0;
        const bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && ++kills < kMostDeaths;
        if (!killed && ++failures == 2) take_back_move();
      }
      if (ended_) return;
      if (problem.empty()) continue;
      if (problem == kEnded) return end_program("while it replayed the log", status);
      fprintf(stderr, "stasis: OpenGL: there is no new renderer: %s\n", problem.c_str());
      return;
    }
  }
  void move(const std::vector<std::string>& settings) {
    if (keeper_) (void)prepare();
    std::lock_guard lock(mutex_);
    before_move_ = environment_;
    environment_.insert(environment_.end(), settings.begin(), settings.end());
    renderer_->kill();
  }
  void watch_keeper() {
    for (;;) {
      int pid = 0;
      {
        std::lock_guard lock(mutex_);
        pid = keeper_->pid();
      }
      while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
      }
      std::lock_guard lock(mutex_);
      if (ended_ || keeper_deaths_ > kMostDeaths) return;
      if (keeper_->pid() != pid) continue;
      keeper_->set_reaped();
      replace_keeper();
    }
  }
  void end() {
    std::lock_guard lock(mutex_);
    ended_ = true;
    renderer_->kill();
  }

 private:
  // Its status, 0 when there is none.
  int wait_for_renderer() {
    std::unique_lock lock(mutex_);
    const int pid = renderer_->pid();
    lock.unlock();
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    lock.lock();
    renderer_->set_reaped();
    return status;
  }

  // It begins with what the one before has left in the journal.
  void start_keeper() {
    keeper_ = std::make_unique<Helper>(directory_ + "/stasis-gl-keeper", std::vector<std::string>(),
                                       std::string(), journal_);
  }
  void replace_keeper() {
    if (++keeper_deaths_ > kMostDeaths) {
      fprintf(stderr, "stasis: OpenGL: its keeper has ended %d times; nothing is kept any more\n",
              keeper_deaths_);
      return;
    }
    start_keeper();
    for (int ring : rings_) keeper_->pass(ring);
  }
  std::string ask_keeper_now(const std::string& request, int file = -1) {
    std::string said = keeper_->ask(request, file);
    if (said == kEnded && keeper_deaths_ <= kMostDeaths) {
      replace_keeper();
      said = keeper_->ask(request, file);
    }
    return said;
  }

  std::string read_back() {
    const std::string there = ask_keeper_now("hold");
    if (there == "ok") return "";
    if (!there.starts_with("ok ")) return there;
    const std::string parked = renderer_->ask("park" + there.substr(2));
    std::string problem;
    if (parked.starts_with("ok")) {
      problem = pass_contents(parked.substr(2));
    } else {
      problem =
          parked == kEnded ? "later" : "the driver does not come to the end of a call, or of a primitive";
    }
    if (parked.starts_with("ok")) renderer_->ask("go on");
    if (!problem.empty()) ask_keeper_now("release");
    return problem;
  }
  std::string pass_contents(const std::string& positions) {
    const int file = memfd_create("stasis-gl-contents", MFD_CLOEXEC);
    if (file < 0) return std::string("no memory for contents: ") + strerror(errno);
    std::string said = keeper_->ask("meet" + positions, file);
    if (said == "ok") said = renderer_->ask("read", file);
    if (said == "ok") said = keeper_->ask("take", file);
    close(file);
    if (said == kEnded) return "later";
    return said == "ok" ? "" : said;
  }
  // The program goes on with the driver that it had when another one does not start.
  bool take_back_move() {
    std::lock_guard lock(mutex_);
    if (before_move_ == environment_) return false;
    fprintf(stderr, "stasis: OpenGL: the new driver does not do; the program goes on with the one before\n");
    environment_ = before_move_;
    return true;
  }

  // A driver that crashes in a call would do so for ever. Without us it would have been the program that
  // crashes, so that is what happens when nothing but the calls can be the reason.
  bool give_up(int status) {
    constexpr int kMost = 3;
    std::unique_lock lock(mutex_);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) return false;
    uint64_t progress = 0;
    for (int ring : rings_) progress += place_of_ring(ring).progress;
    deaths_ = progress == progress_at_death_ ? deaths_ + 1 : 1;
    progress_at_death_ = progress;
    const int deaths = deaths_;
    lock.unlock();
    if (deaths < kMost || take_back_move()) return false;
    end_program("at the same calls", status);
    return true;
  }
  void end_program(const char* where, int status) const {
    const int signal = WIFSIGNALED(status) ? WTERMSIG(status) : SIGABRT;
    fprintf(stderr,
            "stasis: OpenGL: the driver has ended again and again %s, now by signal %d; the program ends\n",
            where, signal);
    syscall(SYS_pidfd_send_signal, process_, signal, nullptr, 0);
  }

  void start_renderer() {
    renderer_ =
        std::make_unique<Helper>(directory_ + "/stasis-gl-renderer", environment_, display_directory_);
    renderer_->ask("display " + display_);
  }

  std::string replay(const std::string& log) {
    const auto begun = std::chrono::steady_clock::now();
    std::string said = renderer_->ask("load " + log);
    replay_us_ =
        std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - begun)
            .count();
    return said;
  }
  std::string replace_renderer() {
    std::lock_guard lock(mutex_);
    if (!keeper_) return "nothing was kept";
    char name[] = "/tmp/stasis-gl-XXXXXX";
    if (mkdtemp(name) == nullptr) return strerror(errno);
    const std::string log = std::string(name) + "/log";
    std::string said = ask_keeper_now("cut " + log);
    if (said == "ok") {
      start_renderer();
      said = replay(log);
    }
    unlink(log.c_str());
    rmdir(name);
    for (int ring : rings_) {
      if (said == "ok") said = renderer_->ask("ring", ring);
    }
    return said == "ok" ? "" : said;
  }

  const uint64_t number_;
  std::mutex mutex_;
  int process_;
  int deaths_ = 0;
  int64_t replay_us_ = 0;  // how long the last one took
  uint64_t progress_at_death_ = 0;
  std::string directory_, display_, display_directory_;
  std::vector<std::string> environment_, before_move_;
  std::unique_ptr<Helper> renderer_, keeper_;
  std::vector<int> rings_;
  int journal_ = -1;
  // Of keepers. Something that they cannot bear would kill each new one.
  static constexpr int kMostDeaths = 100;
  int keeper_deaths_ = 0;
  int prepared_by_ = 0;
  std::atomic<bool> ended_ = false;
};

class Server {
 public:
  Server(std::string socket, bool with_keeper, std::string display_directory, bool without_x)
      : socket_(std::move(socket)),
        directory_(directory_of_program()),
        display_directory_(std::move(display_directory)),
        without_x_(without_x),
        with_keeper_(with_keeper) {}

  bool listen() {
    // By the open directory, since a path may be too long for an address.
    const size_t slash = socket_.rfind('/');
    const int directory = open(slash == std::string::npos ? "." : socket_.substr(0, slash).c_str(),
                               O_PATH | O_DIRECTORY | O_CLOEXEC);
    const std::string path = "/proc/self/fd/" + std::to_string(directory) + "/" + socket_.substr(slash + 1);
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) return false;
    strcpy(address.sun_path, path.c_str());
    unlink(path.c_str());
    listener_ = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    return bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
           chmod(path.c_str(), 0600) == 0 && ::listen(listener_, 16) == 0;
  }

  void run() {
    for (;;) {
      const int connection = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (connection >= 0) std::thread(&Server::serve, this, connection).detach();
    }
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

  // Empty on success.
  std::string restore(const std::string& request) {
    const size_t logs_end = request.find('\n'), setting_end = request.find('\n', logs_end + 1);
    if (setting_end == std::string::npos) return "an unknown request";
    const std::string logs = request.substr(0, logs_end);
    const std::string setting = request.substr(logs_end + 1, setting_end - logs_end - 1);
    add_settings(setting);
    std::map<uint64_t, std::shared_ptr<Program>> programs;
    std::istringstream pids(request.substr(setting_end + 1));
    for (int pid; pids >> pid;) {
      for (int file : rings_of(pid)) {
        std::string problem = restore_ring(file, logs, pid, programs);
        close(file);
        if (!problem.empty()) return problem;
      }
    }
    return "";
  }

  std::string restore_ring(int file, const std::string& logs, int pid,
                           std::map<uint64_t, std::shared_ptr<Program>>& programs) {
    const RingPlace ring = place_of_ring(file);
    if (!ring.valid) return "a ring of the checkpoint is damaged";
    auto& program = programs[ring.program];
    if (!program) {
      program = add(display_of(pid), pid, ring.program);
      if (std::string problem = program->load(log_name(logs, ring.program)); !problem.empty()) return problem;
    }
    return program->add_ring(file);
  }

  static std::vector<std::string> words_of(const std::string& text) {
    std::istringstream stream(text);
    return {std::istream_iterator<std::string>(stream), {}};
  }
  void add_settings(const std::string& settings) {
    for (const std::string& one : words_of(settings)) environment_.push_back(one);
  }

  static std::string display_of(int pid) {
    std::ifstream file("/proc/" + std::to_string(pid) + "/environ");
    for (std::string word; std::getline(file, word, '\0');) {
      if (word.starts_with("DISPLAY=")) return word.substr(8);
    }
    return ":0";
  }

  // `number`: of the program, as soon as anybody may ask for it.
  std::shared_ptr<Program> add(const std::string& display, int pid, uint64_t number) {
    std::vector<std::string> environment;
    {
      std::lock_guard lock(mutex_);
      environment = environment_;
    }
    auto made = std::make_shared<Program>(number, pid, directory_, with_keeper_, without_x_ ? "" : display,
                                          display_directory_, environment);
    std::thread([made] { made->watch(); }).detach();
    if (made->has_keeper()) std::thread([made] { made->watch_keeper(); }).detach();
    const int process = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
    std::thread([this, made, process] {
      wait_for_end(process);
      made->end();
      std::lock_guard lock(mutex_);
      std::erase(programs_, made);
    }).detach();
    std::lock_guard lock(mutex_);
    programs_.push_back(made);
    return made;
  }

  static void wait_for_end(int process) {
    pollfd entry = {process, POLLIN, 0};
    while (process >= 0 && poll(&entry, 1, -1) < 0 && errno == EINTR) {
    }
    if (process >= 0) close(process);
  }

  static void end_with(int pid) {
    const int process = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
    std::thread([process] {
      wait_for_end(process);
      _exit(0);
    }).detach();
  }

  void serve(int connection) {
    Message message;
    bool of_program = false, prepared = false;
    while (receive(connection, message)) {
      const bool is_ring = message.file >= 0 && !message.text.starts_with("save ");
      of_program = of_program || is_ring;
      prepared = prepared || message.text == "prepare";
      send(connection, {is_ring ? add_ring(connection, message) : answer(message), -1});
      if (message.file >= 0) close(message.file);
    }
    close(connection);
    if (prepared) (void)answer({"release", -1});
    // Whoever started us has gone without a session.
    if (!of_program && !attached_ && !display_directory_.empty()) _exit(0);
  }

  std::string add_ring(int connection, const Message& message) {
    const RingPlace ring = place_of_ring(message.file);
    if (!ring.valid) return "it is not a ring";
    std::shared_ptr<Program> program;
    {
      std::lock_guard lock(mutex_);
      for (const auto& one : programs_) {
        if (one->number() == ring.program) program = one;
      }
    }
    ucred peer = {};
    socklen_t size = sizeof peer;
    getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size);
    if (!program) program = add(message.text, peer.pid, ring.program);
    const std::string problem = program->add_ring(message.file);
    if (!problem.empty()) fprintf(stderr, "stasis: OpenGL: %s\n", problem.c_str());
    return problem.empty() ? "ok" : problem;
  }

  // The programs run meanwhile, and others may come.
  std::string prepare() {
    std::vector<std::shared_ptr<Program>> programs;
    {
      std::lock_guard lock(mutex_);
      programs = programs_;
    }
    for (const auto& program : programs) {
      const std::string problem = program->has_keeper() ? program->prepare() : "";
      if (!problem.empty()) return problem;
    }
    return "ok";
  }

  std::string answer(const Message& message) {
    const std::string& request = message.text;
    if (request.starts_with("until ")) {
      attached_ = true;
      end_with(atoi(request.c_str() + 6));
      return "ok";
    }
    if (request.starts_with("restore ")) {
      const std::string problem = restore(request.substr(8));
      return problem.empty() ? "ok" : problem;
    }
    if (request == "prepare") return prepare();
    std::lock_guard lock(mutex_);
    std::string text = "ok";
    for (const auto& program : programs_) {
      if (request.starts_with("move ")) program->move(words_of(request.substr(5)));
      if (!program->has_keeper()) continue;
      char number[32];
      snprintf(number, sizeof number, "%016llx", static_cast<unsigned long long>(program->number()));
      if (request == "programs") text += std::string(" ") + number;
      if (request == "save " + std::string(number)) return program->save(message.file);
      if (request == "finish " + std::string(number)) return program->ask_keeper("finish");
      if (request == "release") (void)program->ask_keeper(request);
      if (request == "status") text += "\n" + program->status();
    }
    if (request.starts_with("move ")) add_settings(request.substr(5));
    const bool of_one = request.starts_with("save ") || request.starts_with("finish ");
    return of_one ? "there is no such program" : text;
  }

  std::string socket_, directory_, display_directory_;
  std::vector<std::string> environment_;  // of renderers to come
  std::atomic<bool> attached_ = false;
  bool without_x_, with_keeper_;
  int listener_ = -1;
  std::mutex mutex_;
  std::vector<std::shared_ptr<Program>> programs_;
};

}  // namespace

}  // namespace stasis::gl

int main(int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  if (words.empty()) {
    fprintf(stderr, "usage: stasis-gl-server SOCKET [--no-keeper] [--display DIRECTORY] [--no-x]\n");
    return 2;
  }
  auto display = std::find(words.begin(), words.end(), "--display");
  const bool with_keeper = std::find(words.begin(), words.end(), "--no-keeper") == words.end();
  const bool without_x = std::find(words.begin(), words.end(), "--no-x") != words.end();
  stasis::gl::Server server(words[0], with_keeper, words.end() - display > 1 ? display[1] : "", without_x);
  if (!server.listen()) {
    printf("%s: %s\n", words[0].c_str(), strerror(errno));
    return 1;
  }
  printf("ready\n");
  fflush(stdout);
  const int null = open("/dev/null", O_WRONLY);
  dup2(null, 1);
  server.run();
}
