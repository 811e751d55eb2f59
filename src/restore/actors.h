// Lets things be done by processes that have certain numbers: where the kernel notes who did something, and
// shows it for ever.
#pragma once

#include <functional>
#include <vector>

#include "schema/manifest.pb.h"
#include "stasis/descriptor.h"
#include "stasis/result.h"

namespace stasis::restore {

struct Deed {
  resource::Actor actor;
  std::function<Result<void>()> act;
};

// In init, while it has no children. Neighbours with one actor are done by one process, which shares our
// descriptors and ends. `nobody` is the number of actors that are gone.
Result<void> perform(const std::vector<Deed>& deeds, NsTid nobody);

// Makes a directory in /proc of a process that has ended ours, and that of all who are born then: it can only
// be entered while there is a process with that number, and no process is there yet that could be it.
Result<void> enter_directory_of(NsTid dead, const std::string& path);

// A number that no task, group or session of the image has.
NsTid unused_number(const schema::Manifest& manifest);

}  // namespace stasis::restore
