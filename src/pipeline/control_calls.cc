#include "src/pipeline/control_calls.h"

#include <algorithm>
#include <utility>

#include <ATen/ATen.h>

namespace hotlora {
namespace {

// One call of a net.
struct NetCall {
  const PlacedControlNet* net;
  std::vector<const ControlledRowRange*> ranges;
  std::vector<ControlledImage> images;  // one for each range
};

// Puts a picture of `range` into the call of its net that has room for it, or into a new one. Ranges come one after the
// other, so only a call's last may be `range` itself.
void Place(const EmbeddedControl& control, const ControlledRowRange& range, std::vector<NetCall>& calls) {
  const bool is_union = control.net->network.config().types.has_value();
  for (NetCall& call : calls) {
    if (call.net != control.net.get()) {
      continue;
    }
    if (call.ranges.back() != &range) {
      call.ranges.push_back(&range);
      call.images.push_back({range.rows, {control.hint}});
      return;
    }
    if (is_union) {
      call.images.back().hints.push_back(control.hint);
      return;
    }
  }
  calls.push_back({control.net.get(), {&range}, {{range.rows, {control.hint}}}});
}

at::Tensor RowsOf(const at::Tensor& batch, const NetCall& call) {
  std::vector<at::Tensor> parts;
  for (const ControlledRowRange* const range : call.ranges) {
    parts.push_back(batch.narrow(0, range->first, range->rows));
  }
  return parts.size() == 1 ? parts.front() : at::cat(parts);
}

UnetInput InputOf(const UnetInput& batch, const NetCall& call) {
  UnetInput input;
  input.sample = RowsOf(batch.sample, call);
  input.timesteps = RowsOf(batch.timesteps, call);
  input.encoder_hidden_states = RowsOf(batch.encoder_hidden_states, call);
  input.pooled = RowsOf(batch.pooled, call);
  input.time_ids = RowsOf(batch.time_ids, call);
  return input;
}

ControlResiduals Narrow(const ControlResiduals& residuals, int64_t first, int64_t rows) {
  ControlResiduals part;
  for (const at::Tensor& down : residuals.down) {
    part.down.push_back(down.narrow(0, first, rows));
  }
  part.mid = residuals.mid.narrow(0, first, rows);
  return part;
}

// The residuals of a call at their rows of the batch: those of neighbours stay together.
void Spread(const ControlResiduals& residuals, const NetCall& call, std::vector<ControlledRows>& spread) {
  int64_t first = 0;
  for (size_t begin = 0; begin < call.ranges.size();) {
    size_t end = begin;
    int64_t rows = 0;
    while (end < call.ranges.size() && call.ranges[end]->first == call.ranges[begin]->first + rows) {
      rows += call.ranges[end++]->rows;
    }
    spread.push_back({call.ranges[begin]->first, Narrow(residuals, first, rows)});
    first += rows;
    begin = end;
  }
}

}  // namespace

std::vector<const EmbeddedControl*> SdxlControls::InForce(uint32_t evaluation, uint32_t evaluations) const {
  std::vector<const EmbeddedControl*> in_force;
  for (const EmbeddedControl& control : controls) {
    if (control.range.Holds(evaluation, evaluations)) {
      in_force.push_back(&control);
    }
  }
  return in_force;
}

EmbeddedControl EmbedControl(const ControlInput& input) {
  const RgbImage& image = input.picture;
  const at::Tensor bytes =
      at::from_blob(const_cast<uint8_t*>(image.pixels.data()), {1, image.height, image.width, 3}, at::kByte);
  const at::Tensor picture = bytes.to(input.net->block.device()).permute({0, 3, 1, 2}).to(at::kFloat).div_(255);
  const ControlNet& net = input.net->network;
  return {input.net, {net.EmbedHint(picture.to(input.net->layout.dtype)), input.scale, input.type}, input.range};
}

std::vector<ControlledRows> RunControlNets(const UnetInput& batch, const std::vector<ControlledRowRange>& ranges) {
  std::vector<NetCall> calls;
  for (const ControlledRowRange& range : ranges) {
    for (const EmbeddedControl* const control : range.in_force) {
      Place(*control, range, calls);
    }
  }
  std::vector<ControlledRows> residuals;
  for (const NetCall& call : calls) {
    Spread(call.net->network.forward(InputOf(batch, call), call.images), call, residuals);
  }
  return residuals;
}

}  // namespace hotlora
