#include "session/restart.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "base/clock.h"
#include "image/store.h"
#include "session/names.h"
#include "session/opengl.h"
#include "session/supervisor.h"

namespace stasis::session {
namespace {

// Where the session's checkpoints are: as asked, else where its last run put them, else the default.
Result<std::string> find_store(const RestartRequest& request, const std::optional<Record>& earlier) {
  if (request.store.empty() && earlier) return earlier->store;
  return absolute_store(request.store);
}

std::optional<Record> earlier_record(const std::string& name) {
  if (name.empty()) return {};
  auto record = load_record(name);
  if (!record.ok()) return {};
  return std::move(record).value();
}

std::string absolute_path(const std::string& path) {
  std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr), &std::free);
  return real ? real.get() : path;
}

// The attributes and size that the program knows; `restart`'s own size follows when the program runs, so that
// it gets its SIGWINCH.
void bring_back_terminal(const schema::Terminal& saved, int terminal) {
  // The kernel's structure is shorter than the library's; an image may hold either.
  if (saved.attributes().size() == sizeof(struct termios)) {
    struct termios attributes;
    std::memcpy(&attributes, saved.attributes().data(), sizeof(attributes));
    ::tcsetattr(terminal, TCSANOW, &attributes);
  } else if (constexpr size_t kKernelTermios = 36; saved.attributes().size() == kKernelTermios) {
    ::ioctl(terminal, TCSETS, saved.attributes().data());
  }
  struct winsize size = {.ws_row = static_cast<unsigned short>(saved.rows()),
                         .ws_col = static_cast<unsigned short>(saved.columns()),
                         .ws_xpixel = 0,
                         .ws_ypixel = 0};
  if (size.ws_row > 0 && size.ws_col > 0) ::ioctl(terminal, TIOCSWINSZ, &size);
}

Result<std::optional<TerminalPair>> terminal_for(const schema::Manifest& manifest, Ground ground) {
  bool had_one = manifest.has_terminal() && manifest.terminal().present();
  if (!had_one && !StandardStreams::plan(ground).need_terminal()) return std::optional<TerminalPair>();
  STASIS_TRY(TerminalPair pair, make_terminal());
  if (int user = UserTerminal::find().control; user >= 0) copy_terminal_settings(user, pair.slave.get());
  if (had_one) bring_back_terminal(manifest.terminal(), pair.slave.get());
  return std::optional(std::move(pair));
}

// Where the session keeps files of its own, one directory for each restart that needs one.
std::string unused_directory(const std::string& session_store) {
  constexpr int kMost = 1'000'000;
  std::string path;
  for (int number = 1; number < kMost; ++number) {
    path = fmt::format("{}/{}{}", session_store, image::kOwnFilesPrefix, number);
    if (::access(path.c_str(), F_OK) != 0) break;
  }
  return path;
}

uint64_t bytes_to_read(const schema::Manifest& manifest) {
  uint64_t bytes = 0;
  for (const auto& memory : manifest.memories())
    for (const auto& run : memory.runs()) bytes += run.size();
  return bytes;
}

}  // namespace

Result<int> restart(const RestartRequest& request) {
  STASIS_TRY(image::Reference reference, image::parse_reference(request.what));
  std::optional<Record> earlier = earlier_record(reference.session);
  STASIS_TRY(std::string store, find_store(request, earlier));
  STASIS_TRY(std::string directory, image::resolve(reference, store));
  STASIS_TRY(const std::string gl_settings, driver_settings(request.gl_driver));
  STASIS_TRY(auto prepared, restore::Restart::prepare(directory, request.memory, request.paths));
  std::shared_ptr<restore::Restart> engine = std::move(prepared);
  const schema::Manifest& manifest = engine->manifest();

  StartPlan plan;
  plan.ground = request.ground;
  Record& record = plan.record;
  record.store = store;
  const std::string& name = request.name.empty() ? manifest.session() : request.name;
  STASIS_TRY(ClaimedName claimed, claim_name(name, "session", store));
  record.name = claimed.name;
  record.root = NsTid{manifest.root_pid()};
  record.command.assign(manifest.command().begin(), manifest.command().end());
  record.started_ns = clock_ns(CLOCK_REALTIME);
  record.image = absolute_path(directory);
  auto server = std::make_shared<std::optional<OpenGlServer>>();
  if (manifest.has_display()) {
    record.display = manifest.display();
    record.display->clear_picture();
  }
  record.plugins = {manifest.plugins().begin(), manifest.plugins().end()};
  record.opengl = manifest.opengl();
  if (record.opengl) {
    STASIS_CHECK(require_opengl());
    plan.beside = [server, has_display = manifest.has_display()](const std::string& session) -> Result<void> {
      STASIS_TRY(*server, OpenGlServer::start(session, has_display));
      return {};
    };
  }
  // The timer goes on when the same session does; a copy gets one only on demand.
  if (earlier && earlier->name == record.name) {
    record.interval_ns = earlier->interval_ns;
    record.keep = earlier->keep;
  }
  record.interval_ns = request.interval_ns.value_or(record.interval_ns);
  record.keep = request.keep.value_or(record.keep);
  if (earlier) record.files = earlier->files;
  // A program that was not launched may go on, and needs its files.
  auto saved = earlier ? earlier : earlier_record(manifest.session());
  const bool beside = saved && origin_runs(*saved);
  if (beside && record.name == saved->name) {
    record.origin = saved->origin;
    record.origin_start = saved->origin_start;
  }
  const bool another = beside || record.name != manifest.session();
  const restore::FileUse use =
      request.files.value_or(another ? restore::FileUse::kCopies : restore::FileUse::kPutBack);
  const std::string own_files = unused_directory(store + "/" + record.name);
  plan.namespaces.user = needs_user_namespace();
  record.private_network = plan.namespaces.network = manifest.has_session_network();
  STASIS_TRY(plan.terminal, terminal_for(manifest, request.ground));
  std::string terminal_path = plan.terminal ? plan.terminal->slave_path : std::string();

  plan.prepare = [engine, terminal_path] { return engine->make_descriptions(terminal_path); };
  plan.spawn = [engine] { return engine->spawn_roots(); };
  STASIS_TRY(std::string state, session_directory(record.name));
  plan.build = [engine, deadlines = state + "/" + kDeadlinesFile](HostTid init, const auto& read) {
    return engine->build(init, deadlines, read);
  };
  plan.read = [done = uint64_t{0}, total = bytes_to_read(manifest), &request](uint64_t bytes) mutable {
    done += bytes;
    if (request.progress) request.progress(done, total);
  };
  plan.release = [engine] { return engine->release(); };
  const bool supervised = record.interval_ns > 0;
  plan.caller_leaves = request.ground == Ground::kBackground && !supervised;
  auto start_it = [&plan, &claimed, &engine, &request, use, &own_files, server,
                   &gl_settings]() -> Result<RunningSession> {
    restore::CapturedFiles files(engine->image(), use, own_files);
    STASIS_CHECK(files.apply());
    engine->set_copies(files.copies());
    // As late as possible, so that the clocks lose nothing of what the program did before it was saved, nor
    // gain much.
    const schema::Clocks& clocks = engine->manifest().clocks();
    plan.namespaces.clocks = offsets_for(clocks.monotonic_ns(), clocks.boottime_ns());
    engine->set_clocks(*plan.namespaces.clocks);
    auto session = start(std::move(plan));
    if (session.ok() && *server) {
      auto restored =
          (*server)->restore(session->record, absolute_path(engine->image().directory()), gl_settings);
      if (!restored.ok()) {
        ::kill(session->record.init.value, SIGKILL);
        return std::move(restored).error();
      }
    }
    if (session.ok()) {
      files.accept();
      tell_how_to_view(session->record);
      for (const std::string& note : files.notes()) fmt::print(stderr, "stasis: {}\n", note);
    }
    if (request.progress) request.progress(1, 1);
    claimed.lock.release();
    engine.reset();
    return session;
  };
  // `plan` is gone by then.
  Restarted done;
  done.name = record.name;
  done.directory = directory;
  done.processes = static_cast<size_t>(manifest.processes_size());
  return run_session(request.ground, supervised, start_it, [&](int64_t took_ns) {
    done.took_ns = took_ns;
    request.announce(done);
  });
}

}  // namespace stasis::session
