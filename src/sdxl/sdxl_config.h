#ifndef HOTLORA_SRC_SDXL_SDXL_CONFIG_H_
#define HOTLORA_SRC_SDXL_SDXL_CONFIG_H_

// Every number that shapes the networks, read from the checkpoint's JSON configs. The networks have
// no numbers of stock SDXL in them: a checkpoint of another width or depth is a matter of its
// configs.

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

#include "src/weights/checkpoint_configs.h"

namespace hotlora {

// What CLIP's text and image encoders have in common: a stack of transformer layers.
struct ClipConfig {
  enum class Activation { kGelu, kQuickGelu };  // exact GELU; x * sigmoid(1.702 x)

  int64_t width = 0;        // hidden_size
  int64_t inner_width = 0;  // intermediate_size
  int64_t layers = 0;
  int64_t heads = 0;
  double layer_norm_epsilon = 0.0;
  Activation activation = Activation::kGelu;
  bool causal = true;  // token i sees tokens 0 to i
};

// One of the two CLIP text encoders.
struct TextEncoderConfig : ClipConfig {
  int64_t vocab_size = 0;
  int64_t positions = 0;     // max_position_embeddings: the most tokens at once
  int64_t projection = 0;    // width of the pooled state; 0: this encoder has none
  int64_t eos_token_id = 0;  // 2: the largest id marks the end (transformers' rule for old configs)
};

// One resolution of the UNet, from the outermost inwards.
struct UnetLevel {
  int64_t channels = 0;
  int64_t transformer_depth = 0;  // blocks per attention; used if this level has attention
  int64_t heads = 0;
  bool down_attention = false;
  bool up_attention = false;
};

struct UnetConfig {
  int64_t sample_size = 0;  // native latent height and width
  int64_t in_channels = 0;
  int64_t out_channels = 0;
  int64_t layers_per_block = 0;  // resnets of a down level; an up level has one more
  int64_t cross_attention_width = 0;
  int64_t groups = 0;
  double norm_epsilon = 0.0;
  bool cosine_first = true;      // flip_sin_to_cos
  double frequency_shift = 0.0;  // freq_shift
  int64_t size_id_width = 0;     // addition_time_embed_dim: sinusoid of each of the six size ids
  // projection_class_embeddings_input_dim: the pooled width + 6 * size_id_width.
  int64_t addition_in = 0;
  std::vector<UnetLevel> levels;
  bool mid_attention = true;  // the middle block: two resnets with attention between; else (ControlNets) one resnet

  // The width of the timestep embedding that every resnet takes.
  int64_t time_width() const { return 4 * levels.front().channels; }
};

struct VaeConfig {
  int64_t latent_channels = 0;
  int64_t out_channels = 0;
  int64_t layers_per_block = 0;  // of the encoder; the decoder has one more
  int64_t groups = 0;
  double scaling_factor = 0.0;
  std::vector<int64_t> channels;     // outermost first
  std::vector<double> latents_mean;  // empty, or one for each latent channel
  std::vector<double> latents_std;
  bool quant_conv = true, post_quant_conv = true;

  // Pixels per latent pixel on each side.
  int64_t factor() const { return int64_t{1} << (channels.size() - 1); }
};

struct SdxlConfig {
  TextEncoderConfig text_encoder, text_encoder_2;
  UnetConfig unet;
  VaeConfig vae;
  bool force_zeros_for_empty_prompt = true;  // model_index.json; true is diffusers' default

  // Default width and height of an image, in pixels.
  int64_t native_size() const { return unet.sample_size * vae.factor(); }
};

class ConfigReader;  // config_reader.h

// The part of a config that all CLIP encoders have.
ClipConfig ParseClip(ConfigReader& reader);

// The part of a UNet's config that ControlNets have too: all but sample_size, out_channels, mid_block_type and
// up_block_types.
UnetConfig ParseUnetEncoder(ConfigReader& reader);

// Reads the five configs. FailedPrecondition (reason MODEL_UNSUPPORTED) lists every
// key that is missing, of the wrong type or out of range, and every value that asks for something
// these networks do not do (another block type, activation, attention or embedding type), each with
// the file, the key and the value. Keys at their default, null or unknown to us with no bearing on
// the networks are passed over.
absl::StatusOr<SdxlConfig> ParseSdxlConfig(const CheckpointConfigs& configs);

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_SDXL_CONFIG_H_
