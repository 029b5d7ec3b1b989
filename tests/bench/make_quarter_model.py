#!/usr/bin/env python3
"""Writes a diffusers-layout folder for benchmarks: SDXL's structure (70 transformer blocks) at a quarter of its width.

  make_quarter_model.py --out DIR [--dtype float32|float16]

The UNet has 153 million random parameters, the text encoders and the VAE are tiny; tokenizers are those of
tests/golden/pipeline. Needs diffusers and transformers.
"""
import argparse, json, os, shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden", "pipeline")
PROJECTION, TIME_IDS = 320, 64
UNET = dict(
    sample_size=16, in_channels=4, out_channels=4, layers_per_block=2, block_out_channels=[80, 160, 320],
    norm_num_groups=16, norm_eps=1e-5, cross_attention_dim=512, act_fn="silu", flip_sin_to_cos=True, freq_shift=0,
    down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    mid_block_type="UNetMidBlock2DCrossAttn",
    up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], transformer_layers_per_block=[1, 2, 10],
    attention_head_dim=[5, 10, 20], use_linear_projection=True, addition_embed_type="text_time",
    addition_time_embed_dim=TIME_IDS, projection_class_embeddings_input_dim=PROJECTION + 6 * TIME_IDS)
VAE = dict(
    in_channels=3, out_channels=3, latent_channels=4, sample_size=128, scaling_factor=0.13025, layers_per_block=2,
    block_out_channels=[16, 16, 32, 32], norm_num_groups=16, act_fn="silu",
    down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4)


def text(hidden, act):
    return dict(vocab_size=49408, hidden_size=hidden, intermediate_size=4 * hidden, num_hidden_layers=3,
                num_attention_heads=hidden // 64, max_position_embeddings=77, hidden_act=act, layer_norm_eps=1e-5,
                projection_dim=hidden, bos_token_id=0, pad_token_id=1, eos_token_id=2)


def write(folder, name, file, config, model, dtype):
    os.makedirs(f"{folder}/{name}", exist_ok=True)
    with open(f"{folder}/{name}/config.json", "w") as out:
        json.dump(config, out, indent=1)
    tensors = {key: value.to(dtype).contiguous() for key, value in model.state_dict().items()
               if not key.endswith("position_ids")}
    save_file(tensors, f"{folder}/{name}/{file}", metadata={"format": "pt"})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16"))
    args = parser.parse_args()
    dtype = getattr(torch, args.dtype)
    torch.manual_seed(0)
    unet, vae = UNet2DConditionModel(**UNET), AutoencoderKL(**VAE)
    write(args.out, "unet", "diffusion_pytorch_model.safetensors", dict(_class_name="UNet2DConditionModel", **UNET),
          unet, dtype)
    write(args.out, "vae", "diffusion_pytorch_model.safetensors", dict(_class_name="AutoencoderKL", **VAE), vae, dtype)
    for name, cls, config in (("text_encoder", CLIPTextModel, text(192, "quick_gelu")),
                              ("text_encoder_2", CLIPTextModelWithProjection, text(PROJECTION, "gelu"))):
        write(args.out, name, "model.safetensors", config, cls(CLIPTextConfig(**config)), dtype)
    for name in ("tokenizer", "tokenizer_2", "scheduler"):
        shutil.copytree(os.path.join(GOLDEN, name), f"{args.out}/{name}", dirs_exist_ok=True)
    shutil.copy(os.path.join(GOLDEN, "model_index.json"), args.out)


if __name__ == "__main__":
    main()
