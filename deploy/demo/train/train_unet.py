"""The UNet, on latents and text features computed once: train_unet.py OUT STEPS. SDXL's schedule and eps prediction."""
import copy
import json
import os
import random
import sys

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

import parallel
from train_text import TEMPLATE, filler_words, ids_of, with_filler
from world import SIZE, caption, draw, draw_scene

SCENES, CAPTIONS, BATCH, RATE, OFFSET = 6000, 2, 16, 1.5e-3, 0.2  # SCENES and BATCH of each process
CHANNELS, HEADS = [32, 64, 112], [2, 4, 7]


class World:
    """The frozen parts: VAE encoder, text encoders, noise schedule, and the loss."""

    def __init__(self, out):
        self.vae = AutoencoderKL.from_pretrained(os.path.join(out, "vae"), torch_dtype=torch.float32).eval()
        self.one = CLIPTextModel.from_pretrained(os.path.join(out, "text_encoder"), torch_dtype=torch.float32).eval()
        self.two = CLIPTextModelWithProjection.from_pretrained(os.path.join(out, "text_encoder_2"), torch_dtype=torch.float32).eval()
        self.tokenizers = [CLIPTokenizer.from_pretrained(os.path.join(TEMPLATE, n)) for n in ("tokenizer", "tokenizer_2")]
        for model in (self.vae, self.one, self.two):
            model.requires_grad_(False)
        self.words = filler_words(self.tokenizers[0])
        self.alphas = DDPMScheduler(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod

    @torch.no_grad()
    def latents(self, pictures):
        x = torch.from_numpy(np.stack([*pictures])).permute(0, 3, 1, 2)
        parts = [self.vae.encode(b.float() / 127.5 - 1).latent_dist.mean for b in x.split(8)]
        return torch.cat(parts) * self.vae.config.scaling_factor

    def text(self, texts):
        """Hidden [n, 77, 48] and pooled [n, 32], with a gradient where the encoders have adapters."""
        first = self.one(ids_of(self.tokenizers[0], texts), output_hidden_states=True)
        second = self.two(ids_of(self.tokenizers[1], texts), output_hidden_states=True)
        return torch.cat([first.hidden_states[-2], second.hidden_states[-2]], 2), second.text_embeds

    @torch.no_grad()
    def all_text(self, texts):
        parts = [self.text(texts[n:n + 64]) for n in range(0, len(texts), 64)]
        return torch.cat([p[0] for p in parts]).half(), torch.cat([p[1] for p in parts]).half()

    def loss(self, unet, latents, hidden, pooled, r):
        """Squared error of eps, weighted min(snr, 5)/snr and up to 12 times more at low SNR, where backgrounds are decided; noise
        with an offset, for SDXL's schedule leaves the mean readable to its last step."""
        n = len(latents)
        t = ((torch.arange(n) + torch.rand(n)) / n * 1000).long()
        noise = torch.randn_like(latents) + OFFSET * torch.randn(n, 4, 1, 1)
        alpha = self.alphas[t].view(-1, 1, 1, 1)
        snr = self.alphas[t] / (1 - self.alphas[t])
        weight = snr.clamp(max=5) / snr * (snr ** -0.5).clamp(1, 12)
        drop = torch.rand(n)  # captions zeroed, for guidance
        hidden = torch.where((drop < 0.1).view(-1, 1, 1), 0.0, hidden)
        pooled = torch.where((drop < 0.1).view(-1, 1), 0.0, pooled)
        sizes = [[SIZE, SIZE, 0, 0, SIZE, SIZE] if r.random() < 0.7 else
                 [r.randrange(64, 1024), r.randrange(64, 1024), 0, 0, SIZE, SIZE] for _ in range(n)]
        eps = unet(alpha.sqrt() * latents + (1 - alpha).sqrt() * noise, t, hidden,
                   added_cond_kwargs=dict(text_embeds=pooled, time_ids=torch.tensor(sizes).float())).sample
        return (weight.view(-1, 1, 1, 1) * (eps - noise).pow(2)).mean()


def run(rank, out, steps):
    r = random.Random(30 + rank)
    torch.manual_seed(3)  # equal weights in both processes
    with open(os.path.join(TEMPLATE, "unet", "config.json")) as file:
        config = {k: v for k, v in json.load(file).items() if not k.startswith("_")}
    unet = UNet2DConditionModel.from_config(dict(config, block_out_channels=CHANNELS, attention_head_dim=HEADS))
    world = World(out)
    torch.manual_seed(40 + rank)
    scenes = [draw_scene(r) for _ in range(SCENES)]
    latents = world.latents(draw(s, r) for s in scenes)
    hidden, pooled = world.all_text([with_filler(caption(s, r), r, world.words) for _ in range(CAPTIONS) for s in scenes])

    def loss_of(progress):
        del progress
        i = torch.randint(SCENES, (BATCH,))
        j = i + SCENES * torch.randint(CAPTIONS, (BATCH,))
        return world.loss(unet, latents[i], hidden[j].float(), pooled[j].float(), r)

    parallel.train(rank, list(unet.parameters()), loss_of, steps, RATE, os.path.join(out, "unet.checkpoint"),
                   save=lambda: copy.deepcopy(unet).half().save_pretrained(os.path.join(out, "unet")))


if __name__ == "__main__":
    parallel.spawn(run, sys.argv[1], int(sys.argv[2]))
