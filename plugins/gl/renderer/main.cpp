// stasis-gl-renderer DESCRIPTOR: receives rings there, and serves each with a thread, until the program ends.
// Messages:
//
//   display NAME      the X server
//   (a ring's file)   do what is recorded there; "ok" when its thread has begun
//   load FILE         replay this log first
//   park POSITIONS    stand still between two packets; "later" when that is not possible for long
//   read              with a file of questions for contents, in whose place the answers are put
//   go on
//
// Each is answered: "ok ...", "later", or what is wrong.
//
// stasis-gl-renderer --try: says which driver starts here.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <thread>

#include "reader/ring_file.h"
#include "renderer/meeting.h"
#include "renderer/renderer.h"
#include "renderer/trial.h"

namespace stasis::gl {

namespace {

LogFile loaded;
Meeting meeting;

// The answers of a replay go nowhere.
Ring* ring_of_replay() {
  static char* memory = static_cast<char*>(calloc(1, kHeaderSize + kReplySize));
  return reinterpret_cast<Ring*>(memory);
}

void serve(Ring* ring) {
  try {
    Renderer renderer(ring);
    if (const LogFile::Thread* thread = loaded.thread(ring->id))
      renderer.go_on(thread->packets, thread->position);
    renderer.run([](Renderer& its, uint64_t position) { meeting.between(its, position); });
    meeting.leave(ring);
  } catch (const BadStream& bad) {
    fprintf(stderr, "stasis: OpenGL: the program's stream of calls is damaged: %s\n", bad.what.c_str());
    _exit(1);
  } catch (const std::exception& failed) {  // also when there is no memory for what it asks for
    fprintf(stderr, "stasis: OpenGL: the program's calls cannot be done: %s\n", failed.what());
    _exit(1);
  }
}

std::string load(const std::string& path) {
  if (std::string problem = loaded.read(path); !problem.empty()) return problem;
  Renderer renderer(ring_of_replay());
  renderer.is_replaying = true;
  for_each_packet(loaded.replay, [&](const Packet& packet) { renderer.execute(packet); });
  return "ok";
}

// What all threads have drawn, while they stand still.
std::string read(int file) {
  std::string questions;
  if (!read_all(file, questions)) return "the questions cannot be read";
  Renderer renderer(ring_of_replay());
  renderer.is_reading = true;
  for_each_packet(questions, [&](const Packet& packet) {
    // So that it is known whose the answers are.
    if (packet.op == kOpMakeCurrent) {
      renderer.answers.append(reinterpret_cast<const char*>(&packet), packet.size);
      renderer.release_context();  // when this one's window is gone, nothing is read
    }
    renderer.execute(packet);
  });
  renderer.release_context();
  return write_all(file, renderer.answers) ? "ok" : "the answers cannot be written";
}

std::string handle(const Message& message) {
  if (message.text == "read") {
    std::string said = read(message.file);
    close(message.file);
    return said;
  }
  if (message.text.starts_with("park")) return meeting.call(message.text.substr(4));
  if (message.text == "go on") {
    meeting.end();
    return "ok";
  }
  if (message.file >= 0) {
    Ring* ring = map_ring(message.file);
    close(message.file);
    if (ring == nullptr) return "it is not a ring";
    meeting.join(ring);
    std::thread(serve, ring).detach();
    return "ok";
  }
  if (message.text.starts_with("display ")) {
    setenv("DISPLAY", message.text.c_str() + 8, 1);
    return "ok";
  }
  if (message.text.starts_with("load ")) return load(message.text.substr(5));
  return "an unknown request";
}

}  // namespace

}  // namespace stasis::gl

// The program holds the file of its ring, and may cut it off under those who have mapped it.
void end_without_memory(int) {
  static const char text[] =
      "stasis: OpenGL: mapped memory is gone: the program has cut off its ring, or there is no more memory\n";
  if (write(STDERR_FILENO, text, sizeof text - 1) < 0) _exit(2);
  _exit(1);
}

int main(int argc, char** argv) {
  using namespace stasis::gl;
  signal(SIGBUS, end_without_memory);
  if (argc != 2) return 2;
  if (strcmp(argv[1], "--try") == 0) {
    const int status = try_driver();
    fflush(stdout);
    _exit(status);
  }
  const int connection = atoi(argv[1]);
  load_functions();
  Message message;
  while (receive(connection, message)) {
    std::string answer;
    try {
      answer = handle(message);
    } catch (const BadStream& bad) {
      answer = bad.what;
    } catch (const std::exception& failed) {
      answer = failed.what();
    }
    const bool good = answer.starts_with("ok") || answer == "later";
    if (!good) fprintf(stderr, "stasis: OpenGL: %s\n", answer.c_str());
    send(connection, {answer, -1});
    if (!good) return 1;
  }
  _exit(0);
}
