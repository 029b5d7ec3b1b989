#ifndef HOTLORA_SRC_SDXL_SDXL_MODEL_H_
#define HOTLORA_SRC_SDXL_SDXL_MODEL_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include <nlohmann/json.hpp>

#include "src/sdxl/checkpoint_parameters.h"
#include "src/sdxl/clip_tokenizer.h"
#include "src/sdxl/sdxl_config.h"
#include "src/sdxl/text_encoder.h"
#include "src/sdxl/unet.h"
#include "src/sdxl/vae_decoder.h"
#include "src/sdxl/vae_encoder.h"
#include "src/tensor/device.h"
#include "src/weights/checkpoint.h"
#include "src/weights/model_files.h"
#include "src/weights/module_table.h"

namespace hotlora {

// Bytes on the device, from Load on.
struct WeightBytes {
  uint64_t text_encoders = 0, unet = 0, vae = 0;  // what the networks compute with
  uint64_t clean = 0;                             // clean copies of adaptable weights
};

// One SDXL checkpoint, resident: tokenizers, text encoders, UNet and VAE on one device, and
// beside the adaptable weights their clean copies. All its memory is allocated by Load and stays
// until it is destroyed.
//
// Threads  the networks are const; tokenizers and VAE may be used at any time. While a
//          thread rewrites live weights (the step thread, through nn/weight_merge), no other
//          thread may run the text encoders or the UNet.
class SdxlModel {
 public:
  // Reads the checkpoint, a folder or a single file; text encoders and UNet compute in place.dtype, the VAE in
  // place.vae_dtype. FailedPrecondition lists at once every config value that is not supported,
  // or every tensor of all components that is missing, surplus or wrongly shaped; also if a file changed since the load
  // began (reason MODEL_CHANGED). Other errors are
  // ReadCheckpoint's, the tokenizers' and GuardTorch's.
  static absl::StatusOr<std::unique_ptr<SdxlModel>> Load(const CheckpointSource& source, ComputePlace place);

  SdxlModel(const SdxlModel&) = delete;
  SdxlModel& operator=(const SdxlModel&) = delete;

  const SdxlConfig& config() const { return config_; }
  const ComputePlace& place() const { return place_; }

  // As in scheduler/scheduler_config.json, with what a single file says of its prediction.
  const nlohmann::json& scheduler_config() const { return scheduler_config_; }

  // What Load read, as it was then.
  const ModelFiles& files() const { return files_; }

  // The hash of the weight files: see Checkpoint::sha256.
  const std::string& sha256() const { return sha256_; }

  const ClipTokenizer& tokenizer() const { return *tokenizer_; }
  const ClipTokenizer& tokenizer_2() const { return *tokenizer_2_; }
  const TextEncoder& text_encoder() const { return *text_encoder_; }
  const TextEncoder& text_encoder_2() const { return *text_encoder_2_; }
  const Unet& unet() const { return *unet_; }
  const VaeEncoder& vae_encoder() const { return *vae_encoder_; }
  const VaeDecoder& vae_decoder() const { return *vae_decoder_; }

  // What adapters may change: weights and biases of every linear layer and norm of both text encoders, of every
  // linear layer, convolution and norm of the UNet; by component (text_encoder, text_encoder_2, unet), inside it in
  // the order in which the network is built.
  const ModuleTable& modules() const { return adaptable_.table; }

  // The tensors of modules(), index for index. Tensors are handles: their values may be written
  // through a const model.
  absl::Span<const AdaptableWeight> adaptable_weights() const { return adaptable_.weights; }

  const WeightBytes& weight_bytes() const { return weight_bytes_; }

 private:
  SdxlModel(ComputePlace place, SdxlConfig config) : place_(place), config_(std::move(config)) {}
  absl::Status BuildNetworks(Checkpoint& checkpoint);

  const ComputePlace place_;
  const SdxlConfig config_;
  nlohmann::json scheduler_config_;
  std::string sha256_;
  ModelFiles files_;
  AdaptableModules adaptable_;
  WeightBytes weight_bytes_;
  std::unique_ptr<const ClipTokenizer> tokenizer_, tokenizer_2_;
  std::unique_ptr<const TextEncoder> text_encoder_, text_encoder_2_;
  std::unique_ptr<const Unet> unet_;
  std::unique_ptr<const VaeEncoder> vae_encoder_;
  std::unique_ptr<const VaeDecoder> vae_decoder_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_SDXL_MODEL_H_
