// The OpenGL of a session: programs of its own that run beside the session, hold the driver,
// and keep the log of what the program has said to it (plugins/gl). Here they are started, asked for their
// logs when the session stands still, and given them back at a restart.
#pragma once

#include <string>
#include <vector>

#include "session/record.h"
#include "stasis/fd.h"
#include "stasis/plugin.h"
#include "stasis/result.h"

namespace stasis::session {

// A driver by name, as settings for the renderer's environment: "NAME=VALUE NAME=VALUE". Settings themselves
// are taken as they are.
Result<std::string> driver_settings(const std::string& driver);
// The names that there are, for options and errors.
std::string driver_help();

// What the server and its parts have to say, in the session's directory.
constexpr const char* kOpenGlLog = "opengl.log";

enum class OpenGlUse { kAuto, kOn, kOff };

// Whether it is to be recorded. kUnsupported when it is asked for, and its parts are not there.
Result<bool> choose_opengl(OpenGlUse use, bool has_display);
Result<void> require_opengl();

// The server of one session, as seen by who starts the session. The connection is made before namespaces are
// entered, since paths of /proc lead elsewhere afterwards.
class OpenGlServer {
 public:
  // Its socket is in the session's directory of displays. It waits for the session to begin. Without a
  // display it looks for no X server: one that is not the session's would not be restarted with it.
  static Result<OpenGlServer> start(const std::string& session_directory, bool has_display);
  // The session runs: the server lives as long as its init.
  Result<void> attach(const Record& record) const;
  // The session runs again, and its programs wait for renderers. `settings`: of the driver, or empty.
  Result<void> restore(const Record& record, const std::string& image, const std::string& settings) const;

 private:
  explicit OpenGlServer(Fd connection) : connection_(std::move(connection)) {}
  Fd connection_;
};

// In the process that becomes the program: where its libraries find the server.
void set_opengl_environment(bool has_display);

// A file of the checkpoint for each program that has used OpenGL.
class OpenGlSave final : public plugin::Participant {
 public:
  explicit OpenGlSave(std::string session_directory) : directory_(std::move(session_directory)) {}
  Result<void> prepare(std::span<const HostTid> processes) override;
  Result<void> save(plugin::ImageFiles& files) override;
  Result<std::vector<std::string>> finish() override;

 private:
  std::string directory_;
  Fd server_;
  std::vector<std::string> programs_;
};

// What the server says to a request (plugins/gl/server/main.cpp). kNotFound when there is none.
Result<std::string> ask_opengl_server(const std::string& session_directory, const std::string& request);

}  // namespace stasis::session
