// How many operators that compute something the UNet calls on the CPU at SDXL's depth, in each step and once a request,
// against the figures in unet_calls.txt beside this file. Each is at least one time that the threads wake and wait.
// Views, allocations and LibTorch's compositions of other operators do not count, nor does what a counted operator
// calls. To accept the figures of a change, run the test with HOTLORA_TEST_WRITE_COUNTS=1 and commit the file.

#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/function_schema.h>
#include <ATen/record_function.h>
#include <gtest/gtest.h>

#include "src/nn/packed_weight.h"
#include "src/sdxl/unet.h"
#include "tests/golden_support.h"
#include "tests/nn/random_parameters.h"

namespace hotlora {
namespace {

// Counts the calls of this thread while it lives. One at a time.
class ComputingCalls {
 public:
  ComputingCalls() {
    current_ = this;
    handle_ = at::addThreadLocalCallback(at::RecordFunctionCallback(&Begin, &End).scopes({at::RecordScope::FUNCTION}));
  }
  ~ComputingCalls() {
    at::removeCallback(handle_);
    current_ = nullptr;
  }
  ComputingCalls(const ComputingCalls&) = delete;
  ComputingCalls& operator=(const ComputingCalls&) = delete;

  const std::map<std::string, int64_t>& by_operator() const { return counts_; }

 private:
  static std::unique_ptr<at::ObserverContext> Begin(const at::RecordFunction& call) {
    std::vector<bool>& within = current_->within_computing_;
    const bool inner = !within.empty() && within.back();
    const bool computes = !inner && Computes(call);
    if (computes) {
      ++current_->counts_[call.name()];
    }
    within.push_back(inner || computes);
    return nullptr;
  }

  static void End(const at::RecordFunction&, at::ObserverContext*) { current_->within_computing_.pop_back(); }

  static bool Computes(const at::RecordFunction& call) {
    const std::string name = call.name();
    const auto schema = call.operator_schema();
    if (!schema.has_value()) {
      return true;  // ours, which says so itself
    }
    if (name.rfind("aten::empty", 0) == 0 || name == "aten::resize_" || name == "aten::_unsafe_view" ||
        c10::Dispatcher::singleton()
            .findSchemaOrThrow(name.c_str(), schema->overload_name().c_str())
            .hasKernelForDispatchKey(c10::DispatchKey::CompositeImplicitAutograd)) {
      return false;
    }
    bool makes_tensor = false;
    for (const c10::Argument& result : schema->returns()) {
      if (result.alias_info() != nullptr && !result.alias_info()->isWrite()) {
        return false;  // a view
      }
      makes_tensor = makes_tensor || result.type()->str().rfind("Tensor", 0) == 0;
    }
    return makes_tensor;
  }

  static ComputingCalls* current_;
  at::CallbackHandle handle_;
  std::vector<bool> within_computing_;  // for each call that is open, outermost first
  std::map<std::string, int64_t> counts_;
};

ComputingCalls* ComputingCalls::current_ = nullptr;

// SDXL's levels and depths, and as many pixels to a channel as an image of 512 x 512 has.
UnetConfig NarrowSdxl() {
  UnetConfig config;
  config.in_channels = config.out_channels = 4;
  config.layers_per_block = 2;
  config.cross_attention_width = 24;
  config.groups = 4;
  config.norm_epsilon = 1e-5;
  config.size_id_width = 8;
  config.addition_in = 16 + 6 * config.size_id_width;
  config.levels = {{8, 0, 0, false, false}, {16, 2, 2, true, true}, {32, 10, 4, true, true}};
  return config;
}

// A line for each operator, and their sum; each line begins with `part`.
template <typename Work>
void Count(const std::string& part, std::ostream& text, const Work& work) {
  const ComputingCalls calls;
  work();
  int64_t total = 0;
  for (const auto& [name, count] : calls.by_operator()) {
    text << part << ' ' << name << ' ' << count << '\n';
    total += count;
  }
  text << part << " total " << total << '\n';
}

TEST(UnetCallsTest, AreAsManyAsWritten) {
  if (!HasPackedProducts(at::kFloat)) {
    GTEST_SKIP() << "this CPU has no packed products, so LibTorch's operators are called in their place";
  }
  c10::InferenceMode guard;
  TestPlace();
  const int threads = at::get_num_threads();
  at::set_num_threads(2);  // one thread runs no chains of operators
  RandomParameters parameters;
  const Unet unet(ParameterScope(parameters), NarrowSdxl());
  UnetStep step;
  step.sample = at::randn({2, 4, 32, 32});
  const at::Tensor context = at::randn({2, 77, 24}), pooled = at::randn({2, 16});
  const at::Tensor timesteps = at::full({2}, 500.0F), sizes = at::full({2, 6}, 512.0F);
  std::ostringstream text;
  Count("once", text, [&] {
    step.text = unet.ProjectText(context);
    step.shifts = unet.ProjectTime(timesteps, pooled, sizes);
  });
  Count("step", text, [&] { unet.Predict(step); });
  at::set_num_threads(threads);

  const std::string path = GoldenPath("../sdxl/unet_calls.txt");
  if (std::getenv("HOTLORA_TEST_WRITE_COUNTS") != nullptr) {
    std::ofstream(path) << text.str();
  }
  std::ostringstream golden;
  golden << std::ifstream(path).rdbuf();
  EXPECT_EQ(text.str(), golden.str());
}

}  // namespace
}  // namespace hotlora
