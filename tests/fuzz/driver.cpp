// Fuzzing without a fuzzer's packages: mutates the target's seeds and keeps what reaches new code, which
// gcc's -fsanitize-coverage=trace-pc tells. AddressSanitizer and UBSan judge.
//
//     TARGET [--seconds N] [--seed N]     mutates for so long, from a seed that is printed
//     TARGET FILE...                      runs the inputs, for instance the one that a crash has left
#include "driver.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>

namespace {

constexpr size_t kMostKept = 4000;
constexpr size_t kLongest = 1 << 16;

std::array<uint8_t, 1 << 16> g_reached;
size_t g_new = 0;
std::string g_input;

// A crash leaves its input.
void leave_input(int signal) {
  const char* name = "fuzz-crash";
  int fd = ::open(name, O_CREAT | O_WRONLY | O_TRUNC, 0600);
  if (fd >= 0 && ::write(fd, g_input.data(), g_input.size()) >= 0) {
    static const char text[] = "fuzz: the input is in ./fuzz-crash\n";
    if (::write(STDERR_FILENO, text, sizeof text - 1) < 0) ::_exit(1);
  }
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

bool run(const std::string& input) {
  constexpr unsigned kTooLong_s = 30;
  g_input = input;
  g_new = 0;
  ::alarm(kTooLong_s);  // is a finding, too
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(g_input.data()), g_input.size());
  ::alarm(0);
  return g_new > 0;
}

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : random_(seed) {}

  size_t below(size_t end) { return end == 0 ? 0 : random_() % end; }

  std::string mutate(std::string text, const std::string& other) {
    for (size_t count = 1 + below(6); count > 0; --count) step(text, other);
    if (text.size() > kLongest) text.resize(kLongest);
    return text;
  }

 private:
  void step(std::string& text, const std::string& other) {
    static constexpr uint64_t kEdges[] = {0,           1,       0x7f,       0x80,
                                          0xff,        0x7fff,  0xffff,     0x7fffffff,
                                          0x80000000,  1 << 20, 0xffffffff, uint64_t{1} << 47,
                                          ~uint64_t{0}};
    const size_t at = below(text.size());
    switch (below(9)) {
      case 0:
        if (!text.empty()) text[at] = static_cast<char>(text[at] ^ (1 << below(8)));
        break;
      case 1:
        if (!text.empty()) text[at] = static_cast<char>(random_());
        break;
      case 2:
        text.erase(at, 1 + below(below(2) == 0 ? 4 : text.size()));
        break;
      case 3:
        text.insert(at, 1 + below(8), static_cast<char>(random_()));
        break;
      case 4: {  // a number of some width
        const uint64_t value = kEdges[below(std::size(kEdges))];
        const size_t width = size_t{1} << below(4);
        if (at + width <= text.size()) std::memcpy(&text[at], &value, width);
        break;
      }
      case 5: {  // the same as a varint, in place of a byte
        uint64_t value = kEdges[below(std::size(kEdges))];
        std::string bytes;
        for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
        bytes += static_cast<char>(value);
        if (!text.empty()) text.replace(at, 1, bytes);
        break;
      }
      case 6: {  // a piece once more
        const std::string piece = text.substr(at, 1 + below(64));
        text.insert(below(text.size() + 1), piece);
        break;
      }
      case 7: {  // a piece of another input
        const size_t from = below(other.size());
        text.insert(at, other.substr(from, 1 + below(256)));
        break;
      }
      default: {  // the head of one, the tail of the other
        text = text.substr(0, at) + other.substr(below(other.size() + 1));
        break;
      }
    }
  }

  std::mt19937_64 random_;
};

}  // namespace

// Called on every edge of the code under test; the driver itself is compiled without.
extern "C" void __sanitizer_cov_trace_pc() {
  const auto pc = reinterpret_cast<uintptr_t>(__builtin_return_address(0));
  uint8_t& reached = g_reached[(pc ^ (pc >> 16)) % g_reached.size()];
  if (reached == 0) {
    reached = 1;
    ++g_new;
  }
}

int main(int argc, char** argv) {
  double seconds = 10;
  uint64_t seed = std::random_device()();
  std::vector<std::string> corpus;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--seconds") == 0 && i + 1 < argc) {
      seconds = std::atof(argv[++i]);
    } else if (std::strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
      seed = std::strtoull(argv[++i], nullptr, 10);
    } else {
      std::ifstream file(argv[i], std::ios::binary);
      corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
      seconds = 0;
    }
  }
  for (int signal : {SIGABRT, SIGSEGV, SIGILL, SIGTRAP, SIGBUS, SIGALRM}) ::signal(signal, leave_input);
  if (corpus.empty()) {
    corpus = fuzz_seeds();
    corpus.emplace_back();
  }
  std::printf("fuzz: --seed %llu\n", static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  size_t runs = corpus.size();
  for (const std::string& input : corpus) run(input);

  Mutator mutator(seed);
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (std::chrono::steady_clock::now() < end) {
    for (int i = 0; i < 64; ++i, ++runs) {
      std::string input =
          mutator.mutate(corpus[mutator.below(corpus.size())], corpus[mutator.below(corpus.size())]);
      if (run(input) && corpus.size() < kMostKept) corpus.push_back(std::move(input));
    }
  }
  size_t reached = 0;
  for (uint8_t one : g_reached) reached += one;
  std::printf("fuzz: %zu runs, %zu inputs kept, %zu edges reached\n", runs, corpus.size(), reached);
  // One that reaches nothing new in all that time does not reach the code at all.
  return seconds > 0 && reached < 20 ? 1 : 0;
}
