"""What the stock StableDiffusionXLPipeline paints: sheets.py OUT [SEED...] writes OUT/prompts.png and OUT/loras.png for the held-out
prompts of the first seed, and prints how many pictures are right for each seed."""
import os
import sys

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image, ImageDraw

from scene_reader import expected, read_scene
from world import PAIRS, STYLES, held_out_prompts

STEPS, GUIDANCE = 20, 5.0


def sheet(rows, path):
    """rows of (picture, text)"""
    page = Image.new("RGB", (136 * max(map(len, rows)), 164 * len(rows)), "white")
    pen = ImageDraw.Draw(page)
    for y, row in enumerate(rows):
        for x, (picture, text) in enumerate(row):
            words, lines = text.split(), [""]
            for word in words:
                lines[-1:] = [lines[-1] + " " + word] if len(lines[-1]) + len(word) < 22 else [lines[-1], word]
            page.paste(picture, (136 * x + 4, 164 * y + 4))
            pen.text((136 * x + 4, 164 * y + 132), "\n".join(line.strip() for line in lines), fill="black", spacing=0)
    page.quantize(256, kmeans=2, dither=Image.Dither.NONE).save(path, optimize=True)


def paint(pipe, texts, seed, **more):
    generators = [torch.Generator().manual_seed(seed + n) for n in range(len(texts))]
    return pipe(texts, num_inference_steps=STEPS, guidance_scale=GUIDANCE, height=128, width=128, generator=generators,
                **more).images


def main(out, seeds):
    pipe = StableDiffusionXLPipeline.from_pretrained(out, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    sheets = {}
    for seed in seeds:
        scenes, texts = zip(*held_out_prompts(seed))
        sheets[seed] = pictures = paint(pipe, list(texts), 100)
        wrong = [n for n, (p, s) in enumerate(zip(pictures, scenes)) if read_scene(np.asarray(p)) != expected(s)]
        print(f"prompt seed {seed}: {16 - len(wrong)} of 16 right, {6 - sum(scenes[n]['kind'] in PAIRS for n in wrong)} of 6 pairs",
              *(f"{texts[n]}: {read_scene(np.asarray(pictures[n]))}" for n in wrong), sep="\n  ", flush=True)
    texts, base = [text for _, text in held_out_prompts(seeds[0])], sheets[seeds[0]]
    sheet([list(zip(base[n:n + 4], texts[n:n + 4])) for n in range(0, 16, 4)], os.path.join(out, "prompts.png"))

    names = [n for n in STYLES if os.path.exists(os.path.join(out, "adapters", n + ".safetensors"))]
    for name in names:
        pipe.load_lora_weights(os.path.join(out, "adapters"), weight_name=name + ".safetensors", adapter_name=name)
    mixes = [{n: w} for n in names for w in (0.5, 1.0)] + [dict(night=1.0, outline=1.0), dict(frame=1.0, stripes=1.0)]
    rows = [list(zip(base[8:14], texts[8:14]))]
    for mix in mixes if len(names) == len(STYLES) else mixes[:2 * len(names)]:
        pipe.set_adapters(list(mix), list(mix.values()))
        rows.append([(p, " + ".join(f"{k} {v}" for k, v in mix.items())) for p in paint(pipe, texts[8:14], 108)])
    sheet(rows, os.path.join(out, "loras.png"))


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))
    main(sys.argv[1], [int(s) for s in sys.argv[2:]] or [1])
