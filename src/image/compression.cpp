#include "image/compression.h"

#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <thread>
#include <vector>

#include "image/directory.h"
#include "stasis/fd.h"

namespace stasis::image {
namespace {

// What level 19 uses is 8 MiB; zstd's own limit for data from anywhere is 128 MiB.
constexpr int kWindowLog = 27;

Error damaged(const std::string& name, std::string cause) {
  return {"import", name, std::move(cause), "nothing was imported; export it again, or copy the file again",
          ErrorCode::kDamaged};
}

}  // namespace

struct Compressor::State {
  int fd;
  std::string name;
  std::unique_ptr<ZSTD_CCtx, size_t (*)(ZSTD_CCtx*)> context{ZSTD_createCCtx(), ZSTD_freeCCtx};
  std::vector<char> buffer = std::vector<char>(ZSTD_CStreamOutSize());
  uint64_t written = 0;

  // Until all input is taken; at the end until all output is written.
  Result<void> compress(std::span<const char> bytes, ZSTD_EndDirective directive) {
    ZSTD_inBuffer in = {bytes.data(), bytes.size(), 0};
    for (;;) {
      ZSTD_outBuffer out = {buffer.data(), buffer.size(), 0};
      const size_t left = ZSTD_compressStream2(context.get(), &out, &in, directive);
      if (ZSTD_isError(left) != 0)
        return Error{"export", name, ZSTD_getErrorName(left), {}, ErrorCode::kFailed};
      if (auto wrote = write_all(fd, {buffer.data(), out.pos}); !wrote.ok())
        return write_error("export", name, errno);
      written += out.pos;
      if (directive == ZSTD_e_end ? left == 0 : in.pos == in.size) return {};
    }
  }
};

Compressor::Compressor(int fd, std::string name, int level)
    : state_(std::make_unique<State>(State{fd, std::move(name)})) {
  ZSTD_CCtx* context = state_->context.get();
  ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, std::clamp(level, 1, kHighestLevel));
  ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
  // Also a single one: the reading of files goes on meanwhile.
  const unsigned processors = std::max(1U, std::thread::hardware_concurrency());
  ZSTD_CCtx_setParameter(context, ZSTD_c_nbWorkers, static_cast<int>(std::min(processors, 64U)));
}

Compressor::~Compressor() = default;

Result<void> Compressor::write(std::span<const char> bytes) {
  return state_->compress(bytes, ZSTD_e_continue);
}

Result<void> Compressor::finish() { return state_->compress({}, ZSTD_e_end); }

uint64_t Compressor::written() const { return state_->written; }

struct Decompressor::State {
  int fd;
  std::string name;
  std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context{ZSTD_createDCtx(), ZSTD_freeDCtx};
  std::vector<char> buffer = std::vector<char>(ZSTD_DStreamInSize());
  ZSTD_inBuffer in = {};
  uint64_t consumed = 0;  // of the file
  bool begun = false;
  bool ended = false;  // the frame

  // False: the file has ended.
  Result<bool> fill() {
    ssize_t got;
    do got = ::read(fd, buffer.data(), buffer.size());
    while (got < 0 && errno == EINTR);
    if (got < 0) return errno_error("import", name);
    in = {buffer.data(), static_cast<size_t>(got), 0};
    consumed += static_cast<uint64_t>(got);
    return got > 0;
  }

  // A pipe may give the first bytes one by one.
  Result<void> check_magic() {
    static constexpr unsigned char kMagic[] = {0x28, 0xb5, 0x2f, 0xfd};
    size_t have = 0;
    while (have < sizeof kMagic) {
      ssize_t got = ::read(fd, buffer.data() + have, buffer.size() - have);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return errno_error("import", name);
      if (got == 0) break;
      have += static_cast<size_t>(got);
    }
    if (have == 0) return damaged(name, "it is empty");
    if (have < sizeof kMagic || std::memcmp(buffer.data(), kMagic, sizeof kMagic) != 0)
      return damaged(name, "this is not an export of stasis: it is not compressed by zstd");
    in = {buffer.data(), have, 0};
    consumed = have;
    begun = true;
    return {};
  }

  Result<void> check_end() {
    if (in.pos == in.size) {
      STASIS_TRY(bool more, fill());
      if (!more) return {};
    }
    return damaged(name, "something follows the end of its compressed data");
  }
};

Decompressor::Decompressor(int fd, std::string name)
    : state_(std::make_unique<State>(State{fd, std::move(name)})) {
  ZSTD_DCtx_setParameter(state_->context.get(), ZSTD_d_windowLogMax, kWindowLog);
}

Decompressor::~Decompressor() = default;

Result<size_t> Decompressor::read(std::span<char> bytes) {
  State& state = *state_;
  if (!state.begun) STASIS_CHECK(state.check_magic());
  if (bytes.empty() || state.ended) return size_t{0};
  for (;;) {
    ZSTD_outBuffer out = {bytes.data(), bytes.size(), 0};
    const size_t left = ZSTD_decompressStream(state.context.get(), &out, &state.in);
    if (ZSTD_isError(left) != 0) {
      return damaged(state.name, fmt::format("its compressed data is damaged before byte {}: {}",
                                             state.consumed, ZSTD_getErrorName(left)));
    }
    if (left == 0) {
      state.ended = true;
      STASIS_CHECK(state.check_end());
      return out.pos;
    }
    if (out.pos > 0) return out.pos;
    if (state.in.pos == state.in.size) {
      STASIS_TRY(bool more, state.fill());
      if (!more) return damaged(state.name, fmt::format("it ends too early, after {} bytes", state.consumed));
    }
  }
}

uint64_t Decompressor::consumed() const { return state_->consumed; }

}  // namespace stasis::image
