// What the parents of a tree have not been told yet: that a child was stopped, or went on.
#pragma once

#include <functional>

#include "freeze/frozen_tree.h"
#include "remote/batch.h"
#include "schema/manifest.pb.h"
#include "stasis/result.h"

namespace stasis::inspect {

// Asks one parent, without taking the news from it. Notes them as exit_status of its children in the
// manifest, whose processes are those of the tree in order. `batch` is empty, and `run` lets the parent
// execute it.
Result<void> observe_news(const freeze::FrozenTree& tree, const freeze::FrozenProcess& parent,
                          remote::Batch batch, const std::function<Result<void>(remote::Batch&)>& run,
                          schema::Manifest& manifest);

}  // namespace stasis::inspect
