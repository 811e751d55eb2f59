// What the subjects that mount something share: doing it, and looking at the tree with names instead of
// numbers.
#pragma once

#include <sys/mount.h>
#include <sys/stat.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "subject.h"

namespace mounts {

inline void need_root() {
  if (geteuid() != 0) SKIP("not root");
}

inline std::string in_dir(const char* name) { return subject::path(name).text; }

inline void make_directory(const std::string& name) {
  MUST(mkdir(name.c_str(), 0755) == 0 || errno == EEXIST);
}
inline void write_file(const std::string& name, const char* text) {
  int fd = open(name.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0640);
  MUST(fd >= 0 && write(fd, text, strlen(text)) == static_cast<ssize_t>(strlen(text)));
  close(fd);
}
inline void expect_text(int fd, const char* text) {
  char back[256] = {};
  ssize_t n = pread(fd, back, sizeof back - 1, 0);
  if (n < 0 || strcmp(back, text) != 0) subject::say("expected '%s', found '%s' (%zd)", text, back, n);
  CHECK_EQ(n, static_cast<ssize_t>(strlen(text)));
  CHECK_EQ(strcmp(back, text), 0);
}
inline void expect_file(const std::string& name, const char* text) {
  int fd = open(name.c_str(), O_RDONLY);
  if (fd < 0) subject::say("%s: %s", name.c_str(), strerror(errno));
  CHECK(fd >= 0);
  if (fd < 0) return;
  expect_text(fd, text);
  close(fd);
}
inline void bind(const std::string& from, const std::string& to, unsigned long flags = 0) {
  if (mount(from.c_str(), to.c_str(), nullptr, MS_BIND | flags, nullptr) != 0) {
    subject::say("%s on %s: %s", from.c_str(), to.c_str(), strerror(errno));
    MUST(!"bind");
  }
}
inline void tmpfs(const std::string& at, const char* options = nullptr, const char* name = "memory") {
  MUST(mount(name, at.c_str(), "tmpfs", 0, options) == 0);
}
inline void change(const std::string& at, unsigned long flags) {
  MUST(mount(nullptr, at.c_str(), nullptr, flags, nullptr) == 0);
}
inline void own_namespace() {
  MUST(unshare(CLONE_NEWNS) == 0);
  change("/", MS_REC | MS_PRIVATE);
}

// A file that is open by a name that is removed: its other name is in another part of the same file system,
// which is to be seen by another mount only.
inline void file_with_a_name_elsewhere() {
  const std::string all = in_dir("all"), part = in_dir("part");
  for (const auto& directory : {all, part}) make_directory(directory);
  tmpfs(all);
  make_directory(all + "/1");
  make_directory(all + "/2");
  make_directory(all + "/2/below");
  bind(all + "/1", part);
  write_file(part + "/file", "linked");
  MUST(link((all + "/1/file").c_str(), (all + "/2/below/other").c_str()) == 0);
  int file = open((part + "/file").c_str(), O_RDWR);
  MUST(file >= 0 && unlink((all + "/1/file").c_str()) == 0);
  subject::hold();
  struct stat status = {};
  CHECK_EQ(fstat(file, &status), 0);
  CHECK_EQ(status.st_nlink, 1u);
  CHECK_EQ(pwrite(file, "L", 1, 0), 1);
  expect_file(all + "/2/below/other", "Linked");
}

// --- the tree, with names instead of numbers

struct Line {
  int id = 0, parent = 0, shared = 0, master = 0;
  std::string device, root, point, options, optional, type, source, super;
};

inline std::vector<Line> read_mounts(const char* file = "/proc/self/mountinfo") {
  static char text[1 << 20];
  std::vector<Line> lines;
  if (subject::slurp(file, text, sizeof text) < 0) return lines;
  for (char* next = text; char* line = strsep(&next, "\n");) {
    if (*line == 0) continue;
    std::vector<std::string> words;
    for (char* word; (word = strsep(&line, " ")) != nullptr;) words.push_back(word);
    Line one;
    one.id = atoi(words[0].c_str());
    one.parent = atoi(words[1].c_str());
    one.device = words[2];
    one.root = words[3];
    one.point = words[4];
    one.options = words[5];
    size_t at = 6;
    for (; words[at] != "-"; ++at) {
      if (words[at].compare(0, 7, "shared:") == 0) {
        one.shared = atoi(words[at].c_str() + 7);
      } else if (words[at].compare(0, 7, "master:") == 0) {
        one.master = atoi(words[at].c_str() + 7);
      } else if (words[at] == "unbindable") {
        one.optional = "unbindable";
      }
    }
    one.type = words[at + 1];
    one.source = words[at + 2];
    one.super = words[at + 3];
    lines.push_back(one);
  }
  return lines;
}

// Each mount at or below a directory in one line; a line tells what it is on, how deep it is in a pile, and
// by which of them its file system and its groups go.
inline std::set<std::string> tree_below(const std::string& directory) {
  const auto lines = read_mounts();
  std::map<int, const Line*> by_id;
  for (const Line& line : lines) by_id[line.id] = &line;
  const auto depth = [&](const Line& line) {
    int count = 0;
    for (const Line* at = &line; by_id.count(at->parent) != 0 && at->parent != at->id; ++count)
      at = by_id[at->parent];
    return count;
  };
  const auto name = [&](const Line& line) { return line.point + "^" + std::to_string(depth(line)); };
  std::map<int, std::string> groups;
  std::map<std::string, std::string> devices;
  for (const Line& line : lines) {
    const auto note = [&](std::string& first) {
      if (first.empty() || name(line) < first) first = name(line);
    };
    if (line.shared != 0) note(groups[line.shared]);
    note(devices[line.device]);
  }
  std::set<std::string> result;
  for (const Line& line : lines) {
    const bool below = directory == "/" || line.point == directory ||
                       line.point.compare(0, directory.size() + 1, directory + "/") == 0;
    if (!below) continue;
    const auto parent = by_id.find(line.parent);
    std::string super = line.super;
    result.insert(name(line) + " on " +
                  (parent == by_id.end() || line.parent == line.id ? "nothing" : name(*parent->second)) +
                  " shows " + line.root + " of " + devices[line.device] + " (" + line.type + "," +
                  line.source + "," + super + ") " + line.options + " " + line.optional +
                  (line.shared != 0 ? " peer of " + groups[line.shared] : "") +
                  (line.master == 0                 ? ""
                   : groups.count(line.master) != 0 ? " slave of " + groups[line.master]
                                                    : " slave of an outside group"));
  }
  return result;
}

inline void expect_tree(const std::string& directory, const std::set<std::string>& before) {
  const auto now = tree_below(directory);
  for (const auto& line : before) {
    if (now.count(line) == 0) subject::say("[%d] was:  %s", getpid(), line.c_str());
  }
  for (const auto& line : now) {
    if (before.count(line) == 0) subject::say("[%d] is:   %s", getpid(), line.c_str());
  }
  CHECK(now == before);
}

inline bool is_mounted(const std::string& point) {
  for (const Line& line : read_mounts()) {
    if (line.point == point) return true;
  }
  return false;
}

inline uint64_t mount_of(int fd) {
  struct statx status = {};
  CHECK_EQ(statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | 0x1000, &status), 0);
  return status.stx_mnt_id;
}
inline uint64_t mount_at(const std::string& path) {
  int fd = open(path.c_str(), O_PATH);
  const uint64_t id = fd >= 0 ? mount_of(fd) : 0;
  close(fd);
  return id;
}
inline bool is_listed(uint64_t id) {
  for (const Line& line : read_mounts()) {
    if (static_cast<uint64_t>(line.id) == id) return true;
  }
  return false;
}
inline std::string link_of(const char* name) {
  char text[4096] = {};
  return readlink(name, text, sizeof text - 1) >= 0 ? text : strerror(errno);
}
inline std::string shown(int fd) { return link_of(("/proc/self/fd/" + std::to_string(fd)).c_str()); }

}  // namespace mounts
