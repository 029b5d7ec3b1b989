#ifndef HOTLORA_SRC_PIPELINE_UNET_BATCH_H_
#define HOTLORA_SRC_PIPELINE_UNET_BATCH_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "src/nn/side_branch.h"
#include "src/pipeline/control_calls.h"
#include "src/pipeline/image_prompt_calls.h"
#include "src/pipeline/prompt_encoder.h"
#include "src/sampling/sampler.h"
#include "src/sdxl/unet.h"

namespace hotlora {

// The keys and values of texts, for so many rows of the network: Unet::ProjectText.
struct ProjectedText {
  std::vector<at::Tensor> text;
  int64_t rows = 0;
};

// One side of an image's text with its size conditioning, which is a row of the network in every step, and what the
// network made of both: it serves until the adapters in effect change. In bytes, at SDXL's full size and in bfloat16:
// 25.6 MB for each 77 tokens of keys and values, and 27.5 KB for each evaluation ahead.
struct NetworkRow {
  NetworkRow(TextSide side, at::Tensor sizes) : text(std::move(side)), size_ids(std::move(sizes)) {}

  // Gives back what the network made.
  void Release() {
    projected_text.reset();
    shifts.reset();
  }

  const TextSide text;
  const at::Tensor size_ids;  // [1, 6], float32, on the device

  std::shared_ptr<ProjectedText> projected_text;  // of the batch that it was in last
  int64_t place = 0;                              // its row there
  std::string text_adapters;                      // in effect when it was made

  at::Tensor shifts;              // [evaluations, shift width]: Unet::ProjectTime of the evaluations from here on
  uint32_t first_evaluation = 0;  // of them
  std::string shift_adapters;     // in effect when they were made
};

// A row of one call of the network.
struct BatchRow {
  NetworkRow* row;
  at::Tensor sample;            // [1, latent channels, height, width], float32
  const SamplerState* sampler;  // says which timesteps come
  uint32_t evaluation;          // how many this image has had
  std::string adapters;         // names what is in effect on the row, merged and beside the weights
  const SideTable* side;        // beside the weights; nullptr: none
};

// Rows that go through the network together, and what is made once of their texts, sizes and timesteps: for all steps
// as long as the same rows come, for the others with it as they join. REQUIRES: all texts have one number of tokens.
//
// Threads  the step thread only
// Memory   a batch of other rows is made tensor by tensor as the old ones are given back, so that it takes what the new
//          rows need and no more
// Errors   throws c10::Error; rows may then have lost what was made, and the next step makes it again
class UnetBatch {
 public:
  // Evaluations whose shifts are made at a time: bounds their bytes in runs of very many steps.
  static constexpr size_t kEvaluationsAhead = 64;

  void Add(BatchRow row) { rows_.push_back(std::move(row)); }

  // The controls in force on the last `rows` rows that were added, which are those of one image. What they point to
  // outlives this object.
  void Control(int64_t rows, std::vector<const EmbeddedControl*> in_force);

  // The image prompts of the image that was added last: of its two rows, or without guidance of its one.
  void Prompt(const SdxlImagePrompts& prompts, bool guided);

  // The prediction for all rows, in the order in which they were added, in the network's dtype.
  at::Tensor Predict(const Unet& unet, c10::ScalarType dtype);

 private:
  std::vector<at::Tensor> Text(const Unet& unet);
  bool IsLastBatch() const;  // whether the texts of these rows, in this order, were made before
  void MakeText(const Unet& unet);
  // Puts the texts of `known`, null for other rows, and those of the other rows, which `batch` has, into `batch`, in
  // the order of the rows.
  void Join(const std::vector<std::shared_ptr<ProjectedText>>& known, ProjectedText& batch) const;
  at::Tensor Shifts(const Unet& unet);
  UnetInput Input(const at::Tensor& sample) const;

  std::vector<BatchRow> rows_;
  std::vector<ControlledRowRange> controlled_;
  std::vector<ImageBranch> image_;  // of the cross attentions; empty: no row has image prompts
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_PIPELINE_UNET_BATCH_H_
