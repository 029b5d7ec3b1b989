#ifndef HOTLORA_TESTS_PIPELINE_RANDOM_ADAPTER_H_
#define HOTLORA_TESTS_PIPELINE_RANDOM_ADAPTER_H_

// Adapters of every format at random: each as the file a trainer would write, and as what it does to weights in
// float64, by the formulas alone.

#include <cstddef>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <ATen/ATen.h>

#include "src/weights/module_table.h"
#include "tests/adapter_format/safetensors_writer.h"

namespace hotlora {

struct RandomAdapter {
  // W' from W and the request's weight. With DoRA `interpolated` says which of the two conventions holds.
  using Map = std::function<at::Tensor(const at::Tensor& weight, double factor, bool interpolated)>;

  SafetensorsWriter file;
  std::map<size_t, Map> maps;  // by entry of the module table
  bool of_unet = false, of_text = false;
  std::string formats;  // for messages
};

// Changes `count` of the `modules` (entries of weights), each in a format of its own.
RandomAdapter MakeRandomAdapter(const ModuleTable& table, const std::vector<size_t>& modules, size_t count,
                                std::mt19937_64& random);

}  // namespace hotlora

#endif  // HOTLORA_TESTS_PIPELINE_RANDOM_ADAPTER_H_
