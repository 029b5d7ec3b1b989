#include "src/weights/single_file.h"

#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/weights/sdxl_base_configs.h"
#include "tests/golden_support.h"

namespace hotlora {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kFirst[] = "model.diffusion_model.input_blocks.0.0.weight";
constexpr char kText2[] = "conditioner.embedders.1.model.ln_final.bias";

// Name to shape; all tensors are F16 zeros.
using Shapes = std::map<std::string, std::vector<int64_t>>;

// What the kinds are told by of an SDXL base model.
Shapes Base() { return {{kFirst, {320, 4, 3, 3}}, {kText2, {8}}, {"first_stage_model.decoder.conv_in.bias", {2}}}; }

std::string FolderFor(const std::string& name) {
  const std::string folder = absl::StrCat(testing::TempDir(), "/single_file_", getpid(), "_", name);
  std::filesystem::create_directories(folder);
  return folder;
}

void WriteFile(const std::string& path, const nlohmann::json& header, const std::string& data) {
  const std::string text = header.dump();
  const uint64_t length = text.size();
  std::string prefix(8, '\0');
  std::memcpy(prefix.data(), &length, 8);
  std::ofstream(path, std::ios::binary) << prefix << text << data;
}

class SingleFileTest : public testing::Test {
 protected:
  SingleFileTest() : folder_(FolderFor(testing::UnitTest::GetInstance()->current_test_info()->name())) {}
  ~SingleFileTest() override { std::filesystem::remove_all(folder_); }

  std::string Write(const Shapes& shapes, const std::string& prediction = "") {
    nlohmann::json header = nlohmann::json::object();
    size_t end = 0;
    for (const auto& [name, shape] : shapes) {
      size_t bytes = 2;
      for (const int64_t size : shape) {
        bytes *= static_cast<size_t>(size);
      }
      header[name] = {{"dtype", "F16"}, {"shape", shape}, {"data_offsets", {end, end + bytes}}};
      end += bytes;
    }
    if (!prediction.empty()) {
      header["__metadata__"] = {{"modelspec.prediction_type", prediction}};
    }
    const std::string path = folder_ + "/model.safetensors";
    WriteFile(path, header, std::string(end, '\0'));
    return path;
  }

  // Writes tensors by their names, with a prefix in front.
  std::string WriteTensors(const std::string& name, const std::string& prefix, const TensorMap& tensors) {
    nlohmann::json header = nlohmann::json::object();
    std::string data;
    for (const auto& [key, tensor] : tensors) {
      const at::Tensor plain = tensor.contiguous();
      header[prefix + key] = {{"dtype", "F16"},
                              {"shape", plain.sizes().vec()},
                              {"data_offsets", {data.size(), data.size() + plain.nbytes()}}};
      data.append(static_cast<const char*>(plain.const_data_ptr()), plain.nbytes());
    }
    const std::string path = absl::StrCat(folder_, "/", name, ".safetensors");
    WriteFile(path, header, data);
    return path;
  }

  std::string folder_;
};

CheckpointSource Fixture() {
  CheckpointSource source(SingleFilePath());
  source.model_config = GoldenPath("pipeline");
  return source;
}

// Whether `weights` has every tensor of the file in the golden folder, bit for bit.
void ExpectSame(ComponentWeights& weights, const std::string& file) {
  for (const auto& [name, tensor] : LoadTensors(GoldenPath("pipeline/" + file + ".safetensors"))) {
    EXPECT_TRUE(at::equal(weights.Take(name, tensor.sizes()), tensor)) << name;
  }
  EXPECT_TRUE(weights.CheckComplete().ok()) << weights.CheckComplete();
}

TEST_F(SingleFileTest, HasEveryTensorOfTheFolder) {
  auto checkpoint = ReadCheckpoint(Fixture());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ExpectSame(checkpoint->unet, "unet/diffusion_pytorch_model");
  ExpectSame(checkpoint->vae, "vae/diffusion_pytorch_model");
  ExpectSame(checkpoint->text_encoder, "text_encoder/model");
  ExpectSame(checkpoint->text_encoder_2, "text_encoder_2/model");
  EXPECT_EQ(checkpoint->sha256, SafetensorsFile::ReadFile(Fixture().model, uint64_t{1} << 30)->sha256());
  EXPECT_EQ(checkpoint->tokenizer_2_folder, GoldenPath("pipeline/tokenizer_2"));
}

// https://github.com/huggingface/diffusers/issues/4790, for SDXL 5219: what diffusers' conversion script of 2023 made
// of a folder has diffusers' names of the VAE's attention below SGM's.
TEST_F(SingleFileTest, ReadsTheVaeOfDiffusersConversionScript) {
  TensorMap converted;
  int renamed = 0;
  for (const auto& [name, tensor] : LoadTensors(Fixture().model)) {
    const std::string key = absl::StrReplaceAll(name, {{"mid.attn_1.q.", "mid.attn_1.to_q."},
                                                       {"mid.attn_1.k.", "mid.attn_1.to_k."},
                                                       {"mid.attn_1.v.", "mid.attn_1.to_v."},
                                                       {"mid.attn_1.proj_out.", "mid.attn_1.to_out.0."}});
    renamed += key != name ? 1 : 0;
    converted[key] = tensor.to(at::kHalf);  // position_ids are integers
  }
  ASSERT_EQ(renamed, 16);  // weight and bias of four layers, in encoder and decoder
  CheckpointSource source = Fixture();
  source.model = WriteTensors("converted", "", converted);
  auto checkpoint = ReadCheckpoint(source);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ExpectSame(checkpoint->vae, "vae/diffusion_pytorch_model");
  ExpectSame(checkpoint->unet, "unet/diffusion_pytorch_model");
}

TEST_F(SingleFileTest, HasStockConfigsWithoutAFolder) {
  const auto checkpoint = ReadCheckpoint(Write(Base()));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->unet_config, SdxlBaseConfigs().unet_config);
  EXPECT_EQ(checkpoint->tokenizer_folder, "");
}

TEST_F(SingleFileTest, OtherWidthsThanTheConfigsAreRefusedBeforeLoading) {
  CheckpointSource source = Fixture();
  source.model_config.clear();
  EXPECT_THAT(std::string(ReadCheckpoint(source).status().message()),
              AllOf(HasSubstr("is 32 wide, block_out_channels is 320"), HasSubstr("--model-config")));
}

TEST_F(SingleFileTest, OtherVaeComesInEveryFormAndIsPartOfTheHash) {
  const std::string own = ReadCheckpoint(Fixture())->sha256;
  TensorMap sgm, stable_diffusion_1;
  for (const auto& [name, tensor] : LoadTensors(Fixture().model)) {
    if (absl::StartsWith(name, "first_stage_model.")) {
      stable_diffusion_1[name] = tensor;
      sgm[name.substr(std::strlen("first_stage_model."))] = tensor;
    }
  }
  const TensorMap diffusers = LoadTensors(GoldenPath("pipeline/vae/diffusion_pytorch_model.safetensors"));
  TensorMap old;  // the attention of the first published VAEs
  for (const auto& [name, tensor] : diffusers) {
    old[absl::StrReplaceAll(
        name, {{".to_q.", ".query."}, {".to_k.", ".key."}, {".to_v.", ".value."}, {".to_out.0.", ".proj_attn."}})] =
        tensor;
  }
  for (const std::string& vae :
       {GoldenPath("pipeline/vae"), GoldenPath("pipeline/vae/diffusion_pytorch_model.safetensors"),
        WriteTensors("sgm", "", sgm), WriteTensors("sgm_prefixed", "first_stage_model.", sgm),
        WriteTensors("diffusers_prefixed", "vae.", diffusers), WriteTensors("old", "", old),
        // https://github.com/AUTOMATIC1111/stable-diffusion-webui/issues/12548: the VAE of a whole SDXL checkpoint
        Fixture().model}) {
    for (CheckpointSource source : {Fixture(), CheckpointSource(GoldenPath("pipeline"))}) {
      source.vae = vae;
      auto checkpoint = ReadCheckpoint(source);
      ASSERT_TRUE(checkpoint.ok()) << vae << ": " << checkpoint.status();
      ExpectSame(checkpoint->vae, "vae/diffusion_pytorch_model");
      EXPECT_NE(checkpoint->sha256, own) << vae;
    }
  }
  // The VAE of another model's checkpoint has the same shapes.
  stable_diffusion_1["cond_stage_model.transformer.text_model.final_layer_norm.weight"] = at::zeros({8}, at::kHalf);
  CheckpointSource source = Fixture();
  source.vae = WriteTensors("stable_diffusion_1", "", stable_diffusion_1);
  EXPECT_THAT(std::string(ReadCheckpoint(source)->vae.CheckComplete().message()),
              HasSubstr(": cond_stage_model.transformer.text_model.final_layer_norm.weight"));
}

TEST_F(SingleFileTest, RefusesEachOtherKindByName) {
  const auto with = [](Shapes more) {
    more.merge(Base());
    return more;
  };
  const std::pair<Shapes, const char*> cases[] = {
      {{{"conditioner.embedders.0.model.transformer.resblocks.9.mlp.c_proj.bias", {1}}, {kFirst, {4, 4, 3, 3}}},
       "refiner"},
      {with({{kFirst, {4, 9, 3, 3}}}), "inpainting"},
      {with({{kFirst, {4, 8, 3, 3}}}), "editing"},
      {with({{"edm_mean", {4}}, {"edm_std", {4}}}), "Playground"},
      {with({{"edm_vpred.sigma_max", {1}}}), "EDM model with v-prediction"},
      {{{"cond_stage_model.transformer.text_model.final_layer_norm.bias", {1}}, {kFirst, {4, 4, 3, 3}}},
       "Stable Diffusion 1"},
      {{{"cond_stage_model.model.ln_final.bias", {1}}, {kFirst, {4, 4, 3, 3}}}, "Stable Diffusion 2"},
      {{{"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.bias", {1}}}, "Stable Diffusion 3"},
      {{{"double_blocks.0.img_attn.qkv.bias", {1}}}, "Flux"},
      {{{"lora_unet_input_blocks_4_1_proj_in.lora_down.weight", {1, 1}}}, "adapter"},
      {{{kFirst, {4, 4, 3, 3}}}, "UNet alone"},
      {{{"down_blocks.0.resnets.0.time_emb_proj.bias", {1}}}, "UNet alone"},
      {{{"first_stage_model.decoder.conv_in.bias", {1}}}, "VAE alone"},
      {{{"x", {1}}}, "the file is not an SDXL checkpoint"},
      {{{kText2, {1}}}, "no UNet"},
      {{{kText2, {1}}, {kFirst, {320, 4, 3, 3}}}, "no VAE"},
      {with({{"model.diffusion_models.0", {1}}, {"stray", {1}}}), "2 tensors that belong to no part"},
  };
  for (const auto& [shapes, says] : cases) {
    const absl::Status status = ReadCheckpoint(Write(shapes)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << says;
    EXPECT_THAT(std::string(status.message()), HasSubstr(says));
  }
}

// What programs leave in single files.
TEST_F(SingleFileTest, PassesOverLeftovers) {
  Shapes shapes = Base();
  for (const char* name :
       {"model_ema.decay", "model_ema.num_updates", "model_ema.diffusion_modelinput_blocks00weight", "denoiser.sigmas",
        "alphas_cumprod", "alphas_cumprod_prev", "betas", "log_one_minus_alphas_cumprod",
        "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2", "posterior_variance",
        "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod", "logvar", "lvlb_weights", "scale_factor", "embedding_manager.x",
        // https://github.com/vladmandic/sdnext/issues/2734
        "cond_stage_model.logit_scale", "cond_stage_model.transformer.text_model.embeddings.position_ids",
        "first_stage_model.loss.logvar", "first_stage_model.loss.discriminator.main.0.weight",
        "first_stage_model.model_ema.decay", "conditioner.embedders.0.transformer.text_projection.weight",
        "conditioner.embedders.0.logit_scale", "conditioner.embedders.1.model.logit_scale",
        "conditioner.embedders.1.model.attn_mask",
        // https://github.com/wkpark/sd-webui-model-mixer/issues/136
        "conditioner.embedders.0.transformer.text_model.embeddings.position_ids",
        "conditioner.embedders.1.model.transformer.text_model.embeddings.position_ids"}) {
    shapes[name] = {1};
  }
  const auto checkpoint = ReadCheckpoint(Write(shapes));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_TRUE(checkpoint->text_encoder.CheckComplete().ok()) << checkpoint->text_encoder.CheckComplete();
  EXPECT_THAT(std::string(checkpoint->text_encoder_2.CheckComplete().message()), HasSubstr("surplus 1: ln_final.bias"));
  EXPECT_THAT(std::string(checkpoint->vae.CheckComplete().message()), HasSubstr("surplus 1: decoder.conv_in.bias"));
  EXPECT_THAT(std::string(checkpoint->unet.CheckComplete().message()), HasSubstr("surplus 1: input_blocks.0.0.weight"));
}

TEST_F(SingleFileTest, NamesWhatIsNoKnownLeftover) {
  for (const char* name : {"model_emb.decay", "betas.weight", "alphas", "loss.logvar", "conditioner.embedders.2.weight",
                           "lora_unet_mid.lora_down.weight", "control_model.zero_convs.0.0.bias"}) {
    Shapes shapes = Base();
    shapes[name] = {1};
    EXPECT_THAT(std::string(ReadCheckpoint(Write(shapes)).status().message()),
                HasSubstr(absl::StrCat("belong to no part of SDXL: ", name)));
  }
  for (const char* name :
       {"model.diffusion_model.time_embed.cond_proj.weight", "first_stage_model.quantize.embedding"}) {
    Shapes shapes = Base();
    shapes[name] = {1};
    const auto checkpoint = ReadCheckpoint(Write(shapes));
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    const std::string faults =
        absl::StrCat(checkpoint->unet.CheckComplete().message(), " ", checkpoint->vae.CheckComplete().message());
    EXPECT_THAT(faults, HasSubstr(std::string(name).substr(std::string(name).find('.', 6) + 1)));
  }
}

TEST_F(SingleFileTest, PredictionComesFromTensorsAndMetadata) {
  struct Case {
    std::vector<std::string> markers;
    std::string metadata, prediction;
    bool zero_snr;
  };
  for (const Case& c : {Case{{}, "", "epsilon", false}, Case{{}, "epsilon", "epsilon", false},
                        Case{{"v_pred"}, "", "v_prediction", false}, Case{{}, "v", "v_prediction", false},
                        Case{{"v_pred", "ztsnr"}, "", "v_prediction", true}}) {
    Shapes shapes = Base();
    for (const std::string& marker : c.markers) {
      shapes[marker] = {0};
    }
    const auto checkpoint = ReadCheckpoint(Write(shapes, c.metadata));
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    EXPECT_EQ(checkpoint->scheduler_config["prediction_type"], c.prediction);
    EXPECT_EQ(checkpoint->scheduler_config.value("rescale_betas_zero_snr", false), c.zero_snr);
  }
  EXPECT_THAT(std::string(ReadCheckpoint(Write(Base(), "edm")).status().message()), HasSubstr("\"edm\""));
  Shapes lone = Base();
  lone["ztsnr"] = {1};
  EXPECT_THAT(std::string(ReadCheckpoint(Write(lone)).status().message()), HasSubstr("ztsnr"));
}

TEST_F(SingleFileTest, MisshapenFusedAttentionIsNamed) {
  Shapes shapes = Base();
  shapes["conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight"] = {4, 2};
  shapes["conditioner.embedders.1.model.text_projection"] = {};
  auto checkpoint = ReadCheckpoint(Write(shapes));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  checkpoint->text_encoder_2.Take("text_model.encoder.layers.0.self_attn.q_proj.weight", {1, 2});
  checkpoint->text_encoder_2.Take("text_projection.weight", {2, 2});
  EXPECT_THAT(std::string(checkpoint->text_encoder_2.CheckComplete().message()),
              AllOf(HasSubstr("missing 1: transformer.resblocks.0.attn.in_proj_weight (q)"),
                    HasSubstr("transformer.resblocks.0.attn.in_proj_weight"), HasSubstr("text_projection is []")));
}

TEST_F(SingleFileTest, UnsoundFilesAreDataLoss) {
  const std::string path = folder_ + "/model.safetensors";
  std::ofstream(path) << "not a safetensors file";
  EXPECT_EQ(ReadCheckpoint(path).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace hotlora
