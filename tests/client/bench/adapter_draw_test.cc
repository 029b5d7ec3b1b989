#include "client/bench/adapter_draw.h"

#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/bench/bench_server.h"

namespace hotlora {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

TEST(MatchingTest, TakesWhatAnyPatternMatches) {
  EXPECT_THAT(Matching({"a1", "a2", "b/a3", "c"}, {"a*", "*/a?"}), ElementsAre("a1", "a2", "b/a3"));
  EXPECT_THAT(Matching({"a", "b"}, {}), ElementsAre());
}

TEST(AdapterDrawTest, TheSameSeedDrawsTheSame) {
  AdapterDraw a({"x", "y", "z"}, {1.0, -0.5}, 7), b({"x", "y", "z"}, {1.0, -0.5}, 7);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(Words(a.Choose(2)), Words(b.Choose(2)));
  }
}

TEST(AdapterDrawTest, NoAdapterComesTwiceInAChoice) {
  AdapterDraw draw({"x", "y", "z"}, {1.0}, 0);
  for (int i = 0; i < 20; ++i) {
    std::set<std::string> names;
    for (const v1::AdapterRef& adapter : draw.Choose(5)) {
      names.insert(adapter.name());
    }
    EXPECT_THAT(names, UnorderedElementsAre("x", "y", "z"));
  }
}

TEST(AdapterDrawTest, AnotherChoiceIsAnother) {
  AdapterDraw draw({"x", "y"}, {1.0}, 0);
  AdapterChoice last = draw.Choose(1);
  for (int i = 0; i < 20; ++i) {
    const AdapterChoice next = draw.ChooseOther(1, last);
    EXPECT_NE(Words(next), Words(last));
    last = next;
  }
}

TEST(PlainMetricsTest, TakesWhatHasNoLabels) {
  EXPECT_THAT(PlainMetrics("# HELP a words\n# TYPE a gauge\nprocess_open_fds 15\nb{c=\"d e\"} 2\n"
                           "process_resident_memory_bytes 4.5e8\n"),
              UnorderedElementsAre(Pair("process_open_fds", 15), Pair("process_resident_memory_bytes", 4.5e8)));
}

}  // namespace
}  // namespace hotlora
