// epoll(7).
#pragma once

#include "stasis/descriptor.h"

namespace stasis::resource {

class EpollKind : public DescriptorKind {
 public:
  KindInfo info() const override;
  bool recognises(const OpenFile& file, const Observation& tree) const override;
  Result<std::string> observe(const OpenFile& file, Observation& tree) const override;
  Result<Fd> make(const Record& record, Making& context) const override;
  Result<void> finish(const Record& record, Finishing& owner) const override;
  std::string summary(const Record& record) const override;

 private:
  // A number by which the set's owner has the target open, at best the one by which it was added.
  virtual Result<int> held_as(const OpenFile& target, const OpenFile& set, int added_as,
                              const Observation& tree) const;
};

// One in a message that nobody has received, which no process has: we fill it. Of another name, so that
// those who do not know it do not restart it empty.
class EpollInFlightKind final : public EpollKind {
 public:
  KindInfo info() const override;
  bool recognises(const OpenFile& file, const Observation& tree) const override;
  Result<void> settle(const Record& record, int fd, Making& context, Round round) const override;

 private:
  Result<int> held_as(const OpenFile& target, const OpenFile& set, int added_as,
                      const Observation& tree) const override;
};

}  // namespace stasis::resource
