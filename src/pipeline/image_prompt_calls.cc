#include "src/pipeline/image_prompt_calls.h"

#include <algorithm>
#include <optional>

#include "absl/algorithm/container.h"
#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>

#include "src/request/block_weights.h"
#include "src/sdxl/placed_image_prompt.h"

namespace hotlora {
namespace {

bool IsPlus(const ImagePromptInput& input) {
  return input.net->network.config().kind == ImagePromptConfig::Kind::kPlus;
}

// Whether the negative row needs what the encoder makes of zeros.
bool NeedsZeros(const ImagePromptInputs& inputs) { return inputs.negative && absl::c_any_of(inputs.prompts, IsPlus); }

// The pictures of all prompts, one after the other.
at::Tensor PixelsOf(const ImagePromptInputs& inputs) {
  const ImageEncoder& encoder = inputs.encoder->network;
  const int64_t size = encoder.config().image_size;
  std::vector<at::Tensor> pictures;
  for (const ImagePromptInput& input : inputs.prompts) {
    for (const RgbImage& picture : input.pictures) {
      TORCH_CHECK(picture.width == size && picture.height == size, "the image encoder sees squares of ", size, ", not ",
                  picture.width, "x", picture.height);
      // It is only read.
      pictures.push_back(at::from_blob(const_cast<uint8_t*>(picture.pixels.data()), {size, size, 3}, at::kByte));
    }
  }
  at::Tensor pixels = encoder.Normalize(at::stack(pictures).to(inputs.encoder->block.device()));
  return NeedsZeros(inputs) ? at::cat({pixels, at::zeros_like(pixels.narrow(0, 0, 1))}) : pixels;
}

// Elements that the layers of an encoder hold at once: of a picture's tokens the widths that a layer's parts have.
int64_t EncoderElements(const ImageEncoderConfig& encoder) {
  return encoder.tokens() * (7 * encoder.width + 3 * encoder.inner_width);
}

// The same of the layers of a resampler, beside what it sees of the encoder; 0 if there is none.
int64_t ResamplerElements(const ImagePromptConfig& config, const ImageEncoderConfig& encoder) {
  if (config.kind != ImagePromptConfig::Kind::kPlus) {
    return 0;
  }
  return encoder.tokens() * encoder.width +
         (encoder.tokens() + config.tokens) * (3 * config.width + 2 * config.query_width) +
         config.tokens * (4 * config.width + 2 * config.inner_width);
}

// Bytes of the keys and values that the cross attentions see of one row.
int64_t RowBytes(const ImagePromptInput& input) {
  int64_t width = 0;  // of those of a token
  for (const CrossAttentionPlace& place : input.net->network.config().places) {
    width += 2 * place.width;
  }
  return static_cast<int64_t>(input.pictures.size()) * input.net->network.config().tokens * width *
         static_cast<int64_t>(c10::elementSize(input.net->layout.dtype));
}

// A cross attention gets the weight of the longest prefix that fits it, else the scale of all.
EncodedImagePrompt EncodeImagePrompt(const ImagePromptInput& input, const EncodedPictures& seen,
                                     const std::optional<EncodedPictures>& none) {
  const ImagePrompt& net = input.net->network;
  EncodedImagePrompt encoded;
  for (const CrossAttentionPlace& place : net.config().places) {
    encoded.scales.push_back(WeightOfModule(input.blocks, input.scale, place.path));
  }
  at::Tensor tokens = net.TokensOf(seen);
  if (none.has_value()) {
    tokens = at::cat({net.TokensOfNone(*none, static_cast<int64_t>(input.pictures.size())), tokens});
  }
  encoded.keys_values = net.ProjectTokens(tokens);
  for (const at::Tensor& both : encoded.keys_values) {
    encoded.positive.push_back(both.narrow(0, both.size(0) - 1, 1));
  }
  return encoded;
}

}  // namespace

void SdxlImagePrompts::AddTo(int64_t first, bool guided, std::vector<ImageBranch>& image) const {
  for (const EncodedImagePrompt& prompt : prompts) {
    AddImagePrompt(first, guided ? prompt.keys_values : prompt.positive, prompt.scales, image);
  }
}

std::shared_ptr<const SdxlImagePrompts> EncodeEachImagePrompt(const ImagePromptInputs& inputs) {
  const EncodedPictures all = inputs.encoder->network.Encode(PixelsOf(inputs));
  std::optional<EncodedPictures> none;
  if (inputs.negative) {
    none = all.Some(all.hidden.size(0) - 1, 1);  // of zeros, if an input needs them
  }
  auto encoded = std::make_shared<SdxlImagePrompts>();
  int64_t first = 0;
  for (const ImagePromptInput& input : inputs.prompts) {
    const auto count = static_cast<int64_t>(input.pictures.size());
    TORCH_CHECK(count > 0, "an image prompt has no picture");
    encoded->prompts.push_back(EncodeImagePrompt(input, all.Some(first, count), none));
    first += count;
  }
  return encoded;
}

ImagePromptBytes BytesOfImagePrompts(const ImagePromptInputs& inputs) {
  const ImageEncoderConfig& encoder = inputs.encoder->network.config();
  ImagePromptBytes bytes;
  int64_t pictures = NeedsZeros(inputs) ? 1 : 0, layers = EncoderElements(encoder);
  for (const ImagePromptInput& input : inputs.prompts) {
    bytes.kept += (inputs.negative ? 2 : 1) * RowBytes(input);
    pictures += static_cast<int64_t>(input.pictures.size());
    layers = std::max(layers, ResamplerElements(input.net->network.config(), encoder));
  }
  // Bytes, then floats until they are normalised.
  const int64_t pixels = 3 * encoder.image_size * encoder.image_size * (1 + 4 * int64_t{sizeof(float)});
  const int64_t seen = encoder.tokens() * encoder.width + encoder.projection;
  bytes.encoding =
      pictures * (pixels + (layers + seen) * static_cast<int64_t>(c10::elementSize(inputs.encoder->layout.dtype)));
  return bytes;
}

}  // namespace hotlora
