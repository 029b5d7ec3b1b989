#include "src/pipeline/image_prompt_calls.h"

#include <algorithm>

#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/stack.h>

#include "src/image/resize.h"
#include "src/request/block_weights.h"
#include "src/sdxl/placed_image_prompt.h"

namespace hotlora {
namespace {

at::Tensor PixelsOf(const ImagePromptInput& input) {
  const ImageEncoder& encoder = input.encoder->network;
  const int64_t size = encoder.config().image_size;
  std::vector<RgbImage> squares;
  std::vector<at::Tensor> views;
  for (const RgbImage& picture : input.pictures) {
    squares.push_back(CoverSquare(picture, static_cast<uint32_t>(encoder.config().edge), static_cast<uint32_t>(size)));
    views.push_back(at::from_blob(squares.back().pixels.data(), {size, size, 3}, at::kByte));
  }
  return encoder.Normalize(at::stack(views).to(input.encoder->block.device()));
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

ImagePromptBytes BytesOf(const ImagePromptInput& input) {
  const ImageEncoderConfig& encoder = input.encoder->network.config();
  const ImagePromptConfig& config = input.net->network.config();
  const auto pictures = static_cast<int64_t>(input.pictures.size());
  const auto element = static_cast<int64_t>(c10::elementSize(input.net->layout.dtype));
  int64_t width = 0;  // of the keys and values of a token
  for (const CrossAttentionPlace& place : config.places) {
    width += 2 * place.width;
  }
  // Bytes, then floats until they are normalised.
  const int64_t pixels = 3 * encoder.image_size * encoder.image_size * (1 + 4 * int64_t{sizeof(float)});
  const int64_t layers = std::max(EncoderElements(encoder), ResamplerElements(config, encoder));
  return {2 * pictures * config.tokens * width * element, pictures * (pixels + layers * element)};
}

// A cross attention gets the weight of the longest prefix that fits it, else the scale of all.
EncodedImagePrompt EncodeImagePrompt(const ImagePromptInput& input) {
  const ImageEncoder& encoder = input.encoder->network;
  const ImagePrompt& net = input.net->network;
  EncodedImagePrompt encoded;
  for (const CrossAttentionPlace& place : net.config().places) {
    encoded.scales.push_back(WeightOfModule(input.blocks, input.scale, place.path));
  }
  const at::Tensor seen = net.EncodePictures(encoder, PixelsOf(input));
  const at::Tensor none = net.EncodeNone(encoder, static_cast<int64_t>(input.pictures.size()));
  encoded.keys_values = net.ProjectTokens(at::cat({none, seen}));
  for (const at::Tensor& both : encoded.keys_values) {
    encoded.positive.push_back(both.narrow(0, 1, 1));
  }
  return encoded;
}

}  // namespace

void SdxlImagePrompts::AddTo(int64_t first, bool guided, std::vector<ImageBranch>& image) const {
  for (const EncodedImagePrompt& prompt : prompts) {
    AddImagePrompt(first, guided ? prompt.keys_values : prompt.positive, prompt.scales, image);
  }
}

std::shared_ptr<const SdxlImagePrompts> EncodeEachImagePrompt(absl::Span<const ImagePromptInput> inputs) {
  auto encoded = std::make_shared<SdxlImagePrompts>();
  for (const ImagePromptInput& input : inputs) {
    encoded->prompts.push_back(EncodeImagePrompt(input));
  }
  return encoded;
}

ImagePromptBytes BytesOfImagePrompts(absl::Span<const ImagePromptInput> inputs) {
  ImagePromptBytes sum;
  for (const ImagePromptInput& input : inputs) {
    const ImagePromptBytes bytes = BytesOf(input);
    sum.kept += bytes.kept;
    sum.encoding = std::max(sum.encoding, bytes.encoding);
  }
  return sum;
}

}  // namespace hotlora
