// Makes the System V objects of an image anew in the session's IPC namespace.
#pragma once

#include <map>
#include <vector>

#include "image/reader.h"
#include "restore/skeleton.h"
#include "schema/manifest.pb.h"
#include "stasis/result.h"

namespace stasis::restore {

// Segments that are to be removed are attached by the builder until the program has attached them.
class SystemV {
 public:
  explicit SystemV(const image::Image& image);
  ~SystemV() { detach(); }
  SystemV(const SystemV&) = delete;
  SystemV& operator=(const SystemV&) = delete;

  // In the builder, in the new namespaces, before init exists.
  Result<void> make();
  // In init, which has inherited the attachments, and in the builder, when the program has its own.
  void detach();
  // By the processes: what they have noted by SEM_UNDO, and then who changed each semaphore last.
  Result<void> restore_semaphores(std::map<int, Skeleton>& skeletons) const;

 private:
  Result<void> make_segment(const schema::IpcSegment& segment);
  Result<void> make_set(const schema::SemaphoreSet& set);
  Result<void> make_queue(const schema::MessageQueue& queue);

  const image::Image& image_;
  const schema::SystemV& objects_;
  std::vector<void*> attached_;
};

}  // namespace stasis::restore
