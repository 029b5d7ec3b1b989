#ifndef HOTLORA_SRC_ADAPTER_FORMAT_PARSED_DELTA_H_
#define HOTLORA_SRC_ADAPTER_FORMAT_PARSED_DELTA_H_

// What an adapter changes in one parameter: which tensors of the file, in which formula. No LibTorch here.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "src/adapter_format/peft_scaling.h"

namespace hotlora {

// The forms of nn/lora_delta.h.
enum class DeltaForm { kLowRank, kHadamard, kKronecker, kFull, kGeneralized, kRotation };

// One matrix of a change, as indices of SafetensorsFile::tensors: whole, or down and up, perhaps with mid.
struct ParsedFactor {
  std::optional<size_t> whole;
  std::optional<size_t> down, up, mid;
  bool up_transposed = false;  // LyCORIS' Tucker forms store [rank, out]
  int64_t rank = 0;            // 0 if it is whole

  // All that are there.
  std::vector<size_t> Tensors() const;
};

// One parameter's change, as indices of SafetensorsFile::tensors.
struct ParsedDelta {
  size_t module = 0;  // index into ModuleTable::modules
  DeltaForm form = DeltaForm::kLowRank;
  ParsedFactor first, second;  // second for LoHa, LoKr, and GLoRA's mixed inputs; whole blocks of OFT are first
  std::optional<size_t> rescale;
  double constraint = 0.0;          // OFT: the most that the norm of all its skew blocks may be; 0: anything
  std::optional<PeftOft> peft_oft;  // `first` is oft_R then, the upper triangles of blocks of the inputs
  std::optional<size_t> magnitude;
  bool magnitude_is_peft = false;    // whose spelling always means outputs
  bool magnitude_of_outputs = true;  // else of inputs
  int64_t rank = 0;                  // 0 if nothing is a product
  double scale = 1.0;                // alpha / rank, or what replaces it

  // All but alpha and scale.
  std::vector<size_t> Tensors() const;
};

// The side of a square block whose upper triangle, without the diagonal, has `numbers` numbers; 0 if there is none.
int64_t OftBlockSize(int64_t numbers);

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTER_FORMAT_PARSED_DELTA_H_
