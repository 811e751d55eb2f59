#include "kernel/probe.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <set>

#include "kernel/probe_internal.h"

namespace stasis::kernel {
namespace {

TEST(Probe, EveryFindingHasItsReasonAndWhatIsMissingARemedy) {
  const auto findings = probe_host("/nonexistent/store");
  ASSERT_GT(findings.size(), 10u);
  std::set<std::string> names;
  for (const auto& finding : findings) {
    EXPECT_TRUE(names.insert(finding.name).second) << finding.name;
    EXPECT_FALSE(finding.reason.empty()) << finding.name;
    if (finding.ability == Ability::kOk) {
      EXPECT_TRUE(finding.remedy.empty()) << finding.name;
    }
    if (finding.ability == Ability::kPartial) {
      EXPECT_FALSE(finding.remedy.empty()) << finding.name;
    }
  }
  // Nothing is left of the trials.
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
}

TEST(Probe, ATrialThatDiesIsMissing) {
  EXPECT_EQ(probing::in_child([]() -> probing::Outcome { std::abort(); }).ability, Ability::kMissing);
  EXPECT_EQ(probing::in_child([]() -> probing::Outcome { _exit(0); }).ability, Ability::kMissing);
  const auto outcome = probing::in_child([] { return probing::partly("a: b", "c\nd"); });
  EXPECT_EQ(outcome.ability, Ability::kPartial);
  EXPECT_EQ(outcome.reason, "a: b");
  EXPECT_EQ(outcome.remedy, "c\nd");
}

TEST(Probe, AStoreThatCannotBeWrittenIsMissing) {
  if (geteuid() == 0) GTEST_SKIP() << "root may write anywhere";
  const auto outcome = probing::try_store("/proc/1/store");
  EXPECT_EQ(outcome.ability, Ability::kMissing);
  EXPECT_FALSE(outcome.remedy.empty());
}

}  // namespace
}  // namespace stasis::kernel
