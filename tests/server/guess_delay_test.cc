#include "server/guess_delay.h"

#include <atomic>
#include <future>
#include <memory>
#include <string>
#include <thread>

#include <gtest/gtest.h>

namespace hotlora {
namespace {

const absl::Time kNoon = absl::FromUnixSeconds(1'700'000'000);

GuessLimits Limits() {
  GuessLimits limits;
  limits.free_guesses = 3;
  limits.period = absl::Minutes(1);
  limits.peers = 4;
  return limits;
}

TEST(GuessDelayTest, EachPeerHasSomeGuessesFree) {
  GuessDelay guesses(Limits());
  for (const char* peer : {"a", "b"}) {
    for (int i = 0; i < 3; ++i) {
      EXPECT_FALSE(guesses.Note(peer, kNoon)) << peer << i;
    }
    EXPECT_TRUE(guesses.Note(peer, kNoon)) << peer;
  }
}

TEST(GuessDelayTest, ThePeriodBeforeCountsToo) {
  GuessDelay guesses(Limits());
  for (int i = 0; i < 100; ++i) {
    guesses.Note("a", kNoon);
  }
  EXPECT_TRUE(guesses.Note("a", kNoon + absl::Seconds(61)));
  EXPECT_FALSE(guesses.Note("a", kNoon + absl::Seconds(182))) << "a period without guesses lies between";
}

TEST(GuessDelayTest, AClockThatIsSetBackStopsNothing) {
  GuessDelay guesses(Limits());
  guesses.Note("a", kNoon);
  const absl::Time before = kNoon - absl::Hours(24);
  for (int i = 0; i < 4; ++i) {
    guesses.Note("a", before);
  }
  EXPECT_TRUE(guesses.Note("a", before));
  EXPECT_FALSE(guesses.Note("a", before + absl::Minutes(3)));
}

TEST(GuessDelayTest, PeersBeyondTheTableCountAsOne) {
  GuessDelay guesses(Limits());
  for (const char* peer : {"a", "b", "c", "d", "e", "f", "g"}) {
    EXPECT_FALSE(guesses.Note(peer, kNoon)) << peer;
  }
  EXPECT_TRUE(guesses.Note("h", kNoon)) << "the fourth beyond the table";
  EXPECT_FALSE(guesses.Note("a", kNoon)) << "has a count of its own";
}

TEST(GuessDelayTest, LateAnswersHaveABound) {
  GuessLimits limits = Limits();
  limits.delay = absl::Hours(1);
  limits.late_answers = 3;
  limits.late_answers_of_one = 2;
  auto& guesses = *new GuessDelay(limits);  // it outlives the answers that are late
  static std::atomic<int> answered;
  answered = 0;
  const auto answer = [] { ++answered; };
  guesses.AnswerLate("a", answer);
  guesses.AnswerLate("a", answer);
  EXPECT_EQ(answered, 0);
  guesses.AnswerLate("a", answer);
  EXPECT_EQ(answered, 1) << "a has two that wait";
  guesses.AnswerLate("b", answer);
  EXPECT_EQ(answered, 1);
  guesses.AnswerLate("c", answer);
  EXPECT_EQ(answered, 2) << "three wait in all";
}

TEST(GuessDelayTest, ALateAnswerComesOnceAndMakesRoom) {
  GuessLimits limits = Limits();
  limits.delay = absl::Milliseconds(1);
  limits.late_answers = 1;
  GuessDelay guesses(limits);
  for (int i = 0; i < 20; ++i) {
    auto answered = std::make_shared<std::promise<std::thread::id>>();
    guesses.AnswerLate("a", [answered] { answered->set_value(std::this_thread::get_id()); });
    EXPECT_NE(answered->get_future().get(), std::this_thread::get_id()) << "the one before had made room";
  }
}

}  // namespace
}  // namespace hotlora
