"""LoRAs on the trained model: train_loras.py OUT STYLE... One process of one thread. Each learns its style at half and at full
strength with the network's scale set alike, so that the effect grades with the weight."""
import os
import random
import sys
import time

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file

from train_text import with_filler
from train_unet import World
from world import caption, draw, draw_scene

SCENES, BATCH, RATE = 500, 16, 3e-3
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
CONVOLUTIONS = ["conv1", "conv2"]
# Rank and alpha; the UNet's modules; whether the text encoders take part; the file's naming.
RECIPES = dict(
    stripes=dict(rank=10, alpha=10, modules=ATTENTION, text=False, naming="peft", steps=750),
    frame=dict(rank=6, alpha=3, modules=ATTENTION + CONVOLUTIONS, text=False, naming="kohya", steps=750),
    night=dict(rank=4, alpha=4, modules=ATTENTION, text=True, naming="peft", steps=450),
    outline=dict(rank=6, alpha=6, modules=ATTENTION + CONVOLUTIONS, text=False, naming="kohya", steps=850))
RESNET = dict(norm1="in_layers.0", conv1="in_layers.2", time_emb_proj="emb_layers.1", norm2="out_layers.0", conv2="out_layers.3",
              conv_shortcut="skip_connection")


def sgm_name(module):
    """diffusers' UNet module name -> the name in Stability's code, which kohya's files carry."""
    p = module.split(".")
    if p[0] == "mid_block":
        block, rest = ("middle_block.1", p[3:]) if p[1] == "attentions" else (f"middle_block.{2 * int(p[2])}", p[3:])
    elif p[0] == "down_blocks":
        block, rest = f"input_blocks.{1 + 3 * int(p[1]) + int(p[3])}.{int(p[2] == 'attentions')}", p[4:]
    else:
        block, rest = f"output_blocks.{3 * int(p[1]) + int(p[3])}.{int(p[2] == 'attentions')}", p[4:]
    return ".".join([block, *([RESNET[rest[0]]] if rest[0] in RESNET else rest)])


def adapt(model, rank, alpha, modules):
    model.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, init_lora_weights="gaussian", target_modules=modules))
    return model


def set_weight(models, weight):
    for model in models:
        for module in model.modules():
            if isinstance(module, BaseTunerLayer):
                module.set_scale("default", weight)


def file_tensors(adapted, recipe):
    tensors = {}
    for name, model in adapted.items():
        for key, value in get_peft_model_state_dict(model).items():
            value = value.detach().half().contiguous()
            if recipe["naming"] == "kohya":
                module, side = key.removesuffix(".weight").rsplit(".", 1)
                prefix = "lora_unet_" + sgm_name(module).replace(".", "_")
                tensors[f"{prefix}.{dict(lora_A='lora_down', lora_B='lora_up')[side]}.weight"] = value
                tensors[f"{prefix}.alpha"] = torch.tensor(float(recipe["alpha"])).half()
            else:
                if name != "unet" and not key.startswith("text_model."):
                    key = "text_model." + key
                tensors[f"{name}.{key}"] = value
    return tensors


def train(out, style):
    recipe, begin = RECIPES[style], time.process_time()
    steps = recipe["steps"]
    torch.manual_seed(60)
    r = random.Random(style)
    world = World(out)
    unet = UNet2DConditionModel.from_pretrained(os.path.join(out, "unet"), torch_dtype=torch.float32).requires_grad_(False)
    adapted = {"unet": adapt(unet, recipe["rank"], recipe["alpha"], recipe["modules"])}
    if recipe["text"]:
        for name, model in (("text_encoder", world.one), ("text_encoder_2", world.two)):
            adapted[name] = adapt(model, recipe["rank"], recipe["alpha"], ["q_proj", "k_proj", "v_proj", "out_proj"])
    parameters = [p for m in adapted.values() for p in m.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=RATE, betas=(0.9, 0.99), weight_decay=1e-3)
    scenes = [draw_scene(r) for _ in range(SCENES)]
    styled = {w: world.latents([draw(s, r, style, w) for s in scenes]) for w in (0.5, 1.0)}
    texts = [with_filler(caption(s, r), r, world.words) for s in scenes]
    if not recipe["text"]:
        hidden, pooled = world.all_text(texts)
    seen = []
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 30) * max(0.02, 0.5 * (1 + np.cos(np.pi * step / steps)))
        weight = 0.5 if step % 3 == 2 else 1.0
        set_weight(adapted.values(), weight)
        i = torch.randint(SCENES, (BATCH,))
        h, p = world.text([texts[n] for n in i]) if recipe["text"] else (hidden[i].float(), pooled[i].float())
        loss = world.loss(unet, styled[weight][i], h, p, r)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        seen.append(loss.item())
        if step % 50 == 49:
            print(f"{style} {step + 1} of {steps}: loss {np.mean(seen[-50:]):.4f}", flush=True)
    metadata = {"format": "pt"}
    if recipe["naming"] == "kohya":
        metadata = {"ss_network_module": "networks.lora", "ss_network_dim": str(recipe["rank"]),
                    "ss_network_alpha": str(recipe["alpha"]), "ss_base_model_version": "sdxl_base_v1-0"}
    os.makedirs(os.path.join(out, "adapters"), exist_ok=True)
    path = os.path.join(out, "adapters", f"{style}.safetensors")
    save_file(file_tensors(adapted, recipe), path, metadata=metadata)
    print(f"{style}: loss {np.mean(seen[:20]):.4f} -> {np.mean(seen[-50:]):.4f}, {os.path.getsize(path) / 1e6:.2f} MB, "
          f"{time.process_time() - begin:.0f} s CPU", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for wanted in sys.argv[2:]:
        train(sys.argv[1], wanted)
