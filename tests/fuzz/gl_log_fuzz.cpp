// Whatever a program puts into its rings: the keeper says that the stream is damaged, or keeps a log that is
// one. An input is packets: an operation, a ring, how many words of 8 bytes follow the header, and these.
#include <GL/gl.h>
#include <GL/glext.h>

#include <cstring>
#include <string>
#include <vector>

#include "generated/commands.h"
#include "keeper/log.h"
#include "reader/ring_file.h"
#include "reader/ring_reader.h"
#include "tests/fuzz/driver.h"

using namespace stasis::gl;

namespace {

void add(std::string& input, uint16_t op, const std::string& words) {
  input.append(reinterpret_cast<const char*>(&op), sizeof op);
  input += '\1';
  input += static_cast<char>(words.size() / 8);
  input += words;
}

template <typename P>
void add(std::string& input, uint16_t op, P packet, const std::string& payload = {}) {
  std::string words(reinterpret_cast<const char*>(&packet) + sizeof(Packet), sizeof packet - sizeof(Packet));
  words.resize((words.size() + 7) / 8 * 8);
  words += payload;
  words.resize((words.size() + 7) / 8 * 8);
  add(input, op, words);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Log log;
  std::vector<uint64_t> room;
  try {
    for (size_t at = 0; at + 4 <= size;) {
      uint16_t op = 0;
      std::memcpy(&op, data + at, sizeof op);
      const uint32_t ring = data[at + 2] % 4;
      const size_t bytes = std::min<size_t>(data[at + 3] * size_t{8}, (size - at - 4) / 8 * 8);
      room.assign(1 + bytes / 8, 0);
      std::memcpy(room.data() + 1, data + at + 4, bytes);
      auto& packet = *reinterpret_cast<Packet*>(room.data());
      packet = {static_cast<uint32_t>(sizeof(Packet) + bytes), static_cast<uint16_t>(op % kOpGlEnd), 0};
      // A million lists, in each of many contexts, are right but take long.
      if (packet.op == kOpGenLists && bytes != 0) room[1] &= 0xffffffff0000003fU;
      log.add(ring, packet);
      at += 4 + bytes;
    }
  } catch (const BadStream&) {
  }
  // What was kept before is whole. Calls in lists may be damaged in themselves.
  Log again;
  try {
    for_each_packet(log.replay(), [&](const Packet& packet) { again.add(1, packet); });
  } catch (const BadStream&) {
  }
  (void)again.replay();
  (void)log.threads();
  const std::string questions = log.questions();
  log.take_answers(questions, "");
  (void)log.statistics();
  return 0;
}

std::vector<std::string> fuzz_seeds() {
  std::string begin;
  CreateContext create = {};
  create.context = 1;
  create.config = 7;
  create.attributes = kNull;
  add(begin, kOpCreateContext, create);
  MakeCurrent current = {};
  current.context = 1;
  current.draw = current.read = 99;
  add(begin, kOpMakeCurrent, current);
  std::vector<std::string> seeds;
  // Each operation, with arguments that are small numbers.
  for (uint16_t first = kOpFirstGl; first < kOpGlEnd; first = static_cast<uint16_t>(first + 16)) {
    std::string input = begin;
    for (uint16_t op = first; op < first + 16 && op < kOpGlEnd; ++op) {
      std::string words(96, '\0');
      for (size_t i = 0; i < words.size(); i += 4) words[i] = static_cast<char>(i / 4 % 3);
      add(input, op, words);
    }
    seeds.push_back(input);
  }
  std::string images = begin;
  add(images, kOpBindTexture, PBindTexture{{}, GL_TEXTURE_2D, 5});
  PTexImage2D image = {};
  image.target = GL_TEXTURE_2D;
  image.width = image.height = 2;
  image.pixels_bytes = 16;
  add(images, kOpTexImage2D, image, std::string(16, 'x'));
  add(images, kOpBindFramebuffer, PBindFramebuffer{{}, GL_FRAMEBUFFER, 3});
  add(images, kOpFramebufferTexture2D,
      PFramebufferTexture2D{{}, GL_FRAMEBUFFER, GL_COLOR_ATTACHMENT0, GL_TEXTURE_2D, 5, 0});
  add(images, kOpClear, PClear{{}, GL_COLOR_BUFFER_BIT});
  add(images, kOpGenerateMipmap, PGenerateMipmap{{}, GL_TEXTURE_2D});
  seeds.push_back(images);
  std::string lists = begin;
  add(lists, kOpNewList, PNewList{{}, 1, GL_COMPILE});
  add(lists, kOpBegin, PBegin{{}, GL_TRIANGLES});
  add(lists, kOpEnd, PEnd{});
  add(lists, kOpCallList, PCallList{{}, 1});
  add(lists, kOpEndList, PEndList{});
  add(lists, kOpCallList, PCallList{{}, 1});
  seeds.push_back(lists);
  return seeds;
}
