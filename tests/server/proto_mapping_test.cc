#include "server/proto_mapping.h"

#include <gtest/gtest.h>

namespace hotlora {
namespace {

TEST(ProtoMappingTest, UnsetDiffersFromZero) {
  const ImageRequest unset = FromProto(v1::GenerateImagesRequest()).request;
  EXPECT_FALSE(unset.negative_prompt.has_value());
  EXPECT_FALSE(unset.width.has_value());
  EXPECT_FALSE(unset.guidance_scale.has_value());
  EXPECT_FALSE(unset.seed.has_value());
  EXPECT_FALSE(unset.sampler.has_value());
  EXPECT_FALSE(unset.size_conditioning.has_value());
  EXPECT_FALSE(unset.priority.has_value());

  v1::GenerateImagesRequest message;
  message.set_negative_prompt("");
  message.set_width(0);
  message.set_guidance_scale(0);
  message.set_seed(0);
  message.set_priority(0);
  message.mutable_size_conditioning()->set_crop_left(0);
  const ImageRequest zero = FromProto(message).request;
  EXPECT_EQ(zero.negative_prompt, "");
  EXPECT_EQ(zero.width, 0u);
  EXPECT_EQ(zero.guidance_scale, 0.0);
  EXPECT_EQ(zero.seed, 0u);
  EXPECT_EQ(zero.priority, 0);
  ASSERT_TRUE(zero.size_conditioning.has_value());
  EXPECT_EQ(zero.size_conditioning->crop_left, 0u);
  EXPECT_FALSE(zero.size_conditioning->crop_top.has_value());
}

TEST(ProtoMappingTest, CarriesEveryField) {
  v1::GenerateImagesRequest message;
  message.set_request_id("id");
  message.set_prompt("p");
  message.set_negative_prompt("n");
  message.set_prompt_2("p2");
  message.set_negative_prompt_2("n2");
  message.set_width(640);
  message.set_height(512);
  message.set_steps(12);
  message.set_guidance_scale(6.5);
  message.set_guidance_rescale(0.7);
  message.set_guidance_start(0.25);
  message.set_eta(0.75);
  message.set_prompt_syntax(v1::PROMPT_SYNTAX_WEIGHTED);
  message.set_long_prompts(true);
  message.set_guidance_end(0.75);
  message.set_lora_tags(true);
  message.add_embeddings()->set_name("e");
  message.add_embeddings()->set_token("");
  message.set_sampler(v1::SAMPLER_UNIPC);
  message.set_schedule(v1::NOISE_SCHEDULE_TRAILING);
  message.set_seed(UINT64_MAX);
  message.set_num_images(3);
  message.set_clip_skip(2);
  auto* adapter = message.add_adapters();
  adapter->set_name("a");
  adapter->set_weight(-0.5);
  adapter->set_text_encoder_weight(0);
  adapter = message.add_adapters();
  adapter->set_name("b");
  adapter->set_start(0.25);
  adapter->set_end(0.5);
  adapter->add_blocks()->set_prefix("up_blocks");
  adapter->mutable_blocks(0)->set_weight(-2);
  adapter->add_blocks()->set_prefix("mid_block");
  message.mutable_size_conditioning()->set_original_width(1);
  message.mutable_size_conditioning()->set_original_height(2);
  message.mutable_size_conditioning()->set_crop_left(3);
  message.mutable_size_conditioning()->set_crop_top(4);
  message.mutable_size_conditioning()->set_target_width(5);
  message.mutable_size_conditioning()->set_target_height(6);
  message.mutable_negative_size_conditioning()->set_target_height(7);
  message.set_init_image("i");
  message.set_mask_image("m");
  message.set_strength(0.4);
  message.mutable_hires()->set_scale(1.5);
  message.mutable_hires()->set_strength(0.6);
  message.mutable_hires()->set_steps(9);
  message.set_format(v1::IMAGE_FORMAT_WEBP);
  message.set_quality(80);
  message.set_preview_every(4);
  message.set_priority(-3);
  const MappedImageRequest mapped = FromProto(message);
  const ImageRequest& request = mapped.request;
  EXPECT_TRUE(mapped.violations.empty());
  EXPECT_EQ(request.request_id, "id");
  EXPECT_EQ(request.lora_tags, true);
  ASSERT_EQ(request.embeddings.size(), 2u);
  EXPECT_EQ(request.embeddings[0].name, "e");
  EXPECT_FALSE(request.embeddings[0].token.has_value());
  EXPECT_EQ(request.embeddings[1].token, "");
  EXPECT_EQ(request.prompt, "p");
  EXPECT_EQ(request.negative_prompt, "n");
  EXPECT_EQ(request.prompt_2, "p2");
  EXPECT_EQ(request.negative_prompt_2, "n2");
  EXPECT_EQ(request.width, 640u);
  EXPECT_EQ(request.height, 512u);
  EXPECT_EQ(request.steps, 12u);
  EXPECT_EQ(request.guidance_scale, 6.5);
  EXPECT_EQ(request.guidance_rescale, 0.7);
  EXPECT_EQ(request.guidance_start, 0.25);
  EXPECT_EQ(request.eta, 0.75);
  EXPECT_EQ(request.prompt_syntax, PromptSyntax::kWeighted);
  EXPECT_EQ(request.long_prompts, true);
  EXPECT_EQ(request.guidance_end, 0.75);
  EXPECT_EQ(request.sampler, Sampler::kUniPc);
  EXPECT_EQ(request.schedule, NoiseScheduleKind::kTrailing);
  EXPECT_EQ(request.seed, UINT64_MAX);
  EXPECT_EQ(request.num_images, 3u);
  EXPECT_EQ(request.clip_skip, 2u);
  ASSERT_EQ(request.adapters.size(), 2u);
  EXPECT_EQ(request.adapters[0].name, "a");
  EXPECT_EQ(request.adapters[0].weight, -0.5);
  EXPECT_EQ(request.adapters[0].text_encoder_weight, 0.0);
  EXPECT_FALSE(request.adapters[0].start.has_value());
  EXPECT_FALSE(request.adapters[0].end.has_value());
  EXPECT_TRUE(request.adapters[0].blocks.empty());
  EXPECT_FALSE(request.adapters[1].weight.has_value());
  EXPECT_EQ(request.adapters[1].start, 0.25);
  EXPECT_EQ(request.adapters[1].end, 0.5);
  ASSERT_EQ(request.adapters[1].blocks.size(), 2u);
  EXPECT_EQ(request.adapters[1].blocks[0].prefix, "up_blocks");
  EXPECT_EQ(request.adapters[1].blocks[0].weight, -2.0);
  EXPECT_EQ(request.adapters[1].blocks[1].weight, 0.0);
  EXPECT_EQ(request.size_conditioning->original_width, 1u);
  EXPECT_EQ(request.size_conditioning->original_height, 2u);
  EXPECT_EQ(request.size_conditioning->crop_left, 3u);
  EXPECT_EQ(request.size_conditioning->crop_top, 4u);
  EXPECT_EQ(request.size_conditioning->target_width, 5u);
  EXPECT_EQ(request.size_conditioning->target_height, 6u);
  EXPECT_EQ(request.negative_size_conditioning->target_height, 7u);
  EXPECT_EQ(request.init_image, "i");
  EXPECT_EQ(request.mask_image, "m");
  EXPECT_EQ(request.strength, 0.4);
  EXPECT_EQ(request.hires->scale, 1.5);
  EXPECT_EQ(request.hires->strength, 0.6);
  EXPECT_EQ(request.hires->steps, 9u);
  EXPECT_EQ(request.format, ImageFormat::kWebp);
  EXPECT_EQ(request.quality, 80u);
  EXPECT_EQ(request.preview_every, 4u);
  EXPECT_EQ(request.priority, -3);
}

TEST(ProtoMappingTest, SummaryTellsTheEmbeddings) {
  ImageSummary summary;
  summary.embeddings.push_back({"styles/ink", "abc", "<s0>", 3});
  const v1::Summary message = ToProto(summary);
  ASSERT_EQ(message.embeddings_size(), 1);
  EXPECT_EQ(message.embeddings(0).name(), "styles/ink");
  EXPECT_EQ(message.embeddings(0).content_sha256(), "abc");
  EXPECT_EQ(message.embeddings(0).token(), "<s0>");
  EXPECT_EQ(message.embeddings(0).vectors(), 3u);
}

TEST(ProtoMappingTest, ControlsCarryEveryField) {
  v1::GenerateImagesRequest message;
  message.add_controls()->set_name("plain");
  v1::ControlRef* const full = message.add_controls();
  full->set_name("union");
  full->set_image("bytes");
  full->set_scale(0);
  full->set_start(0.25);
  full->set_end(0.5);
  full->set_type(3);
  const std::vector<ControlRef> controls = FromProto(message).request.controls;
  ASSERT_EQ(controls.size(), 2u);
  EXPECT_EQ(controls[0].name, "plain");
  EXPECT_FALSE(controls[0].scale.has_value() || controls[0].start.has_value() || controls[0].end.has_value() ||
               controls[0].type.has_value());
  EXPECT_EQ(controls[1].image, "bytes");
  EXPECT_EQ(controls[1].scale, 0.0);
  EXPECT_EQ(controls[1].start, 0.25);
  EXPECT_EQ(controls[1].end, 0.5);
  EXPECT_EQ(controls[1].type, 3u);
  for (int i = 0; i < 3; ++i) {
    message.add_controls();
  }
  ASSERT_EQ(FromProto(message).violations.size(), 1u);
  EXPECT_EQ(FromProto(message).violations[0].field, "controls");
}

TEST(ProtoMappingTest, ImagePromptsCarryEveryField) {
  v1::GenerateImagesRequest message;
  message.add_image_prompts()->set_name("plain");
  v1::ImagePromptRef* const full = message.add_image_prompts();
  full->set_name("style");
  full->add_images("first");
  full->add_images("second");
  full->set_scale(0);
  full->add_blocks()->set_prefix("mid_block");
  full->mutable_blocks(0)->set_weight(0.5);
  const std::vector<ImagePromptRef> prompts = FromProto(message).request.image_prompts;
  ASSERT_EQ(prompts.size(), 2u);
  EXPECT_EQ(prompts[0].name, "plain");
  EXPECT_FALSE(prompts[0].scale.has_value());
  EXPECT_TRUE(prompts[0].images.empty() && prompts[0].blocks.empty());
  EXPECT_EQ(prompts[1].images, (std::vector<std::string>{"first", "second"}));
  EXPECT_EQ(prompts[1].scale, 0.0);
  ASSERT_EQ(prompts[1].blocks.size(), 1u);
  EXPECT_EQ(prompts[1].blocks[0].prefix, "mid_block");
  EXPECT_EQ(prompts[1].blocks[0].weight, 0.5);
  for (int i = 0; i < 3; ++i) {
    full->add_images("more");
  }
  ASSERT_EQ(FromProto(message).violations.size(), 1u);
  EXPECT_EQ(FromProto(message).violations[0].field, "image_prompts[1].images");
  message.add_image_prompts();
  ASSERT_EQ(FromProto(message).violations.size(), 1u);
  EXPECT_EQ(FromProto(message).violations[0].field, "image_prompts");
}

TEST(ProtoMappingTest, SummaryTellsTheControls) {
  ImageSummary summary;
  summary.controls.push_back({"lines", "abc", 0.5, AdapterTier::kHost, 1.5});
  summary.image_prompts.push_back({"style", "def", 0.6, AdapterTier::kDisk, 2.5});
  const v1::Summary message = ToProto(summary);
  ASSERT_EQ(message.image_prompts_size(), 1);
  EXPECT_EQ(message.image_prompts(0).name(), "style");
  EXPECT_EQ(message.image_prompts(0).scale(), 0.6);
  EXPECT_EQ(message.image_prompts(0).tier_found(), v1::ADAPTER_TIER_DISK);
  ASSERT_EQ(message.controls_size(), 1);
  EXPECT_EQ(message.controls(0).name(), "lines");
  EXPECT_EQ(message.controls(0).content_sha256(), "abc");
  EXPECT_EQ(message.controls(0).scale(), 0.5);
  EXPECT_EQ(message.controls(0).tier_found(), v1::ADAPTER_TIER_HOST);
  EXPECT_EQ(message.controls(0).seconds(), 1.5);
}

TEST(ProtoMappingTest, RefusesListsBeyondTheLimitUncopied) {
  v1::GenerateImagesRequest message;
  for (int i = 0; i < 17; ++i) {
    message.add_embeddings();
  }
  const MappedImageRequest mapped = FromProto(message);
  ASSERT_EQ(mapped.violations.size(), 1u);
  EXPECT_EQ(mapped.violations[0].field, "embeddings");
  EXPECT_TRUE(mapped.request.embeddings.empty());
  message.clear_embeddings();
  message.add_adapters();
  v1::AdapterRef* const adapter = message.add_adapters();
  for (int i = 0; i < 65; ++i) {
    adapter->add_blocks();
  }
  const MappedImageRequest blocks = FromProto(message);
  ASSERT_EQ(blocks.violations.size(), 1u);
  EXPECT_EQ(blocks.violations[0].field, "adapters[1].blocks");
  EXPECT_TRUE(blocks.request.adapters[1].blocks.empty());
}

TEST(ProtoMappingTest, EveryEnumNumberMapsThereAndBack) {
  for (int number = v1::Sampler_MIN + 1; number <= v1::Sampler_MAX; ++number) {
    v1::GenerateImagesRequest message;
    message.set_sampler(static_cast<v1::Sampler>(number));
    ImageSummary summary;
    summary.sampler = FromProto(message).request.sampler.value();
    EXPECT_EQ(ToProto(summary).sampler(), number);
  }
  for (int number = v1::NoiseSchedule_MIN + 1; number <= v1::NoiseSchedule_MAX; ++number) {
    v1::GenerateImagesRequest message;
    message.set_schedule(static_cast<v1::NoiseSchedule>(number));
    ImageSummary summary;
    summary.schedule = FromProto(message).request.schedule.value();
    EXPECT_EQ(ToProto(summary).schedule(), number);
  }
  for (int number = v1::ImageFormat_MIN + 1; number <= v1::ImageFormat_MAX; ++number) {
    v1::GenerateImagesRequest message;
    message.set_format(static_cast<v1::ImageFormat>(number));
    FinishedImage image;
    image.format = FromProto(message).request.format.value();
    EXPECT_EQ(ToProtoWithoutData(image).format(), number);
  }
}

TEST(ProtoMappingTest, NamesFromFilesBecomeUtf8) {
  AdapterInfo info;
  info.name = "a";
  info.content_sha256 = "ff";
  info.error = "key \xFF";
  info.targets = {"unet"};
  info.matched_modules = 7;
  info.metadata.base_model = "sd_xl_base_1.0.safetensors";
  info.metadata.title = "Neon \xFF";
  info.metadata.tags = {"night", "rain"};
  info.notes = {"its metadata say \xFF"};
  info.rank_max = 8;
  const v1::Adapter message = ToProto(info);
  EXPECT_EQ(message.error(), "key ?");
  EXPECT_EQ(message.rank_max(), 8u);
  EXPECT_EQ(message.targets(0), "unet");
  EXPECT_EQ(message.matched_modules(), 7u);
  EXPECT_EQ(message.base_model(), "sd_xl_base_1.0.safetensors");
  EXPECT_EQ(message.title().find('\xFF'), std::string::npos) << "no UTF-8, no string of protobuf";
  EXPECT_EQ(message.tags_size(), 2);
  EXPECT_EQ(message.notes(0), "its metadata say ?");
  EXPECT_EQ(message.architecture(), "");
}

TEST(ProtoMappingTest, ProgressCarriesItsPreview) {
  EXPECT_EQ(ToProto(ImageProgress{0, 1, 2, 0.5, "jpeg"}).preview(), "jpeg");
}

TEST(ProtoMappingTest, InfiniteRequestTimeIsZero) {
  EngineOptions options;
  EXPECT_EQ(ToProto(ModelInfo{}, options, 1).limits().max_request_seconds(), 0);
  options.max_request_time = absl::Seconds(300);
  EXPECT_EQ(ToProto(ModelInfo{}, options, 1).limits().max_request_seconds(), 300);
}

}  // namespace
}  // namespace hotlora
