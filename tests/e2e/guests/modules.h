// What the inits of both Linux guests begin with.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

// In the order of their names, which the one who made the archive has chosen.
static void load_modules(void) {
  struct dirent** names;
  int count = scandir("/modules", &names, NULL, alphasort);
  for (int i = 0; i < count; ++i) {
    if (names[i]->d_name[0] == '.') continue;
    char path[600];
    snprintf(path, sizeof path, "/modules/%s", names[i]->d_name);
    int file = open(path, O_RDONLY);
    if (syscall(SYS_finit_module, file, "", 0) != 0) printf("MODULE %s: %m\n", names[i]->d_name);
    close(file);
  }
}
