#include "client/bench/soak.h"

#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "client/bench/adapter_draw.h"
#include "src/base/status_macros.h"
#include "src/base/stopwatch.h"

namespace hotlora {
namespace {

constexpr uint32_t kTenths = 10;
constexpr uint32_t kDisturbedTurn = 10;  // each such turn, the kinds one after the other
constexpr uint32_t kCancelledSteps = 20;
constexpr char kUnknown[] = "no-such-adapter";

// What happens before a swap.
enum class Disturbance { kNone = 0, kUnknown, kBroken, kCancelAdmitted, kCancelAtStep };

struct Turn {
  AdapterChoice adapters;
  Disturbance disturbance = Disturbance::kNone;
  AdapterChoice disturbing;
};

class Soak {
 public:
  Soak(BenchServer& server, BenchServer* twin, const BenchSettings& settings)
      : server_(server), twin_(twin), settings_(settings) {}

  absl::StatusOr<SoakRecord> Run() {
    ABSL_RETURN_IF_ERROR(DrawTurns());
    ABSL_ASSIGN_OR_RETURN(record_.base_before, server_.VerifyBase());
    for (const Turn& turn : turns_) {
      ABSL_RETURN_IF_ERROR(Take(turn).status());
    }
    record_.refused = record_.cancelled = 0;
    ABSL_RETURN_IF_ERROR(LookAtMemory());
    for (uint32_t i = 0; i < settings_.swaps && !TimeIsUp(); ++i) {
      ABSL_ASSIGN_OR_RETURN(SoakSwap swap, Take(turns_[i % turns_.size()]));
      record_.swaps.push_back(std::move(swap));
      if (record_.swaps.size() % settings_.idle_every == 0) {
        ABSL_RETURN_IF_ERROR(LookAtMemory());
      }
      if (record_.swaps.size() % turns_.size() == 0) {
        std::fprintf(stderr, "%zu of %u swaps\n", record_.swaps.size(), settings_.swaps);
      }
    }
    ABSL_ASSIGN_OR_RETURN(record_.base_after, server_.VerifyBase());
    return std::move(record_);
  }

 private:
  absl::Status DrawTurns() {
    ABSL_ASSIGN_OR_RETURN(const std::vector<std::string> all, server_.AdapterNames());
    broken_ = Matching(all, settings_.broken);
    std::vector<std::string> sound;
    for (const std::string& name : Matching(all, settings_.match)) {
      if (std::find(broken_.begin(), broken_.end(), name) == broken_.end()) {
        sound.push_back(name);
      }
    }
    if (sound.size() < 2) {
      return absl::InvalidArgumentError("a soak needs two adapters or more");
    }
    record_.cycle = std::max(settings_.swaps / kTenths, 2u);
    AdapterDraw draw(std::move(sound), settings_.weights, settings_.seed);
    AdapterChoice last;
    for (uint32_t i = 0; i < record_.cycle; ++i) {
      Turn turn;
      turn.adapters = draw.ChooseOther(1 + draw.Number(settings_.most_at_once), last);
      turn.disturbance = Disturb(i);
      if (turn.disturbance == Disturbance::kUnknown || turn.disturbance == Disturbance::kBroken) {
        turn.disturbing = draw.Choose(1);
        turn.disturbing.emplace_back().set_name(turn.disturbance == Disturbance::kBroken
                                                    ? broken_[draw.Number(static_cast<uint32_t>(broken_.size()))]
                                                    : kUnknown);
      } else if (turn.disturbance != Disturbance::kNone) {
        turn.disturbing = draw.ChooseOther(1 + draw.Number(settings_.most_at_once), turn.adapters);
      }
      last = turn.adapters;
      turns_.push_back(std::move(turn));
    }
    while (Words(turns_.back().adapters) == Words(turns_.front().adapters)) {
      turns_.back().adapters = draw.Choose(1);
    }
    return absl::OkStatus();
  }

  Disturbance Disturb(uint32_t turn) const {
    if (turn % kDisturbedTurn != kDisturbedTurn - 1) {
      return Disturbance::kNone;
    }
    const auto kind = static_cast<Disturbance>(1 + turn / kDisturbedTurn % 4);
    return kind == Disturbance::kBroken && broken_.empty() ? Disturbance::kUnknown : kind;
  }

  void MakeDisturbance(const Turn& turn) {
    v1::GenerateImagesRequest request = MakeRequest(settings_, turn.disturbing);
    if (turn.disturbance == Disturbance::kUnknown || turn.disturbance == Disturbance::kBroken) {
      const absl::StatusCode wanted = turn.disturbance == Disturbance::kUnknown ? absl::StatusCode::kNotFound
                                                                                : absl::StatusCode::kFailedPrecondition;
      const absl::Status status = server_.Generate(request).status();
      ++record_.refused;
      if (status.code() != wanted) {
        record_.surprises.push_back(absl::StrCat(Words(turn.disturbing), ": ", status.ToString()));
      }
      return;
    }
    request.set_steps(kCancelledSteps);
    const absl::Status status = server_.GenerateAndCancel(request, turn.disturbance == Disturbance::kCancelAtStep);
    ++record_.cancelled;
    if (!status.ok()) {
      record_.surprises.push_back(absl::StrCat("cancelled ", Words(turn.disturbing), ": ", status.ToString()));
    }
  }

  absl::StatusOr<SoakSwap> Take(const Turn& turn) {
    if (turn.disturbance != Disturbance::kNone) {
      MakeDisturbance(turn);
    }
    const v1::GenerateImagesRequest request = MakeRequest(settings_, turn.adapters);
    ABSL_ASSIGN_OR_RETURN(const TimedAnswer answer, server_.Generate(request));
    ABSL_ASSIGN_OR_RETURN(const TimedAnswer twin,
                          twin_ == nullptr ? server_.Generate(request) : twin_->Generate(MakeRequest(settings_, {})));
    const v1::SwapCost& cost = answer.summary.swap_cost();
    SoakSwap swap;
    swap.seconds = answer.seconds;
    swap.twin_seconds = twin.seconds;
    swap.swap_seconds = cost.total_seconds();
    swap.step_seconds = answer.median_step();
    swap.changed = cost.changed();
    swap.adapters = Words(turn.adapters);
    swap.source = ColdestSource(answer.summary);
    swap.form = cost.form();
    return swap;
  }

  absl::Status LookAtMemory() {
    ABSL_RETURN_IF_ERROR(server_.Generate(MakeRequest(settings_, {})).status());
    ABSL_ASSIGN_OR_RETURN(const IdleFigures figures, server_.ReadIdle());
    record_.idle.push_back({static_cast<uint32_t>(record_.swaps.size()), figures});
    return absl::OkStatus();
  }

  bool TimeIsUp() const { return settings_.seconds > 0 && since_start_.Seconds() > settings_.seconds; }

  BenchServer& server_;
  BenchServer* const twin_;
  const BenchSettings& settings_;
  const Stopwatch since_start_;
  std::vector<std::string> broken_;
  std::vector<Turn> turns_;
  SoakRecord record_;
};

}  // namespace

absl::StatusOr<SoakRecord> RunSoak(BenchServer& server, BenchServer* twin, const BenchSettings& settings) {
  return Soak(server, twin, settings).Run();
}

}  // namespace hotlora
