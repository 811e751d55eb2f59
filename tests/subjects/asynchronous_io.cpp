// Contexts of Linux's own asynchronous I/O (io_setup).
#include <linux/aio_abi.h>
#include <sys/eventfd.h>

#include "subject.h"

namespace {

struct Ring {  // struct aio_ring
  unsigned id, nr, head, tail, magic, compat, incompat, header_length;
};

long submit(aio_context_t context, iocb* request) { return syscall(SYS_io_submit, context, 1, &request); }
long collect(aio_context_t context, io_event* events, long least, long most) {
  timespec limit = {5, 0};
  return syscall(SYS_io_getevents, context, least, most, events, &limit);
}

iocb request_of(int fd, void* buffer, size_t size, unsigned short what, uint64_t data) {
  iocb request = {};
  request.aio_fildes = static_cast<uint32_t>(fd);
  request.aio_lio_opcode = what;
  request.aio_buf = reinterpret_cast<uint64_t>(buffer);
  request.aio_nbytes = size;
  request.aio_data = data;
  return request;
}

}  // namespace

CASE(empty_context) {
  aio_context_t context = 0;
  if (syscall(SYS_io_setup, 64, &context) != 0) SKIP("this kernel has no asynchronous I/O");
  int fd = open(subject::path("file"), O_RDWR | O_CREAT, 0600);
  MUST(fd >= 0);
  subject::hold();
  static char text[16] = "written";
  iocb request = request_of(fd, text, 7, IOCB_CMD_PWRITE, 42);
  CHECK_EQ(submit(context, &request), 1);
  io_event event = {};
  CHECK_EQ(collect(context, &event, 1, 1), 1);
  CHECK_EQ(event.data, 42u);
  CHECK_EQ(event.res, 7);
  CHECK_EQ(syscall(SYS_io_destroy, context), 0);
}

CASE(context_that_has_been_used) {
  aio_context_t first = 0, second = 0;
  if (syscall(SYS_io_setup, 3, &first) != 0) SKIP("this kernel has no asynchronous I/O");
  MUST(syscall(SYS_io_setup, 1000, &second) == 0);
  unsigned sizes[2] = {reinterpret_cast<Ring*>(first)->nr, reinterpret_cast<Ring*>(second)->nr};
  int fd = open(subject::path("file"), O_RDWR | O_CREAT, 0600);
  static char text[16] = "written";
  for (uint64_t i = 0; i < 5; ++i) {
    iocb request = request_of(fd, text, 7, IOCB_CMD_PWRITE, i);
    MUST(submit(first, &request) == 1);
    io_event event = {};
    MUST(collect(first, &event, 1, 1) == 1 && event.data == i);
  }
  subject::hold();
  CHECK_EQ(reinterpret_cast<Ring*>(first)->nr, sizes[0]);
  CHECK_EQ(reinterpret_cast<Ring*>(second)->nr, sizes[1]);
  for (aio_context_t context : {first, second}) {
    static char back[16];
    iocb request = request_of(fd, back, 7, IOCB_CMD_PREAD, 99);
    CHECK_EQ(submit(context, &request), 1);
    io_event event = {};
    CHECK_EQ(collect(context, &event, 1, 1), 1);
    CHECK_EQ(event.data, 99u);
    CHECK_EQ(memcmp(back, "written", 7), 0);
    CHECK_EQ(syscall(SYS_io_destroy, context), 0);
  }
}

CASE(events_that_were_not_collected) {
  aio_context_t context = 0;
  if (syscall(SYS_io_setup, 16, &context) != 0) SKIP("this kernel has no asynchronous I/O");
  int fd = open(subject::path("file"), O_RDWR | O_CREAT, 0600);
  int told = eventfd(0, 0);
  static char text[16] = "written";
  static iocb requests[6];
  for (uint64_t i = 0; i < 6; ++i) {
    requests[i] = request_of(fd, text, 7, IOCB_CMD_PWRITE, 100 + i);
    requests[i].aio_flags = IOCB_FLAG_RESFD;
    requests[i].aio_resfd = static_cast<uint32_t>(told);
    MUST(submit(context, &requests[i]) == 1);
  }
  uint64_t all = 0;
  while (all < 6) all += subject::read_u64(told);
  io_event event = {};
  MUST(collect(context, &event, 1, 1) == 1);
  subject::hold();
  io_event events[8] = {};
  CHECK_EQ(collect(context, events, 5, 8), 5);
  for (uint64_t i = 0; i < 5; ++i) {
    CHECK_EQ(events[i].data, 101 + i);
    CHECK_EQ(events[i].obj, reinterpret_cast<uint64_t>(&requests[i + 1]));
    CHECK_EQ(events[i].res, 7);
  }
  iocb request = request_of(fd, text, 7, IOCB_CMD_PWRITE, 7);
  CHECK_EQ(submit(context, &request), 1);
  CHECK_EQ(collect(context, events, 1, 1), 1);
  CHECK_EQ(events[0].data, 7u);
}

// A request that waits: nothing shows it from outside.
CASE_WITH(request_under_way, subject::kMayRefuse) {
  aio_context_t context = 0;
  if (syscall(SYS_io_setup, 16, &context) != 0) SKIP("this kernel has no asynchronous I/O");
  int ends[2];
  MUST(pipe(ends) == 0);
  iocb request = request_of(ends[0], nullptr, 0, IOCB_CMD_POLL, 5);
  request.aio_buf = 1;  // POLLIN
  if (submit(context, &request) != 1) SKIP("this kernel cannot poll asynchronously");
  subject::hold();
  CHECK_EQ(write(ends[1], "x", 1), 1);
  io_event event = {};
  CHECK_EQ(collect(context, &event, 1, 1), 1);
  CHECK_EQ(event.data, 5u);
}
