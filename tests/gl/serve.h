// How tests tell a program what to draw: by lines, or by files of a directory.
#pragma once

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

// NUMBER.command is answered by NUMBER.answer. No descriptor stays open in between, so that a test can go on
// with it after a restart.
template <typename Run>
[[noreturn]] void serve_directory(const std::string& directory, Run run) {
  for (int number = 1;;) {
    const std::string name = directory + "/" + std::to_string(number);
    char command[64] = {};
    FILE* file = fopen((name + ".command").c_str(), "r");
    if (file == nullptr) {
      usleep(10'000);
      continue;
    }
    if (fscanf(file, "%63s", command) != 1) {
      fprintf(stderr, "%s.command: there is nothing in it\n", name.c_str());
      exit(1);
    }
    fclose(file);
    file = fopen((name + ".part").c_str(), "w");
    fprintf(file, "%s\n", run(std::string(command)).c_str());
    fclose(file);
    rename((name + ".part").c_str(), (name + ".answer").c_str());
    ++number;
  }
}

// Standard input, whose lines are answered on standard output; "ready" comes first.
template <typename Run>
void serve_lines(const char* ready, Run run) {
  printf("%s\n", ready);
  fflush(stdout);
  char line[64];
  while (fscanf(stdin, "%63s", line) == 1) {
    printf("%s\n", run(std::string(line)).c_str());
    fflush(stdout);
  }
}
