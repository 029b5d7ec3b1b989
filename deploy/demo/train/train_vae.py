"""The VAE (f8, 4 latent channels): train_vae.py OUT STEPS. With fixed noise on the latents in place of a learned posterior."""
import json
import os
import random
import sys

import numpy as np
import torch
from diffusers import AutoencoderKL

import parallel
from world import STYLES, draw, draw_scene

PICTURES, NOISE, RATE = 3000, 0.1, 2e-3
CHANNELS = [16, 32, 64, 64]
TEMPLATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "model")


def initialise(vae):
    """PyTorch's default convolutions shrink the signal by sqrt(3) each, so that colours drown: undo that; residual branches start small."""
    for name, module in vae.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data *= 3 ** 0.5 * (0.3 if name.endswith("conv2") else 1.0)
            module.bias.data.zero_()


def pictures(r, count):
    drawn = [draw(draw_scene(r), r, r.choice(("", "", "", "") + STYLES), r.choice((0.5, 1.0))) for _ in range(count)]
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2)


@torch.no_grad()
def reconstruction_quality(vae):
    """PSNR in dB of 64 pictures that no phase trains on."""
    test = pictures(random.Random(99), 64).float() / 127.5 - 1
    again = vae.decode(vae.encode(test).latent_dist.mean).sample.clamp(-1, 1)
    return -10 * ((again - test) / 2).pow(2).mean().log10().item()


def run(rank, out, steps):
    torch.manual_seed(1)  # equal weights in both processes
    r = random.Random(10 + rank)
    with open(os.path.join(TEMPLATE, "vae", "config.json")) as file:
        config = {k: v for k, v in json.load(file).items() if not k.startswith("_")}
    vae = AutoencoderKL.from_config(dict(config, scaling_factor=1.0, block_out_channels=CHANNELS))
    initialise(vae)
    torch.manual_seed(20 + rank)
    data = pictures(r, PICTURES)

    def loss_of(progress):
        # Latent pixels of the crop, batch: small crops first, whole pictures last.
        crop, batch = (4, 12) if progress < 0.5 else (8, 5) if progress < 0.85 else (16, 2)
        crops = []
        for _ in range(batch):
            i, u, v = r.randrange(len(data)), r.randrange(17 - crop), r.randrange(17 - crop)
            crops.append(data[i, :, 8 * v:8 * (v + crop), 8 * u:8 * (u + crop)])
        x = torch.stack(crops).float() / 127.5 - 1
        with parallel.bfloat16(progress < 0.7):
            z = vae.encode(x).latent_dist.mean
            y = vae.decode(z + NOISE * torch.randn_like(z)).sample
        e = y.float() - x
        edges = (e[..., 1:] - e[..., :-1]).abs().mean() + (e[..., 1:, :] - e[..., :-1, :]).abs().mean()
        return e.abs().mean() + e.pow(2).mean() * (1 - progress) + 0.5 * edges + 1e-3 * z.float().pow(2).mean()

    # The encoder's half that would be the posterior's variance has no gradient.
    parallel.train(rank, list(vae.parameters()), loss_of, steps, RATE, os.path.join(out, "vae.checkpoint"), 0.99)
    if rank:
        return
    vae = vae.half().float()
    print(f"vae: PSNR of unseen pictures {reconstruction_quality(vae):.1f} dB", flush=True)
    with torch.no_grad():
        z = vae.encode(data[:256].float() / 127.5 - 1).latent_dist.mean
    vae.register_to_config(scaling_factor=round(float(1 / z.std()), 5))
    vae.half().save_pretrained(os.path.join(out, "vae"))


if __name__ == "__main__":
    parallel.spawn(run, sys.argv[1], int(sys.argv[2]))
