#include "src/pipeline/unet_batch.h"

#include <algorithm>

#include <ATen/ATen.h>

namespace hotlora {
namespace {

// The side branches of rows of the network, each of which stands for so many neighbours. Rows under one set that follow
// each other go through its side branch together.
class SideRowsWriter {
 public:
  void Add(const SideTable* table, int64_t rows) {
    if (table != nullptr && !table->empty()) {
      if (!side_.empty() && side_.back().table == table && side_.back().first + side_.back().rows == next_) {
        side_.back().rows += rows;
      } else {
        side_.push_back({next_, rows, table});
      }
    }
    next_ += rows;
  }

  SideBranch side() const { return side_; }

 private:
  std::vector<SideRows> side_;
  int64_t next_ = 0;
};

bool KnowsText(const BatchRow& row) {
  return row.row->projected_text != nullptr && row.row->text_adapters == row.adapters;
}

bool KnowsShift(const BatchRow& row) {
  const NetworkRow& known = *row.row;
  return known.shifts.defined() && known.shift_adapters == row.adapters && row.evaluation >= known.first_evaluation &&
         row.evaluation - known.first_evaluation < static_cast<uint32_t>(known.shifts.size(0));
}

}  // namespace

at::Tensor UnetBatch::Predict(const Unet& unet, c10::ScalarType dtype) {
  UnetStep step;
  step.text = Text(unet);
  step.shifts = Shifts(unet);
  std::vector<at::Tensor> samples;
  SideRowsWriter side;
  for (const BatchRow& row : rows_) {
    samples.push_back(row.sample);
    side.Add(row.side, 1);
  }
  step.sample = at::cat(samples).to(dtype);
  if (!controlled_.empty()) {
    step.control = RunControlNets(Input(step.sample), controlled_);
  }
  step.image = std::move(image_);
  return unet.Predict(step, {}, side.side());
}

void UnetBatch::Control(int64_t rows, std::vector<const EmbeddedControl*> in_force) {
  if (!in_force.empty()) {
    controlled_.push_back({static_cast<int64_t>(rows_.size()) - rows, rows, std::move(in_force)});
  }
}

void UnetBatch::Prompt(const SdxlImagePrompts& prompts, bool guided) {
  prompts.AddTo(static_cast<int64_t>(rows_.size()) - (guided ? 2 : 1), guided, image_);
}

// What ControlNets see of the rows: they have no part in what is kept of texts and timesteps, nor in image prompts.
UnetInput UnetBatch::Input(const at::Tensor& sample) const {
  std::vector<at::Tensor> hidden, pooled, size_ids;
  std::vector<float> timesteps;
  for (const BatchRow& row : rows_) {
    hidden.push_back(row.row->text.hidden);
    pooled.push_back(row.row->text.pooled);
    size_ids.push_back(row.row->size_ids);
    timesteps.push_back(row.sampler->timesteps(1).front());
  }
  UnetInput input;
  input.sample = sample;
  input.timesteps = at::tensor(timesteps).to(sample.device());
  input.encoder_hidden_states = at::cat(hidden);
  input.pooled = at::cat(pooled);
  input.time_ids = at::cat(size_ids);
  return input;
}

std::vector<at::Tensor> UnetBatch::Text(const Unet& unet) {
  if (!IsLastBatch()) {
    MakeText(unet);
  }
  return rows_.front().row->projected_text->text;
}

bool UnetBatch::IsLastBatch() const {
  const std::shared_ptr<ProjectedText>& last = rows_.front().row->projected_text;
  if (last == nullptr || last->rows != static_cast<int64_t>(rows_.size())) {
    return false;
  }
  int64_t place = 0;
  return std::all_of(rows_.begin(), rows_.end(), [&](const BatchRow& row) {
    return KnowsText(row) && row.row->projected_text == last && row.row->place == place++;
  });
}

void UnetBatch::MakeText(const Unet& unet) {
  std::vector<std::shared_ptr<ProjectedText>> known;  // where each row's is; null: to be made
  std::vector<at::Tensor> missing;
  SideRowsWriter side;
  for (const BatchRow& row : rows_) {
    known.push_back(KnowsText(row) ? row.row->projected_text : nullptr);
    row.row->projected_text.reset();
    if (known.back() == nullptr) {
      missing.push_back(row.row->text.hidden);
      side.Add(row.side, 1);
    }
  }
  auto batch = std::make_shared<ProjectedText>();
  batch->rows = static_cast<int64_t>(rows_.size());
  if (!missing.empty()) {
    batch->text = unet.ProjectText(at::cat(missing), side.side());
  }
  if (missing.size() < rows_.size()) {
    Join(known, *batch);
  }
  for (size_t i = 0; i < rows_.size(); ++i) {
    NetworkRow& row = *rows_[i].row;
    row.projected_text = batch;
    row.place = static_cast<int64_t>(i);
    row.text_adapters = rows_[i].adapters;
  }
}

void UnetBatch::Join(const std::vector<std::shared_ptr<ProjectedText>>& known, ProjectedText& batch) const {
  const auto any = std::find_if(known.begin(), known.end(), [](const auto& text) { return text != nullptr; });
  batch.text.resize((*any)->text.size());
  for (size_t i = 0; i < batch.text.size(); ++i) {
    std::vector<at::Tensor> parts;
    int64_t made = 0;
    for (size_t row = 0; row < rows_.size(); ++row) {
      parts.push_back(known[row] != nullptr ? known[row]->text[i].narrow(0, rows_[row].row->place, 1)
                                            : batch.text[i].narrow(0, made++, 1));
    }
    batch.text[i] = at::cat(parts);
    for (const std::shared_ptr<ProjectedText>& text : known) {
      if (text != nullptr && text.use_count() == std::count(known.begin(), known.end(), text)) {
        text->text[i].reset();  // no row of another batch has it
      }
    }
  }
}

at::Tensor UnetBatch::Shifts(const Unet& unet) {
  std::vector<float> timesteps;
  std::vector<at::Tensor> pooled, size_ids;
  std::vector<int64_t> counts;  // evaluations of each row that misses its shifts
  SideRowsWriter side;
  for (const BatchRow& row : rows_) {
    if (!KnowsShift(row)) {
      const std::vector<float> ahead = row.sampler->timesteps(kEvaluationsAhead);
      counts.push_back(static_cast<int64_t>(ahead.size()));
      timesteps.insert(timesteps.end(), ahead.begin(), ahead.end());
      pooled.push_back(row.row->text.pooled.expand({counts.back(), -1}));
      size_ids.push_back(row.row->size_ids.expand({counts.back(), -1}));
      side.Add(row.side, counts.back());
    }
  }
  at::Tensor made;
  if (!counts.empty()) {
    made = unet.ProjectTime(at::tensor(timesteps).to(size_ids.front().device()), at::cat(pooled), at::cat(size_ids),
                            side.side());
  }
  std::vector<at::Tensor> shifts;
  int64_t next_made = 0;
  auto count = counts.begin();
  for (const BatchRow& row : rows_) {
    NetworkRow& known = *row.row;
    if (!KnowsShift(row)) {
      known.shifts = made.narrow(0, next_made, *count);
      known.first_evaluation = row.evaluation;
      known.shift_adapters = row.adapters;
      next_made += *count++;
    }
    shifts.push_back(known.shifts.narrow(0, row.evaluation - known.first_evaluation, 1));
  }
  return shifts.size() == 1 ? shifts.front() : at::cat(shifts);
}

}  // namespace hotlora
