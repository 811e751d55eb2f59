// Chooses the numbers of tasks whose maker may not do it: the last number that a pid namespace has given is
// set, so that the next one follows.
#pragma once

#include "stasis/fd.h"
#include "stasis/result.h"
#include "stasis/types.h"

namespace stasis::restore {

// A process of ours in the session's pid namespace, with the rights of the builder. Ends with this.
class LastNumber {
 public:
  // `own`: the number that it takes for itself. The children of the caller must be born in the session.
  static Result<LastNumber> start(NsTid own);
  LastNumber(LastNumber&& other) noexcept
      : pid_(std::exchange(other.pid_, 0)),
        requests_(std::move(other.requests_)),
        answers_(std::move(other.answers_)) {}
  LastNumber& operator=(LastNumber&&) = delete;
  ~LastNumber();
  // The next task gets `number`, if that is free.
  Result<void> set_next(int number) const;

 private:
  LastNumber(pid_t pid, Fd requests, Fd answers)
      : pid_(pid), requests_(std::move(requests)), answers_(std::move(answers)) {}
  pid_t pid_;
  Fd requests_, answers_;
};

}  // namespace stasis::restore
