#include "encoder/connection.h"

#include <pthread.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace stasis::gl {

namespace {

pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
Stream* control = nullptr;
std::atomic<uint32_t> numbers;
std::atomic<uint32_t> rings;
thread_local Stream* own_stream __attribute__((tls_model("initial-exec"))) = nullptr;
pthread_key_t end_of_thread;
pthread_once_t once = PTHREAD_ONCE_INIT;
uint64_t own_number = 0;

// A child that was forked has no renderer: the contexts stay its parent's.
void forget_all() {
  pthread_mutex_init(&mutex, nullptr);
  control = nullptr;
  own_stream = nullptr;
  current_stream = nullptr;
  own_number = 0;
}

void initialise() {
  pthread_key_create(&end_of_thread, [](void* stream) {
    current_stream = nullptr;
    own_stream = nullptr;
    Stream::close(static_cast<Stream*>(stream));
  });
  pthread_atfork(nullptr, nullptr, forget_all);
}

// -1 when nobody is there. No connection stays open: it would be one that leaves the session.
int connect_to_server() {
  const char* path = getenv("STASIS_GL_SOCKET");
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path == nullptr || strlen(path) >= sizeof address.sun_path) return -1;
  strcpy(address.sun_path, path);
  int connection = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (connection < 0) return -1;
  if (connect(connection, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) return connection;
  fprintf(stderr, "stasis: OpenGL: nobody listens at %s\n", path);
  close(connection);
  return -1;
}

// The server passes it on to the renderer and the keeper.
bool announce(const Stream& stream) {
  const int connection = connect_to_server();
  if (connection < 0) return false;
  const char* display = getenv("DISPLAY");
  char text[256] = {};
  if (display != nullptr) strncpy(text, display, sizeof text - 1);
  iovec data{text, sizeof text};
  alignas(cmsghdr) char control_bytes[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control_bytes;
  message.msg_controllen = sizeof control_bytes;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  int file = stream.file();
  memcpy(CMSG_DATA(header), &file, sizeof file);
  char answer[256];
  const bool done =
      sendmsg(connection, &message, MSG_NOSIGNAL) >= 0 && recv(connection, answer, sizeof answer, 0) > 0;
  close(connection);
  return done;
}

Stream* make_stream() {
  Stream* made = Stream::open(rings.fetch_add(1));
  if (made == nullptr || announce(*made)) return made;
  Stream::close(made);
  return nullptr;
}

}  // namespace

Stream* Connection::lock_control() {
  pthread_once(&once, initialise);
  pthread_mutex_lock(&mutex);
  if (control == nullptr) control = make_stream();
  if (control == nullptr) pthread_mutex_unlock(&mutex);
  return control;
}

void Connection::unlock_control() { pthread_mutex_unlock(&mutex); }

Stream* Connection::thread_stream() {
  if (own_stream != nullptr) return own_stream;
  if (lock_control() == nullptr) return nullptr;
  own_stream = make_stream();
  unlock_control();
  pthread_setspecific(end_of_thread, own_stream);
  return own_stream;
}

uint32_t Connection::readers() {
  const char* count = getenv("STASIS_GL_READERS");
  return count != nullptr && *count == '1' ? 1U : uint32_t{kReaders};
}

uint64_t Connection::program() {
  while (own_number == 0) {
    if (getrandom(&own_number, sizeof own_number, 0) < 0) break;
  }
  return own_number;
}

uint32_t Connection::next_number() { return numbers.fetch_add(1) + 1; }

}  // namespace stasis::gl
