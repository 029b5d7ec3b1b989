"""How well the ControlNet puts shapes where its outlines are: measure_controlnet.py OUT. For 64 held-out captions and as
many outlines at places that the captions do not say, the mean share of the union of painted and wanted shapes that both cover,
with the net and without it, how many objects have their colours, and how many of the pairs of different objects have both."""
import os
import random
import sys

import numpy as np
import torch
from diffusers import ControlNetModel, StableDiffusionXLControlNetPipeline, StableDiffusionXLPipeline
from PIL import Image

from scene_reader import colours, overlap
from sheets import paint
from world import caption, draw_scene, outlines, placed_anywhere

PICTURES, BATCH, SEED = 64, 16, 400


def measure(name, pictures, things):
    overlaps = [overlap(p, t) for p, t in zip(pictures, things)]
    seen = [[c == colour for c, (colour, *_) in zip(colours(p, t), t)] for p, t in zip(pictures, things)]
    pairs = [all(s) for s, t in zip(seen, things) if len(t) == 2 and t[0][:2] != t[1][:2]]
    seen = sum(seen, [])
    print(f"{name}: intersection over union {np.mean(overlaps):.3f}, least {min(overlaps):.3f}, {np.mean(np.array(overlaps) > 0.8):.0%} "
          f"above 0.8; {np.mean(seen):.0%} of {len(seen)} objects have their colour, {sum(pairs)} of {len(pairs)} pairs both", flush=True)


def main(out):
    r = random.Random(9)
    scenes = [draw_scene(r, test=True) for _ in range(PICTURES)]
    texts = [caption(scene, r) for scene in scenes]
    things = [placed_anywhere(scene, r) for scene in scenes]
    hints = [Image.fromarray(outlines(t)).convert("RGB") for t in things]
    plain = StableDiffusionXLPipeline.from_pretrained(out, torch_dtype=torch.float32)
    net = ControlNetModel.from_pretrained(os.path.join(out, "controls", "outlines"), torch_dtype=torch.float32)
    controlled = StableDiffusionXLControlNetPipeline.from_pipe(plain, controlnet=net)
    for name, pipe in (("without", plain), ("with", controlled)):
        pipe.set_progress_bar_config(disable=True)
        pictures = []
        for n in range(0, PICTURES, BATCH):
            more = dict(image=hints[n:n + BATCH]) if pipe is controlled else {}
            pictures += [np.asarray(p) for p in paint(pipe, texts[n:n + BATCH], SEED + n, **more)]
        measure(name, pictures, things)
    rows = [np.concatenate([np.concatenate([np.asarray(hints[n]), pictures[n]]) for n in range(m, m + 8)], 1) for m in range(0, 32, 8)]
    Image.fromarray(np.concatenate(rows)).save(os.path.join(out, "outlines.png"))


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))
    main(sys.argv[1])
