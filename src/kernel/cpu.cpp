#include "kernel/cpu.h"

#include <cpuid.h>

#include <sstream>
#include <string>

#include "stasis/fd.h"

namespace stasis::kernel {

void describe_cpu(schema::Host& out) {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  if (__get_cpuid_count(0xd, 0, &a, &b, &c, &d) != 0) {
    out.set_xsave_features((uint64_t{d} << 32) | a);
    out.set_xsave_size(b);
  }
  // Only the first processor: they are alike in what programs see.
  auto text = read_file("/proc/cpuinfo");
  if (!text.ok()) return;
  std::istringstream lines(*text);
  std::string line;
  while (std::getline(lines, line) && !line.empty()) {
    size_t colon = line.find(": ");
    if (colon == std::string::npos) continue;
    if (line.starts_with("model name")) out.set_cpu(line.substr(colon + 2));
    if (line.starts_with("flags")) {
      std::istringstream words(line.substr(colon + 2));
      std::string word;
      while (words >> word) out.add_cpu_flags(word);
    }
  }
}

}  // namespace stasis::kernel
