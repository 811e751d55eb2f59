// Pages that processes of one checkpoint have in common: after a fork a child has those of its parent until
// one of them writes. The first that is written has them in its page file, and the others refer to that file,
// as to those of earlier checkpoints.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/increment.h"
#include "schema/manifest.pb.h"

namespace stasis::checkpoint {

class Kin {
 public:
  // Processes that live, by their memories. `manifest` has their numbers, and gets the pages of one after the
  // other; `directory` is where the files of the checkpoint are.
  Kin(const schema::Manifest& manifest, std::string directory);

  // In which they are to be written: parents before their children, brothers together.
  const std::vector<size_t>& order() const { return order_; }

  // Where the relatives of a process have their pages: its parent, and that one's, if the parent has changed
  // what the three had, and the brother that was written before it, for what the parent has changed since.
  // Each time for the next one in the order.
  using Pages = std::vector<std::shared_ptr<const BasePages>>;
  Pages written_relatives(size_t memory);

 private:
  std::shared_ptr<const BasePages> pages_of(size_t memory);

  const schema::Manifest& manifest_;
  std::string directory_;
  std::vector<size_t> order_;
  std::map<size_t, size_t> parents_;
  std::map<size_t, size_t> brothers_;              // the one before
  std::map<std::string, FileOfPages> identities_;  // by the names of files
  size_t parent_at_hand_ = 0;
  std::shared_ptr<const BasePages> pages_of_parent_;
};

}  // namespace stasis::checkpoint
