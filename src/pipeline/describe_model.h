#ifndef HOTLORA_SRC_PIPELINE_DESCRIBE_MODEL_H_
#define HOTLORA_SRC_PIPELINE_DESCRIBE_MODEL_H_

#include <string>
#include <vector>

#include "src/request/model_info.h"
#include "src/sdxl/sdxl_model.h"

namespace hotlora {

// What the service tells of a model. Base adapters still change its sha256.
ModelInfo DescribeModel(const SdxlModel& model, std::string name);

// The memory that its weights take.
std::vector<MemoryArea> WeightAreas(const SdxlModel& model);

}  // namespace hotlora

#endif  // HOTLORA_SRC_PIPELINE_DESCRIBE_MODEL_H_
