// The init of an initramfs: mounts the first virtio disk and gives way to the init that it has.
#define _GNU_SOURCE
#include <sys/mount.h>
#include <sys/stat.h>

#include "modules.h"

int main(void) {
  mkdir("/dev", 0755);
  mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
  int console = open("/dev/console", O_RDWR);
  for (int fd = 0; fd < 3; ++fd) dup2(console, fd);
  load_modules();
  mkdir("/disk", 0755);
  for (int i = 0; i < 100 && mount("/dev/vda", "/disk", "ext4", 0, NULL) != 0; ++i) usleep(100000);
  if (chdir("/disk") != 0 || mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0) {
    printf("BAD: the disk: %m\n");
    return 1;
  }
  execl("/sbin/guest", "guest", NULL);
  printf("BAD: /sbin/guest: %m\n");
  return 1;
}
