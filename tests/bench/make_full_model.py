#!/usr/bin/env python3
"""Writes a diffusers-layout folder for benchmarks: SDXL base's own shapes, random weights. 6.9 GB in float16, twice in float32.

  make_full_model.py --out DIR [--dtype float16|float32] [--text-layers N] [--seed 0] [--control DIR]

With --control a ControlNet of the UNet's shapes (1,251,014,160 parameters) is written there as well. The UNet has stock SDXL's 2,567,463,684 parameters; text encoders and VAE have theirs too, unless --text-layers leaves out layers of
the encoders where memory is short. Tensors are drawn and written one at
a time, so little memory is needed. Values are normal with deviation 1 / sqrt(inputs), less at the end of each residual branch, so
that nothing overflows in float16; norms are 1 and 0. Tokenizers and scheduler are those of tests/golden/pipeline. Needs
torch, diffusers and transformers (tests/bench/requirements.txt).
"""
import argparse
import hashlib
import json
import os
import pathlib
import shutil
import struct

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import numpy
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden/pipeline"
BRANCH_ENDS = ("conv2.weight", "to_out.0.weight", "ff.net.2.weight", "proj_out.weight", "out_proj.weight", "fc2.weight",
               "controlnet_mid_block.weight", *(f"controlnet_down_blocks.{i}.weight" for i in range(9)))
BRANCH_GAIN = 0.3
UNET = dict(
    sample_size=128, in_channels=4, out_channels=4, layers_per_block=2, block_out_channels=[320, 640, 1280],
    cross_attention_dim=2048, act_fn="silu", norm_num_groups=32, norm_eps=1e-5, flip_sin_to_cos=True, freq_shift=0,
    down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    mid_block_type="UNetMidBlock2DCrossAttn", up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    transformer_layers_per_block=[1, 2, 10], attention_head_dim=[5, 10, 20], use_linear_projection=True,
    addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816)
CONTROL = {key: value for key, value in UNET.items() if key not in ("sample_size", "out_channels", "mid_block_type", "up_block_types")}
CONTROL["conditioning_embedding_out_channels"] = [16, 32, 96, 256]
VAE = dict(
    in_channels=3, out_channels=3, latent_channels=4, sample_size=1024, scaling_factor=0.13025, layers_per_block=2,
    block_out_channels=[128, 256, 512, 512], norm_num_groups=32, act_fn="silu",
    down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4)


def text(width, layers, act):
    return dict(vocab_size=49408, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
                num_attention_heads=width // 64, max_position_embeddings=77, hidden_act=act, layer_norm_eps=1e-5,
                projection_dim=width, bos_token_id=0, pad_token_id=1, eos_token_id=2)


def values(name, shape, seed):
    """The tensor's values in float32; each has a generator of its own."""
    if name.endswith(".bias"):
        return numpy.zeros(shape, numpy.float32)
    if len(shape) == 1:
        return numpy.ones(shape, numpy.float32)
    key = int.from_bytes(hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=16).digest(), "little")
    inputs = 400 if "embedding" in name and "embedder" not in name else int(numpy.prod(shape[1:]))  # CLIP's deviation is 0.05
    gain = BRANCH_GAIN if name.endswith(BRANCH_ENDS) else 1.0
    drawn = numpy.random.Generator(numpy.random.SFC64(key)).standard_normal(shape, dtype=numpy.float32)
    drawn *= gain / inputs**0.5
    return drawn


def write(folder, file, config, model, dtype, seed):
    """Config and tensors of a model whose parameters are on the meta device; returns how many parameters that is."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items() if not name.endswith("position_ids")}
    code, header, offset = {"float16": "F16", "float32": "F32"}[numpy.dtype(dtype).name], {}, 0
    for name, shape in shapes.items():
        size = int(numpy.prod(shape)) * numpy.dtype(dtype).itemsize
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text_header = json.dumps(header, separators=(",", ":")).encode()
    text_header += b" " * (-len(text_header) % 8)
    with open(folder / file, "wb") as out:
        out.write(struct.pack("<Q", len(text_header)) + text_header)
        for name, shape in shapes.items():
            values(name, shape, seed).astype(dtype).tofile(out)
    return offset // numpy.dtype(dtype).itemsize


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--dtype", default="float16", choices=("float16", "float32"))
    parser.add_argument("--text-layers", type=int, default=32, help="at most so many in each text encoder; 3 or more")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--control", type=pathlib.Path, help="folder for a ControlNet")
    args = parser.parse_args()
    text_1 = text(768, min(12, args.text_layers), "quick_gelu")
    text_2 = text(1280, min(32, args.text_layers), "gelu")
    with torch.device("meta"):
        networks = [("unet", "diffusion_pytorch_model.safetensors", dict(_class_name="UNet2DConditionModel", **UNET),
                     UNet2DConditionModel(**UNET)),
                    ("vae", "diffusion_pytorch_model.safetensors", dict(_class_name="AutoencoderKL", **VAE),
                     AutoencoderKL(**VAE)),
                    ("text_encoder", "model.safetensors", text_1, CLIPTextModel(CLIPTextConfig(**text_1))),
                    ("text_encoder_2", "model.safetensors", text_2, CLIPTextModelWithProjection(CLIPTextConfig(**text_2)))]
        if args.control:
            networks.append((args.control, "diffusion_pytorch_model.safetensors", dict(_class_name="ControlNetModel", **CONTROL),
                             ControlNetModel(**CONTROL)))
    for name, file, config, model in networks:
        count = write(args.out / name, file, config, model, getattr(numpy, args.dtype), args.seed)
        print(f"{name}: {count:,} parameters", flush=True)
    for name in ("tokenizer", "tokenizer_2", "scheduler"):
        shutil.copytree(GOLDEN / name, args.out / name, dirs_exist_ok=True)
    shutil.copy(GOLDEN / "model_index.json", args.out)


if __name__ == "__main__":
    main()
