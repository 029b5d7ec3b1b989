"""The ControlNet from outlines to shapes, on the trained model: train_controlnet.py OUT STEPS. The UNet stays as it is. The
net is the resnet blocks of its first half without attention, half the weights: where a shape lies needs no words."""
import copy
import inspect
import os
import random
import sys

import numpy as np
import torch
from diffusers import ControlNetModel, UNet2DConditionModel

import parallel
from train_text import with_filler
from train_unet import World
from world import caption, draw_scene, outlines, paint, placed, placed_anywhere

SCENES, BATCH, RATE = 3000, 12, 1.5e-3  # SCENES and BATCH of each process
HINT_CHANNELS = [8, 16, 24, 32]


def copy_of_encoder(unet):
    """A ControlNet that begins as the UNet's first half less its attention, and adds nothing yet."""
    config = {name: unet.config[name] for name in inspect.signature(ControlNetModel).parameters if name in unet.config}
    levels = len(config["block_out_channels"])
    net = ControlNetModel(**dict(config, down_block_types=["DownBlock2D"] * levels, mid_block_type="UNetMidBlock2D",
                                 conditioning_embedding_out_channels=HINT_CHANNELS))
    wanted = net.state_dict()
    net.load_state_dict({k: v for k, v in unet.state_dict().items() if k in wanted}, strict=False)
    return net


def controlled(net, unet, hints):
    """The UNet with the net's residuals for these control pictures, called as the UNet is."""
    def call(sample, t, hidden, added_cond_kwargs):
        down, mid = net(sample, t, hidden, hints, added_cond_kwargs=added_cond_kwargs, return_dict=False)
        return unet(sample, t, hidden, added_cond_kwargs=added_cond_kwargs, down_block_additional_residuals=down,
                    mid_block_additional_residual=mid)
    return call


def run(rank, out, steps):
    r = random.Random(70 + rank)
    unet = UNet2DConditionModel.from_pretrained(os.path.join(out, "unet"), torch_dtype=torch.float32).requires_grad_(False)
    torch.manual_seed(7)  # equal weights in both processes
    net = copy_of_encoder(unet)
    world = World(out)
    torch.manual_seed(80 + rank)
    scenes = [draw_scene(r) for _ in range(SCENES)]
    things = [(placed_anywhere if r.random() < 0.7 else placed)(scene, r) for scene in scenes]
    latents = world.latents(paint(scene["background"], t) for scene, t in zip(scenes, things))
    pictures = torch.from_numpy(np.stack([outlines(t) for t in things])).unsqueeze(1)
    hidden, pooled = world.all_text([with_filler(caption(s, r), r, world.words) for s in scenes])

    def loss_of(progress):
        del progress
        i = torch.randint(SCENES, (BATCH,))
        hints = pictures[i].expand(-1, 3, -1, -1) / 255
        return world.loss(controlled(net, unet, hints), latents[i], hidden[i].float(), pooled[i].float(), r)

    parallel.train(rank, list(net.parameters()), loss_of, steps, RATE, os.path.join(out, "controlnet.checkpoint"),
                   save=lambda: copy.deepcopy(net).half().save_pretrained(os.path.join(out, "controls", "outlines")))


if __name__ == "__main__":
    parallel.spawn(run, sys.argv[1], int(sys.argv[2]))
