// The private X server of a session (launch --display): an ordinary process of it, saved and restarted as all
// others are.
//
// Its socket lies where clients look for it, /tmp/.X11-unix, but that directory is the session's own:
// <state>/sessions/NAME/display is mounted there, in the session's mount namespace alone. So any number of
// sessions, also clones of one checkpoint, have the same display number without meeting, and who is outside
// of a session finds its server at <state>/sessions/NAME/display/X<number>. The abstract name that X servers
// have beside it belongs to the network namespace, which sessions share, so the server does not take it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "schema/manifest.pb.h"
#include "stasis/fd.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::session {

// The first processes of a session with a display. The program is made first, so that it is the same process
// with and without one, and waits for the server.
inline constexpr NsTid kProgram{2};
inline constexpr NsTid kDisplayServer{3};

struct DisplayRequest {
  uint32_t width = 1280;
  uint32_t height = 1024;
  bool vnc = false;  // a server that viewers can connect to
};
// "800x600", "vnc", "vnc:800x600"; from 16x16 to 16384x16384.
Result<DisplayRequest> parse_display(const std::string& text);

// A display that no other session has, for a new session. kUnsupported when there is no X server here.
Result<schema::Display> choose_display(const DisplayRequest& request);

// Where the display of a session is in the host's view; it exists only for sessions that have one, or that
// record OpenGL.
std::string display_directory(const std::string& session_directory);
// The file with the cookie, for XAUTHORITY.
std::string display_authority(const std::string& session_directory);
std::string display_socket(const std::string& session_directory, const schema::Display& display);
// Where VNC viewers connect, if the display has that.
std::string display_vnc_socket(const std::string& session_directory);

// On the host, before the session exists: its directory, with the cookie in it and nothing else. Without a
// display there is no cookie.
Result<void> make_display_directory(const std::string& session_directory,
                                    const std::optional<schema::Display>& display);
// What make_display_directory() made, and what the server has left there.
void remove_display_directory(const std::string& session_directory);

// Where the session's programs see it: where X clients look for servers; or, without a display, at a place of
// our own, and they see what X servers there are.
const char* display_mount_point(bool has_display);
// In the session's mount namespace: puts it there.
Result<void> mount_display(const std::string& session_directory, bool has_display);

// What init and the two children that it makes at launch have in common.
class DisplayStart {
 public:
  // In init.
  static Result<DisplayStart> begin(const schema::Display& display);
  // In a child of init: becomes the X server, or ends.
  [[noreturn]] void run_server();
  // In the program's process: waits for the server, and tells the program by its environment.
  Result<void> wait();

 private:
  DisplayStart(const schema::Display& display, Fd ready, Fd report, Fd log)
      : display_(display), ready_(std::move(ready)), report_(std::move(report)), log_(std::move(log)) {}
  Error failure(std::string cause) const;

  schema::Display display_;
  Fd ready_, report_;  // a pipe: the server writes its number when it can be connected to
  Fd log_;             // what the server has to say, from the beginning: it has no other place
};

// In init: whether no process but the server, and what the server has started, is left.
bool only_display_left(NsTid server);

}  // namespace stasis::session
