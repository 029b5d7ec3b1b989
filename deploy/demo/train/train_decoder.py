"""The VAE's decoder alone, for crisp edges: train_decoder.py OUT STEPS. The encoder stays, so latents, UNet and LoRAs stay valid."""
import os
import random
import sys

import torch
from diffusers import AutoencoderKL

import parallel
from train_vae import pictures, reconstruction_quality

PICTURES, NOISE, RATE = 3000, 0.1, 1.5e-3


def run(rank, out, steps):
    r = random.Random(70 + rank)
    torch.manual_seed(70 + rank)
    folder = os.path.join(out, "vae")
    vae = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32)
    data = pictures(r, PICTURES)
    with torch.no_grad():
        latents = torch.cat([vae.encode(b.float() / 127.5 - 1).latent_dist.mean for b in data.split(8)])
    decoder = torch.nn.ModuleList([vae.post_quant_conv, vae.decoder])
    vae.encoder.requires_grad_(False)

    def loss_of(progress):
        crop, batch = (8, 6) if progress < 0.6 else (16, 2)
        wanted, seen = [], []
        for _ in range(batch):
            i, u, v = r.randrange(len(data)), r.randrange(17 - crop), r.randrange(17 - crop)
            wanted.append(data[i, :, 8 * v:8 * (v + crop), 8 * u:8 * (u + crop)])
            seen.append(latents[i, :, v:v + crop, u:u + crop])
        x, z = torch.stack(wanted).float() / 127.5 - 1, torch.stack(seen)
        with parallel.bfloat16(progress < 0.6):
            y = vae.decode(z + NOISE * torch.randn_like(z)).sample
        e = y.float() - x
        return e.abs().mean() + (e[..., 1:] - e[..., :-1]).abs().mean() + (e[..., 1:, :] - e[..., :-1, :]).abs().mean()

    before = reconstruction_quality(vae) if rank == 0 else 0
    parallel.train(rank, list(decoder.parameters()), loss_of, steps, RATE, os.path.join(out, "decoder.checkpoint"), 0.995)
    if rank == 0:
        vae.half()
        print(f"decoder: PSNR of unseen pictures {before:.1f} -> {reconstruction_quality(vae.float()):.1f} dB", flush=True)
        vae.half().save_pretrained(folder)


if __name__ == "__main__":
    parallel.spawn(run, sys.argv[1], int(sys.argv[2]))
