#include "restore/aio_ring.h"

#include <fcntl.h>
#include <linux/aio_abi.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstring>

namespace stasis::restore {

using remote::Batch;

namespace {

struct RingHead {  // struct aio_ring of fs/aio.c, which libaio knows, too
  uint32_t id, count, head, tail, magic, compatible, incompatible, size;
};
constexpr uint32_t kMagic = 0xa10a10a1;

Error impossible(const Skeleton& skeleton, const schema::Mapping& mapping, std::string cause,
                 ErrorCode code) {
  return Error{"restart: make a context for asynchronous I/O",
               fmt::format("mapping {:#x} of task {}", mapping.start(), skeleton.ns_pid()),
               std::move(cause),
               {},
               code};
}

// The kernel remembers where it puts the next event, so that place is reached by events. Those that stay in
// the ring stand for the ones that the program has not collected.
Result<void> advance(Skeleton& skeleton, const schema::Mapping& mapping, uint32_t collected,
                     uint32_t waiting) {
  constexpr uint32_t kAtOnce = 64;
  static constexpr char kNull[] = "/dev/null";
  Batch opening = skeleton.batch();
  const size_t opened = opening.call(SYS_openat, {static_cast<uint64_t>(AT_FDCWD),
                                                  opening.put({kNull, sizeof kNull}), O_WRONLY | O_CLOEXEC});
  STASIS_CHECK(skeleton.run_checked(opening, "open /dev/null"));
  const auto null = static_cast<uint64_t>(opening.result(opened));
  for (bool stays : {false, true}) {
    for (uint32_t left = stays ? waiting : collected; left > 0;) {
      const uint32_t now = std::min(left, kAtOnce);
      Batch batch = skeleton.batch();
      iocb request = {};
      request.aio_lio_opcode = IOCB_CMD_PWRITE;
      request.aio_fildes = static_cast<uint32_t>(null);
      request.aio_buf = batch.put_object<uint64_t>(0);
      request.aio_nbytes = 1;
      const uint64_t address = batch.put_object(request);
      std::string requests;
      for (uint32_t i = 0; i < now; ++i)
        requests.append(reinterpret_cast<const char*>(&address), sizeof address);
      const size_t made = batch.call(SYS_io_submit, {mapping.start(), now, batch.put(requests)});
      size_t ended = made;
      if (!stays)
        ended = batch.call(SYS_io_getevents,
                           {mapping.start(), now, now, batch.reserve(now * sizeof(io_event)), 0});
      STASIS_CHECK(skeleton.run_checked(batch, "fill a ring of asynchronous I/O"));
      if (batch.result(made) != now || batch.result(ended) != now)
        return impossible(skeleton, mapping, "the kernel took fewer requests than it has room for",
                          ErrorCode::kFailed);
      left -= now;
    }
  }
  Batch closing = skeleton.batch();
  closing.call(SYS_close, {null});
  return skeleton.run_checked(closing, "close /dev/null");
}

}  // namespace

// 1. The kernel rounds up what is asked for until the ring is whole pages; this asks for the most that needs
// no
//    further page. 2. A ring that is moved keeps its context, which has a new name then. 3. What the program
//    sees of it is memory, but for the number by which the kernel finds the context.
Result<void> make_aio_ring(Skeleton& skeleton, const schema::Mapping& mapping, uint64_t pass) {
  const uint64_t size = mapping.end() - mapping.start();
  RingHead before;
  std::memcpy(&before, mapping.ring().data(), sizeof before);
  if (before.magic != kMagic || before.count == 0 || before.head >= before.count ||
      before.tail >= before.count)
    return impossible(skeleton, mapping, "its ring makes no sense", ErrorCode::kDamaged);

  Batch batch = skeleton.batch();
  const uint64_t room = 64 * (size / kPageSize) - 2;
  const uint64_t made = batch.put_object<uint64_t>(0);
  batch.call(SYS_io_setup, {room, made});
  STASIS_CHECK(skeleton.run_checked(batch, "make a context for asynchronous I/O"));
  const auto context = batch.output<uint64_t>(made);
  STASIS_TRY(auto fresh, remote::read_object<RingHead>(skeleton.pid(), RemotePtr{context}));
  if (fresh.count != before.count) {
    return impossible(skeleton, mapping,
                      fmt::format("this kernel makes it with {} places for events instead of {}", fresh.count,
                                  before.count),
                      ErrorCode::kUnsupported);
  }
  batch.clear();
  batch.call(SYS_mremap, {context, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, mapping.start(), pass});
  if (mapping.protection() != (PROT_READ | PROT_WRITE))
    batch.call(SYS_mprotect, {mapping.start(), size, mapping.protection()});
  STASIS_CHECK(skeleton.run_checked(batch, "move a context for asynchronous I/O"));

  const uint32_t waiting = (before.tail + before.count - before.head) % before.count;
  const uint32_t total = before.tail >= waiting ? before.tail : before.tail + before.count;
  STASIS_CHECK(advance(skeleton, mapping, total - waiting, waiting));
  std::string ring = mapping.ring();
  std::memcpy(ring.data(), &fresh.id, sizeof fresh.id);
  return remote::write_memory(skeleton.pid(), RemotePtr{mapping.start()}, ring);
}

}  // namespace stasis::restore
