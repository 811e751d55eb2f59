// POSIX message queues.
#pragma once

#include "schema/kinds/mqueue.pb.h"
#include "stasis/descriptor.h"

namespace stasis::resource {

class MessageQueueKind final : public DescriptorKind {
 public:
  KindInfo info() const override;
  bool recognises(const OpenFile& file, const Observation& tree) const override;
  Result<std::string> observe(const OpenFile& file, Observation& tree) const override;
  Result<Fd> make(const Record& record, Making& context) const override;
  Result<void> fill(const Record& record, int fd, Making& context) const override;
  Result<void> finish(const Record& record, Finishing& owner) const override;
  bool finishes_last() const override { return true; }
  std::string summary(const Record& record) const override;
};

// Of a queue that is open as `fd`, in whatever way: everything but its name and who is notified. The messages
// are taken out and put back, which nobody sees while the session stands still.
Result<void> read_queue(int fd, schema::PosixQueue& out);
// Makes a queue in our own IPC namespace. It is open for reading and writing.
Result<Fd> make_queue(const schema::PosixQueue& queue);

}  // namespace stasis::resource
