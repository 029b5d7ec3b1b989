#include "server/sdapi_mapping.h"

#include <cmath>
#include <functional>
#include <limits>
#include <set>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "server/sdapi_lists.h"
#include "server/sdapi_options.h"
#include "src/request/validation.h"

namespace hotlora {
namespace {

using sdapi::v1::GenerateRequest;
using Json = nlohmann::json;

ModelInfo Model() {
  ModelInfo model;
  model.name = "juggernaut";
  model.sha256 = "0123456789" + std::string(54, 'a');
  model.max_clip_skip = 11;
  return model;
}

// The message that a JSON transcoding proxy makes of `json`.
GenerateRequest Message(const std::string& json) {
  GenerateRequest message;
  const auto status = google::protobuf::util::JsonStringToMessage(json, &message);
  EXPECT_TRUE(status.ok()) << json << ": " << status.ToString();
  return message;
}

MappedImageRequest Map(const std::string& json, SdapiTask task = SdapiTask::kTxt2Img) {
  return FromProto(WithDefaults(Message(json), task), task, Model());
}

// The fields that are refused, with what is said of them.
std::string Faults(const MappedImageRequest& mapped) {
  std::string text;
  for (const FieldViolation& violation : mapped.violations) {
    absl::StrAppend(&text, text.empty() ? "" : "; ", violation.field, " ", violation.description);
  }
  return text;
}

TEST(SdapiMappingTest, HasTheDefaultsOfTheApi) {
  const MappedImageRequest mapped = Map("{}");
  EXPECT_EQ(Faults(mapped), "");
  const ImageRequest& request = mapped.request;
  EXPECT_EQ(request.prompt, "");
  EXPECT_EQ(request.steps, 50u);
  EXPECT_EQ(request.guidance_scale, 7.0);
  EXPECT_EQ(request.width, 512u);
  EXPECT_EQ(request.height, 512u);
  EXPECT_EQ(request.num_images, 1u);
  EXPECT_EQ(request.sampler, Sampler::kEuler);
  EXPECT_EQ(request.prompt_syntax, PromptSyntax::kWeighted);
  EXPECT_EQ(request.long_prompts, true);
  EXPECT_EQ(request.lora_tags, true);
  EXPECT_EQ(request.schedule, std::nullopt);
  EXPECT_EQ(request.negative_prompt, std::nullopt);
  EXPECT_EQ(request.seed, std::nullopt);
  EXPECT_EQ(request.strength, std::nullopt);
  EXPECT_EQ(request.clip_skip, std::nullopt);
  EXPECT_EQ(request.format, std::nullopt);
}

TEST(SdapiMappingTest, MapsWhatIsSet) {
  const MappedImageRequest mapped =
      Map(R"({"prompt": "a (cat:1.2) <lora:ink:0.5>", "negative_prompt": "blurry", "seed": 9007199254740993,
              "steps": 20, "cfg_scale": 4.5, "width": 1024, "height": 768, "batch_size": 2, "n_iter": 3,
              "sampler_name": "DPM++ 2M", "scheduler": "Karras",
              "override_settings": {"CLIP_stop_at_last_layers": 2, "samples_format": "jpg", "jpeg_quality": 70}})");
  EXPECT_EQ(Faults(mapped), "");
  const ImageRequest& request = mapped.request;
  EXPECT_EQ(request.prompt, "a (cat:1.2) <lora:ink:0.5>");
  EXPECT_EQ(request.negative_prompt, "blurry");
  EXPECT_EQ(request.seed, 9007199254740993u);
  EXPECT_EQ(request.steps, 20u);
  EXPECT_EQ(request.guidance_scale, 4.5);
  EXPECT_EQ(request.width, 1024u);
  EXPECT_EQ(request.height, 768u);
  EXPECT_EQ(request.num_images, 6u);
  EXPECT_EQ(request.sampler, Sampler::kDpmpp2M);
  EXPECT_EQ(request.schedule, NoiseScheduleKind::kKarras);
  EXPECT_EQ(request.clip_skip, 1u);
  EXPECT_EQ(request.format, ImageFormat::kJpeg);
  EXPECT_EQ(request.quality, 70u);
}

TEST(SdapiMappingTest, FindsSamplersAndSchedules) {
  struct Case {
    const char* json;
    Sampler sampler;
    std::optional<NoiseScheduleKind> schedule;
  };
  const Case cases[] = {
      {R"({"sampler_name": "Euler a"})", Sampler::kEulerAncestral, std::nullopt},
      {R"({"sampler_name": "euler A"})", Sampler::kEulerAncestral, std::nullopt},
      {R"({"sampler_name": "k_euler_a"})", Sampler::kEulerAncestral, std::nullopt},
      {R"({"sampler_name": "Heun"})", Sampler::kHeun, std::nullopt},
      {R"({"sampler_name": "DDIM"})", Sampler::kDdim, std::nullopt},
      {R"({"sampler_name": "UniPC"})", Sampler::kUniPc, std::nullopt},
      {R"({"sampler_name": "LCM"})", Sampler::kLcm, std::nullopt},
      {R"({"sampler_name": "DPM++ 2M"})", Sampler::kDpmpp2M, std::nullopt},
      {R"({"sampler_name": "DPM++ 2M Karras"})", Sampler::kDpmpp2M, NoiseScheduleKind::kKarras},
      {R"({"sampler_name": "DPM++ 2M SDE"})", Sampler::kDpmpp2MSde, std::nullopt},
      {R"({"sampler_name": "DPM++ 2M SDE Exponential"})", Sampler::kDpmpp2MSde, NoiseScheduleKind::kExponential},
      {R"({"sampler_name": "DPM++ 2M SDE Karras", "scheduler": "automatic"})", Sampler::kDpmpp2MSde,
       NoiseScheduleKind::kKarras},
      {R"({"sampler_name": "DPM++ 2M Karras", "scheduler": "karras"})", Sampler::kDpmpp2M, NoiseScheduleKind::kKarras},
      {R"({"sampler_name": "Euler", "scheduler": "exponential"})", Sampler::kEuler, NoiseScheduleKind::kExponential},
      {R"({"sampler_name": "Euler", "scheduler": "Automatic"})", Sampler::kEuler, NoiseScheduleKind::kDefault},
      {R"({"sampler_name": "Euler", "scheduler": "Trailing"})", Sampler::kEuler, NoiseScheduleKind::kTrailing},
      {R"({"sampler_name": "Heun", "sampler_index": "DDIM"})", Sampler::kHeun, std::nullopt},
      {R"({"sampler_name": "", "sampler_index": "DDIM"})", Sampler::kDdim, std::nullopt},
      {R"({"sampler_name": null, "sampler_index": "UniPC", "scheduler": null})", Sampler::kUniPc, std::nullopt},
      {R"({"sampler_index": "DPM++ 2M Karras"})", Sampler::kDpmpp2M, NoiseScheduleKind::kKarras},
      {R"({"scheduler": ""})", Sampler::kEuler, std::nullopt},
  };
  for (const Case& c : cases) {
    const MappedImageRequest mapped = Map(c.json);
    EXPECT_EQ(Faults(mapped), "") << c.json;
    EXPECT_EQ(mapped.request.sampler, c.sampler) << c.json;
    EXPECT_EQ(mapped.request.schedule, c.schedule) << c.json;
  }
}

// What clients send with every request, whether they use it or not.
TEST(SdapiMappingTest, AcceptsNeutralValues) {
  const char* cases[] = {
      R"({"enable_hr": false, "hr_scale": 2, "hr_upscaler": "Latent", "hr_second_pass_steps": 0, "hr_resize_x": 0,
          "hr_resize_y": 0, "hr_checkpoint_name": null, "hr_sampler_name": null, "hr_scheduler": null,
          "hr_prompt": "", "hr_negative_prompt": "", "denoising_strength": 0.7, "firstphase_width": 0,
          "firstphase_height": 0, "styles": [], "seed": -1, "subseed": -1, "subseed_strength": 0.0,
          "seed_resize_from_h": 0, "seed_resize_from_w": 0, "restore_faces": false, "tiling": false,
          "do_not_save_samples": false, "do_not_save_grid": false, "eta": 1.0, "s_churn": 0, "s_tmax": 0,
          "s_tmin": 0, "s_noise": 1, "override_settings": {}, "override_settings_restore_afterwards": true,
          "sampler_name": "Euler a", "scheduler": "automatic", "sampler_index": "Euler a", "script_name": null,
          "script_args": [], "send_images": true, "save_images": false, "alwayson_scripts": {}})",
      R"({"prompt": null, "negative_prompt": null, "seed": null, "steps": null, "cfg_scale": null, "width": null,
          "eta": null, "s_tmax": null, "override_settings": null, "alwayson_scripts": null, "script_args": null,
          "styles": null, "refiner_checkpoint": null, "refiner_switch_at": null, "restore_faces": null,
          "tiling": null, "comments": null, "infotext": null, "force_task_id": null, "firstpass_image": null})",
      R"({"seed_resize_from_h": -1, "seed_resize_from_w": -1, "s_tmax": 1e30, "refiner_checkpoint": "None",
          "refiner_switch_at": 0.8, "script_name": "None", "script_args": [1, {"a": null}], "subseed": 12345,
          "save_images": true, "disable_extra_networks": false, "comments": {"a": 1}, "seed_enable_extras": true})",
      R"({"mask_blur": 4, "inpainting_fill": 0, "inpaint_full_res": true, "inpaint_full_res_padding": 32,
          "inpainting_mask_invert": 1, "resize_mode": 1, "image_cfg_scale": 1.5, "mask": "", "init_images": []})",
      R"({"alwayson_scripts": {"ControlNet": {"args": []}, "ADetailer": {"args": [false]}, "x": {}, "y": null}})",
      R"({"override_settings": {"sd_model_checkpoint": "juggernaut", "sd_vae": "Automatic", "emphasis": "No norm",
          "eta_noise_seed_delta": 0, "CLIP_stop_at_last_layers": 1, "no_such_option": null, "another": []}})",
      R"({"override_settings": {"sd_model_checkpoint": "juggernaut.safetensors"}})",
      R"({"override_settings": {"sd_model_checkpoint": "juggernaut [0123456789]"}})",
      R"({"override_settings": {"sd_model_checkpoint": "0123456789", "sd_vae": "None"}})",
      R"({"sampler_name": "DDIM", "eta": 1})",
      R"({"sampler_name": "DDIM", "eta": 0})",
      R"({"sampler_name": "Euler", "eta": 0, "s_noise": 0})",
  };
  for (const char* json : cases) {
    EXPECT_EQ(Faults(Map(json)), "") << json;
  }
}

TEST(SdapiMappingTest, SecondPass) {
  struct Case {
    const char* json;
    double scale, strength;
    std::optional<uint32_t> steps;
  };
  const Case cases[] = {
      {R"({"enable_hr": true})", 2.0, 0.75, std::nullopt},
      {R"({"enable_hr": true, "hr_scale": 1.5, "denoising_strength": 0.4, "hr_second_pass_steps": 12,
           "hr_upscaler": "Lanczos"})",
       1.5, 0.4, 12},
      {R"({"enable_hr": true, "hr_upscaler": "none", "hr_second_pass_steps": 0,
           "hr_checkpoint_name": "Use same checkpoint", "sampler_name": "Euler a", "hr_sampler_name": "euler A",
           "scheduler": "Karras", "hr_scheduler": "Karras",
           "prompt": "a", "hr_prompt": "a", "hr_negative_prompt": ""})",
       2.0, 0.75, std::nullopt},
      {R"({"enable_hr": true, "width": 832, "height": 1216, "hr_resize_x": 1248, "hr_resize_y": 1824, "hr_scale": 3})",
       1.5, 0.75, std::nullopt},
      {R"({"enable_hr": true, "width": 832, "height": 1216, "hr_resize_y": 1824})", 1.5, 0.75, std::nullopt},
      {R"({"enable_hr": true, "sampler_index": "Euler a", "hr_sampler_name": "k_euler_a",
           "hr_scheduler": "automatic"})",
       2.0, 0.75, std::nullopt},
      {R"({"enable_hr": true, "sampler_name": "DPM++ 2M", "scheduler": "karras",
           "hr_sampler_name": "DPM++ 2M Karras"})",
       2.0, 0.75, std::nullopt},
  };
  for (const Case& c : cases) {
    const MappedImageRequest mapped = Map(c.json);
    EXPECT_EQ(Faults(mapped), "") << c.json;
    ASSERT_TRUE(mapped.request.hires.has_value()) << c.json;
    EXPECT_EQ(mapped.request.hires->scale, c.scale) << c.json;
    EXPECT_EQ(mapped.request.hires->strength, c.strength) << c.json;
    EXPECT_EQ(mapped.request.hires->steps, c.steps) << c.json;
  }
  EXPECT_FALSE(Map(R"({"enable_hr": false, "hr_scale": 2})").request.hires.has_value());
}

TEST(SdapiMappingTest, RefusesByNameWhatTheSecondPassDoesNotHave) {
  struct Case {
    const char* member;
    const char* fault;
  };
  const Case cases[] = {
      {R"("hr_upscaler": "Latent")", "hr_upscaler is \"Latent\", which is not supported; allowed is \"Lanczos\""},
      {R"("hr_checkpoint_name": "refiner")", "hr_checkpoint_name is \"refiner\""},
      {R"("hr_sampler_name": "DDIM")", "hr_sampler_name is \"DDIM\""},
      {R"("hr_scheduler": "Karras")", "hr_scheduler is \"Karras\""},
      {R"("hr_prompt": "another")", "hr_prompt is not supported; leave it empty"},
      {R"("hr_negative_prompt": "another")", "hr_negative_prompt is not supported; leave it empty"},
      {R"("hr_second_pass_steps": -1)", "hr_second_pass_steps is -1, which is below 0"},
      {R"("hr_resize_x": 1024, "hr_resize_y": 768)", "hr_resize_x is 1024 and hr_resize_y is 768"},
      {R"("hr_resize_y": 256)", "hr_resize_y is 256, 0.5 times the size; allowed are more than 1 and at most 4 times"},
      {R"("sampler_name": "DPM++ 2M", "hr_sampler_name": "DPM++ 2M Karras")", "hr_sampler_name is"},
      {R"("prompt": "<lora:Neon:1>", "hr_prompt": "<lora:neon:1>")", "hr_prompt is not supported; leave it empty"},
      {R"("firstphase_width": 512)", "firstphase_width is 512"},
  };
  for (const Case& c : cases) {
    const std::string faults = Faults(Map(absl::StrCat(R"({"enable_hr": true, )", c.member, "}")));
    EXPECT_TRUE(absl::StartsWith(faults, c.fault)) << faults;
  }
}

TEST(SdapiMappingTest, RefusesByNameWhatWouldChangeThePicture) {
  struct Case {
    const char* json;
    const char* fault;  // the beginning of what is said
  };
  const Case cases[] = {
      {R"({"subseed_strength": 0.1})", "subseed_strength is 0.1, which is not supported; allowed is 0"},
      {R"({"subseed_strength": "NaN"})", "subseed_strength is nan"},
      {R"({"seed_resize_from_w": 512})", "seed_resize_from_w is 512"},
      {R"({"seed_resize_from_h": 8})", "seed_resize_from_h is 8"},
      {R"({"sampler_name": "Euler a", "eta": 0})", "eta is 0, which is not supported; allowed is 1"},
      {R"({"sampler_name": "Euler a", "eta": "NaN"})", "eta is nan"},
      {R"({"sampler_name": "Euler a", "s_noise": 0.9})", "s_noise is 0.9"},
      {R"({"sampler_name": "DPM2 a", "eta": 0.5})", "eta is 0.5, which is not supported; allowed is 1"},
      {R"({"sampler_name": "DPM++ 3M SDE", "s_noise": 1.1})", "s_noise is 1.1"},
      {R"({"sampler_name": "TCD", "s_noise": 1.1})", "s_noise is 1.1"},
      {R"({"s_churn": 1})", "s_churn is 1"},
      {R"({"s_min_uncond": 1})", "s_min_uncond is 1"},
      {R"({"styles": ["a", "b"]})", "styles has 2 entries"},
      {R"({"restore_faces": true})", "restore_faces is true"},
      {R"({"tiling": true})", "tiling is true"},
      {R"({"refiner_checkpoint": "refiner"})", "refiner_checkpoint is \"refiner\""},
      {R"({"disable_extra_networks": true})", "disable_extra_networks is true"},
      {R"({"script_name": "X/Y/Z plot"})", "script_name is \"X/Y/Z plot\""},
      {R"({"alwayson_scripts": {"ControlNet": {"args": [{"model": "canny"}]}}})",
       "alwayson_scripts.ControlNet.args[0].image is missing"},
      {R"({"alwayson_scripts": {"ADetailer": {"args": [true]}}})", "alwayson_scripts.ADetailer is not"},
      {R"({"infotext": "Steps: 20"})", "infotext is not supported"},
      {R"({"firstpass_image": "AAAA"})", "firstpass_image is not supported"},
      {R"({"init_images": ["AAAA"]})", "init_images is a field of img2img"},
      {R"({"mask": "AAAA"})", "mask is not supported"},
      {R"({"override_settings": {"sd_model_checkpoint": "dreamshaper"}})",
       "override_settings.sd_model_checkpoint is \"dreamshaper\"; in force, and allowed, is \"juggernaut "
       "[0123456789]\""},
      {R"({"override_settings": {"sd_vae": "kl-f8.pt"}})", "override_settings.sd_vae is \"kl-f8.pt\""},
      {R"({"override_settings": {"eta_noise_seed_delta": 31337}})", "override_settings.eta_noise_seed_delta is 31337"},
      {R"({"override_settings": {"filter_nsfw": true}})", "override_settings.filter_nsfw is not an option"},
      {R"({"override_settings": {"samples_format": "tiff"}})", "override_settings.samples_format is \"tiff\"; allowed"},
      {R"({"override_settings": {"jpeg_quality": 0}})",
       "override_settings.jpeg_quality is 0; allowed are whole numbers"},
      {R"({"override_settings": {"CLIP_stop_at_last_layers": 0}})",
       "override_settings.CLIP_stop_at_last_layers is 0; allowed are whole numbers from 1 to 12"},
      {R"({"override_settings": {"CLIP_stop_at_last_layers": 13}})",
       "override_settings.CLIP_stop_at_last_layers is 13"},
      {R"({"override_settings": {"CLIP_stop_at_last_layers": 1.5}})",
       "override_settings.CLIP_stop_at_last_layers is 1.5"},
      {R"({"override_settings": {"CLIP_stop_at_last_layers": "2"}})",
       "override_settings.CLIP_stop_at_last_layers is \"2"},
      {R"({"sampler_name": "DPM fast"})",
       "sampler_name is \"DPM fast\"; allowed are Euler, Euler a, Heun, DDIM, DPM++ 2M,"},
      {R"({"sampler_index": "PLMS"})", "sampler_index is \"PLMS\""},
      {R"({"sampler_name": "Euler Exponential Karras"})", "sampler_name is \"Euler Exponential Karras\""},
      {R"({"sampler_name": "Karras"})", "sampler_name is \"Karras\""},
      {R"({"scheduler": "Uniform"})", "scheduler is \"Uniform\"; allowed are Automatic, Karras, Exponential, Trailing"},
      {R"({"sampler_name": "DPM++ 2M Karras", "scheduler": "Exponential"})",
       "scheduler is \"Exponential\", but sampler_name ends in Karras"},
      {R"({"seed": -2})", "seed is -2; allowed are -1 (random) and more"},
      {R"({"steps": -1})", "steps is -1, which is below 0"},
      {R"({"width": -8})", "width is -8, which is below 0"},
      {R"({"height": -8})", "height is -8, which is below 0"},
      {R"({"batch_size": 0})",
       "batch_size is 0 and n_iter is 1; both must be at least 1, and their product at most 16"},
      {R"({"batch_size": 4, "n_iter": 5})", "batch_size is 4 and n_iter is 5"},
      {R"({"batch_size": 2147483647, "n_iter": 2147483647})", "batch_size is 2147483647 and n_iter is 2147483647"},
      {R"({"batch_size": -1, "n_iter": -1})", "batch_size is -1 and n_iter is -1"},
  };
  for (const Case& c : cases) {
    const MappedImageRequest mapped = Map(c.json);
    ASSERT_EQ(mapped.violations.size(), 1u) << c.json << ": " << Faults(mapped);
    EXPECT_TRUE(absl::StartsWith(Faults(mapped), c.fault)) << c.json << ": " << Faults(mapped);
  }
}

TEST(SdapiMappingTest, ReadsTheImagesOfImg2Img) {
  const std::string bytes("\x89PNG\r\n\x1a\n\0\xff~", 11);
  const std::string base64 = absl::Base64Escape(bytes);
  for (const std::string& text : {base64, "data:image/png;base64," + base64, "DATA:image/webp;x=1;BASE64," + base64}) {
    const MappedImageRequest mapped =
        Map(R"({"init_images": [")" + text + R"("], "mask": ")" + text +
                R"(", "mask_blur": 0, "inpainting_fill": 1, "inpaint_full_res": false, "inpainting_mask_invert": 0})",
            SdapiTask::kImg2Img);
    EXPECT_EQ(Faults(mapped), "") << text;
    EXPECT_EQ(mapped.request.init_image, bytes) << text;
    EXPECT_EQ(mapped.request.mask_image, bytes) << text;
    EXPECT_EQ(mapped.request.strength, 0.75) << text;
  }
  const MappedImageRequest without_mask =
      Map(R"({"init_images": [")" + base64 + R"("], "denoising_strength": 0.5, "mask_blur": 4, "inpainting_fill": 0,
              "inpaint_full_res": true, "resize_mode": 0, "initial_noise_multiplier": 1, "image_cfg_scale": 1.5})",
          SdapiTask::kImg2Img);
  EXPECT_EQ(Faults(without_mask), "");
  EXPECT_EQ(without_mask.request.strength, 0.5);
  EXPECT_EQ(without_mask.request.mask_image, "");
}

TEST(SdapiMappingTest, RefusesBadImagesAndTheirSettingsByName) {
  struct Case {
    const char* json;
    const char* fault;
  };
  const Case cases[] = {
      {"{}", "init_images has 0 images; allowed is 1"},
      {R"({"init_images": null})", "init_images has 0 images"},
      {R"({"init_images": ["AAAA", "AAAA"]})", "init_images has 2 images"},
      {R"({"init_images": ["no base64!"]})", "init_images[0] is not base64; allowed"},
      {R"({"init_images": [""]})", "init_images[0] is an image of 0 bytes"},
      {R"({"init_images": ["data:image/png;base64,"]})", "init_images[0] is an image of 0 bytes"},
      {R"({"init_images": ["data:image/png,AAAA"]})", "init_images[0] is a data URI that is not in base64"},
      {R"({"init_images": ["data:image/png;base64"]})", "init_images[0] is a data URI that is not in base64"},
      {R"({"init_images": ["https://example.org/a.png"]})", "init_images[0] is not base64"},
      {R"({"init_images": ["AAAA"], "mask": "%%"})", "mask is not base64"},
      {R"({"init_images": ["AAAA"], "mask": "AAAA", "mask_blur": 4})",
       "mask_blur is 4, which is not supported; allowed is 0"},
      {R"({"init_images": ["AAAA"], "mask": "AAAA", "mask_blur_x": 4})", "mask_blur_x is 4"},
      {R"({"init_images": ["AAAA"], "mask": "AAAA", "mask_blur_y": 4})", "mask_blur_y is 4"},
      {R"({"init_images": ["AAAA"], "mask": "AAAA", "mask_round": false})", "mask_round is false"},
      {R"({"init_images": ["AAAA"], "mask": "AAAA", "inpainting_fill": 0})", "inpainting_fill is 0"},
      {R"({"init_images": ["AAAA"], "mask": "AAAA", "inpaint_full_res": true})", "inpaint_full_res is true"},
      {R"({"init_images": ["AAAA"], "mask": "AAAA", "inpainting_mask_invert": 1})", "inpainting_mask_invert is 1"},
      {R"({"init_images": ["AAAA"], "resize_mode": 2})", "resize_mode is 2"},
      {R"({"init_images": ["AAAA"], "initial_noise_multiplier": 0.5})", "initial_noise_multiplier is 0.5"},
      {R"({"init_images": ["AAAA"], "latent_mask": "AAAA"})", "latent_mask is not supported"},
  };
  for (const Case& c : cases) {
    const MappedImageRequest mapped = Map(c.json, SdapiTask::kImg2Img);
    ASSERT_EQ(mapped.violations.size(), 1u) << c.json << ": " << Faults(mapped);
    EXPECT_TRUE(absl::StartsWith(Faults(mapped), c.fault)) << c.json << ": " << Faults(mapped);
  }
}

TEST(SdapiMappingTest, ListsEveryBadFieldAtOnce) {
  const MappedImageRequest mapped = Map(R"({"tiling": true, "seed": -5, "sampler_name": "PLMS", "scheduler": "x"})");
  std::set<std::string> fields;
  for (const FieldViolation& violation : mapped.violations) {
    fields.insert(violation.field);
  }
  EXPECT_EQ(fields, (std::set<std::string>{"tiling", "seed", "sampler_name", "scheduler"}));
}

TEST(SdapiMappingTest, DoesNotLookAtThousandsOfSettings) {
  Json many = Json::object();
  for (int i = 0; i < 501; ++i) {
    many[absl::StrCat("x", i)] = nullptr;
  }
  for (const char* field : {"override_settings", "alwayson_scripts"}) {
    EXPECT_EQ(Faults(Map(Json({{field, many}}).dump())),
              absl::StrCat(field, " has 501 entries; allowed are at most 500"));
  }
  const ModelInfo model = Model();
  google::protobuf::Struct options;
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(many.dump(), &options).ok());
  EXPECT_EQ(OptionsInForce(model).Check(options).message(),
            "1 bad field: options has 501 entries; allowed are at most 500");
}

TEST(SdapiMappingTest, GivesErrorsTheFieldNamesOfTheApi) {
  struct Case {
    const char* json;
    const char* field;
    SdapiTask task = SdapiTask::kTxt2Img;
  };
  const Case cases[] = {
      {R"({"cfg_scale": 101})", "cfg_scale"},
      {R"({"cfg_scale": "NaN"})", "cfg_scale"},
      {R"({"cfg_scale": "Infinity"})", "cfg_scale"},
      {R"({"steps": 0})", "steps"},
      {R"({"width": 100})", "width"},
      {R"({"sampler_name": "DDIM", "scheduler": "Karras"})", "scheduler"},
      {R"({"sampler_name": "LCM", "steps": 51})", "steps"},
      {R"({"prompt": "<lora:a:x>"})", "prompt"},
      {R"json({"prompt": "(a:1.2.3)"})json", "prompt"},
      {R"({"init_images": ["AAAA"]})", "init_images[0]", SdapiTask::kImg2Img},
  };
  for (const Case& c : cases) {
    const MappedImageRequest mapped = Map(c.json, c.task);
    EXPECT_EQ(Faults(mapped), "") << c.json;
    const absl::Status status = InSdapiWords(ValidateImageRequest(mapped.request, {}).status());
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.json;
    const ErrorDetails details = GetErrorDetails(status);
    EXPECT_EQ(details.reason, "INVALID_REQUEST");
    ASSERT_EQ(details.violations.size(), 1u) << c.json << ": " << status;
    EXPECT_EQ(details.violations[0].field, c.field) << c.json;
    EXPECT_TRUE(absl::StrContains(status.message(), c.field)) << status;
    EXPECT_FALSE(absl::StrContains(status.message(), "SAMPLER_") || absl::StrContains(status.message(), "SCHEDULE_"))
        << status;
  }
  const MappedImageRequest mapped = Map(R"({"sampler_name": "LCM", "scheduler": "Karras"})");
  EXPECT_EQ(InSdapiWords(ValidateImageRequest(mapped.request, {}).status()).message(),
            "1 bad field: scheduler is Karras, which LCM does not have; allowed: Automatic");
  const absl::Status other = MakeError(absl::StatusCode::kNotFound, "ADAPTER_NOT_FOUND", "no adapter \"sampler\"");
  EXPECT_EQ(InSdapiWords(other), other);
  EXPECT_EQ(InSdapiWords(absl::OkStatus()), absl::OkStatus());
}

TEST(SdapiMappingTest, TellsTheRequestAndWhatWasMade) {
  GenerateRequest request = WithDefaults(
      Message(R"({"prompt": "a cat", "batch_size": 2, "seed": 4294967295, "sampler_name": "DPM++ 2M Karras", "steps": 4,
                  "subseed": 3, "override_settings": {"CLIP_stop_at_last_layers": 2}})"),
      SdapiTask::kTxt2Img);
  std::string text;
  ASSERT_TRUE(google::protobuf::util::MessageToJsonString(ToParameters(request), &text).ok());
  const Json parameters = Json::parse(text);
  EXPECT_EQ(parameters["prompt"], "a cat");
  EXPECT_EQ(parameters["seed"], 4294967295);
  EXPECT_EQ(parameters["subseed"], 3);
  EXPECT_EQ(parameters["steps"], 4);
  EXPECT_EQ(parameters["cfg_scale"], 7);
  EXPECT_EQ(parameters["width"], 512);
  EXPECT_EQ(parameters["sampler_index"], "Euler");
  EXPECT_EQ(parameters["override_settings"]["CLIP_stop_at_last_layers"], 2);

  ImageSummary summary;
  summary.sampler = Sampler::kDpmpp2M;
  summary.schedule = NoiseScheduleKind::kKarras;
  const std::vector<SdapiImage> images = {{4294967295, 512, 512, "a cat\nSteps: 4"},
                                          {4294967296, 512, 512, "a cat\n2"}};
  const Json info = Json::parse(ToInfo(request, SdapiTask::kTxt2Img, images, summary, Model(), absl::UnixEpoch()));
  EXPECT_EQ(info["prompt"], "a cat");
  EXPECT_EQ(info["all_prompts"], Json({"a cat", "a cat"}));
  EXPECT_EQ(info["all_negative_prompts"], Json({"", ""}));
  EXPECT_EQ(info["seed"], 4294967295);
  EXPECT_EQ(info["all_seeds"], Json({4294967295, 4294967296}));
  EXPECT_EQ(info["all_subseeds"], Json({3, 3}));
  EXPECT_EQ(info["width"], 512);
  EXPECT_EQ(info["sampler_name"], "DPM++ 2M");
  EXPECT_EQ(info["extra_generation_params"], Json({{"Schedule type", "Karras"}}));
  EXPECT_EQ(info["cfg_scale"], 7);
  EXPECT_EQ(info["steps"], 4);
  EXPECT_EQ(info["batch_size"], 2);
  EXPECT_EQ(info["clip_skip"], 2);
  EXPECT_EQ(info["sd_model_hash"], "0123456789");
  EXPECT_EQ(info["denoising_strength"], nullptr);
  EXPECT_EQ(info["infotexts"], Json({"a cat\nSteps: 4", "a cat\n2"}));
  EXPECT_EQ(info["job_timestamp"], "19700101000000");

  request.set_denoising_strength(0.5);
  const Json of_image = Json::parse(ToInfo(request, SdapiTask::kImg2Img, images, {}, Model(), absl::UnixEpoch()));
  EXPECT_EQ(of_image["denoising_strength"], 0.5);
  EXPECT_EQ(of_image["extra_generation_params"], Json::object());
}

TEST(SdapiMappingTest, ListsWhatThereIs) {
  AdapterInfo adapter;
  adapter.name = "styles/neon";
  adapter.metadata.title = "Neon";
  const Json loras = Json::parse(LorasJson({adapter}));
  EXPECT_EQ(loras, Json::parse(R"([{"name": "styles/neon", "alias": "styles/neon", "path": "styles/neon",
                                    "metadata": {"modelspec.title": "Neon"}}])"));
  EXPECT_EQ(LorasJson({}), "[]");

  // Each name and alias that is listed is one that a request may have.
  for (const Json& sampler : Json::parse(SamplersJson())) {
    EXPECT_TRUE(sampler["options"].is_object());
    std::vector<std::string> names = sampler["aliases"];
    names.push_back(sampler["name"]);
    for (const std::string& name : names) {
      EXPECT_EQ(Faults(Map(Json({{"sampler_name", name}}).dump())), "") << name;
    }
  }
  for (const Json& schedule : Json::parse(SchedulersJson())) {
    for (const char* key : {"name", "label"}) {
      EXPECT_EQ(Faults(Map(Json({{"scheduler", schedule[key]}}).dump())), "") << schedule;
    }
  }
  const Json models = Json::parse(SdModelsJson(Model()));
  ASSERT_EQ(models.size(), 1u);
  EXPECT_EQ(models[0]["title"], "juggernaut [0123456789]");
  EXPECT_EQ(models[0]["model_name"], "juggernaut");
  EXPECT_EQ(models[0]["sha256"], Model().sha256);
}

TEST(SdapiMappingTest, TakesTheOptionsThatItTellsAndNoOthers) {
  const ModelInfo model = Model();
  google::protobuf::Struct options;
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(OptionsInForce(model).Json(), &options).ok());
  EXPECT_EQ(options.fields().at("sd_model_checkpoint").string_value(), "juggernaut [0123456789]");
  EXPECT_EQ(OptionsInForce(model).Check(options), absl::OkStatus());
  EXPECT_EQ(OptionsInForce(model).Check({}), absl::OkStatus());

  (*options.mutable_fields())["CLIP_stop_at_last_layers"].set_number_value(2);
  (*options.mutable_fields())["samples_format"].set_string_value("jpg");
  (*options.mutable_fields())["no_such"].set_bool_value(true);
  const absl::Status refused = OptionsInForce(model).Check(options);
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  std::set<std::string> fields;
  for (const FieldViolation& violation : GetErrorDetails(refused).violations) {
    fields.insert(violation.field);
  }
  EXPECT_EQ(fields,
            (std::set<std::string>{"options.CLIP_stop_at_last_layers", "options.samples_format", "options.no_such"}));
}

TEST(SdapiMappingTest, TellsProgress) {
  const absl::Time begin = absl::UnixEpoch() + absl::Hours(1);
  const Json idle = Json::parse(ProgressJson({}, true, begin));
  EXPECT_EQ(idle["progress"], 0.0);
  EXPECT_EQ(idle["eta_relative"], 0.0);
  EXPECT_EQ(idle["state"]["job"], "");
  EXPECT_EQ(idle["state"]["job_count"], 0);
  EXPECT_EQ(idle["state"]["sampling_steps"], 0);
  EXPECT_EQ(idle["current_image"], nullptr);
  EXPECT_EQ(idle["textinfo"], nullptr);

  SdapiProgress first;
  first.job = "img2img";
  first.job_time = absl::UnixEpoch() + absl::Hours(2);
  first.begin = begin;
  first.images = 2;
  first.finished_images = 1;
  first.step = 5;
  first.steps = 10;
  first.steps_done = 15;
  first.preview = std::make_shared<const std::string>("jpeg");
  SdapiProgress second;
  second.begin = begin + absl::Seconds(1);
  second.steps = 40;
  second.waits_for = "place 0 in the queue";
  const Json both = Json::parse(ProgressJson({first, second}, true, begin + absl::Seconds(3)));
  EXPECT_DOUBLE_EQ(both["progress"], 0.25);
  EXPECT_DOUBLE_EQ(both["eta_relative"], 9.0);
  EXPECT_EQ(both["state"]["job"], "img2img");
  EXPECT_EQ(both["state"]["job_count"], 3);
  EXPECT_EQ(both["state"]["job_no"], 1);
  EXPECT_EQ(both["state"]["sampling_step"], 5);
  EXPECT_EQ(both["state"]["sampling_steps"], 10);
  EXPECT_EQ(both["state"]["job_timestamp"], "19700101020000");
  EXPECT_EQ(both["state"]["interrupted"], false);
  EXPECT_EQ(both["current_image"], absl::Base64Escape("jpeg"));
  EXPECT_EQ(both["textinfo"], nullptr);
  const Json without = Json::parse(ProgressJson({second}, false, begin));
  EXPECT_EQ(without["current_image"], nullptr);
  EXPECT_EQ(without["textinfo"], "place 0 in the queue");
  EXPECT_EQ(Json::parse(ProgressJson({first}, false, begin))["current_image"], nullptr);
}

}  // namespace
}  // namespace hotlora
