// The only program of a Linux guest, its init: prints "TICK n ..." to the console, and looks at each tick whether all it
// has is still so: random numbers in memory, a counter on another processor, a counter on the disk, a server on the network.
// Words on the kernel's command line: fill=MB, tickms=N, check=N (memory, at every so many ticks), disk, net.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "modules.h"

static char command_line[4096];
static volatile uint64_t other_processor;

static long number_of(const char* word, long otherwise) {
  const char* found = strstr(command_line, word);
  return found ? atol(found + strlen(word)) : otherwise;
}

static void* count_on_the_other(void* unused) {
  (void)unused;
  cpu_set_t second;
  CPU_ZERO(&second);
  CPU_SET(1, &second);
  sched_setaffinity(0, sizeof second, &second);
  for (;;) {
    ++other_processor;
    struct timespec moment = {0, 5000000};
    nanosleep(&moment, NULL);
  }
  return NULL;
}

// Gives back what it is sent, a connection at a time.
static void* serve(void* unused) {
  (void)unused;
  int control = socket(AF_INET, SOCK_STREAM, 0);
  for (int i = 0; i < 2; ++i) {
    struct ifreq request = {0};
    strcpy(request.ifr_name, i ? "eth0" : "lo");
    struct sockaddr_in* address = (struct sockaddr_in*)&request.ifr_addr;
    address->sin_family = AF_INET;
    address->sin_addr.s_addr = inet_addr(i ? "10.0.2.15" : "127.0.0.1");
    ioctl(control, SIOCSIFADDR, &request);
    address->sin_addr.s_addr = inet_addr("255.255.255.0");
    ioctl(control, SIOCSIFNETMASK, &request);
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    if (ioctl(control, SIOCSIFFLAGS, &request) != 0) printf("NET %s: %m\n", request.ifr_name);
  }
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(7)};
  bind(listener, (struct sockaddr*)&any, sizeof any);
  listen(listener, 5);
  printf("NET up\n");
  for (;;) {
    int client = accept(listener, NULL, NULL);
    char data[1000];
    ssize_t size;
    while ((size = read(client, data, sizeof data)) > 0)
      if (write(client, data, size) != size) break;
    close(client);
  }
  return NULL;
}

int main(void) {
  mkdir("/proc", 0755);
  mkdir("/dev", 0755);
  mount("proc", "/proc", "proc", 0, NULL);
  mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
  int console = open("/dev/console", O_RDWR);
  for (int fd = 0; fd < 3; ++fd) dup2(console, fd);
  setvbuf(stdout, NULL, _IOLBF, 0);
  int file = open("/proc/cmdline", O_RDONLY);
  if (read(file, command_line, sizeof command_line - 1) < 0) return 1;
  close(file);
  load_modules();

  uint64_t state = 88172645463325252ull, sum = 0;
  size_t words = (size_t)number_of("fill=", 4) << 17;
  uint64_t* memory = mmap(NULL, words * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  for (size_t i = 0; i < words; ++i) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    memory[i] = state;
    sum += state;
  }
  long processors = sysconf(_SC_NPROCESSORS_ONLN);
  pthread_t thread;
  if (processors > 1) pthread_create(&thread, NULL, count_on_the_other, NULL);
  if (strstr(command_line, " net")) pthread_create(&thread, NULL, serve, NULL);
  uint64_t* sector = NULL;
  int disk = -1;
  for (int i = 0; i < 50 && disk < 0; ++i) {
    disk = open("/dev/vda", O_RDWR | O_DIRECT);
    if (disk < 0 && !strstr(command_line, " disk")) break;
    usleep(100000);
  }
  if (disk >= 0) {
    sector = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pwrite(disk, sector, 4096, 1 << 20) != 4096) printf("DISK %m\n");
  }
  printf("INIT processors=%ld disk=%s\n", processors, disk >= 0 ? "yes" : "no");

  const uint64_t check = (uint64_t)number_of("check=", 5);
  for (uint64_t n = 0;; ++n) {
    const char* on_disk = "";
    if (disk >= 0) {
      on_disk = pread(disk, sector, 4096, 1 << 20) == 4096 && sector[0] == n ? " DISK OK" : " DISK BAD";
      sector[0] = n + 1;
      if (pwrite(disk, sector, 4096, 1 << 20) != 4096) on_disk = " DISK BAD";
    }
    uint64_t now = 0;
    if (n % check == 0)
      for (size_t i = 0; i < words; ++i) now += memory[i];
    printf("TICK %lu other=%lu%s%s\n", n, other_processor, on_disk,
           n % check ? "" : now == sum ? " MEMORY OK" : " MEMORY BAD");
    struct timespec pause = {0, number_of("tickms=", 100) * 1000000};
    nanosleep(&pause, NULL);
  }
}
