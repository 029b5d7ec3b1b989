"""Pictures of diffusers' stock pipelines to compare the server with: golden_pictures.py MODEL ADAPTERS CONTROLS OUT."""
import json
import os
import sys

import diffusers
import torch
from diffusers import ControlNetModel, StableDiffusionXLControlNetPipeline, StableDiffusionXLPipeline
from PIL import Image

from world import STYLES, outlines

REQUEST = dict(prompt="a yellow square and a red triangle on a white background", seed=7, steps=20, guidance_scale=5.0)
CASES = {"none": {}, **{name: {name: 1.0} for name in STYLES}, "mix": {"frame": 1.0, "outline": 0.5}}
# The same with the net `outlines` and the control picture outlines.png. No prompt says such places.
CONTROLLED_CASES = {"control": {}, "control_night": {"night": 1.0}}
THINGS = [("yellow", "square", (88, 92), 20), ("red", "triangle", (40, 40), 26)]

if __name__ == "__main__":
    model, adapters, controls, out = sys.argv[1:]
    os.makedirs(out, exist_ok=True)
    hint = Image.fromarray(outlines(THINGS))
    hint.save(os.path.join(out, "outlines.png"))
    plain = StableDiffusionXLPipeline.from_pretrained(model, torch_dtype=torch.float32)
    net = ControlNetModel.from_pretrained(os.path.join(controls, "outlines"), torch_dtype=torch.float32)
    controlled = StableDiffusionXLControlNetPipeline.from_pipe(plain, controlnet=net)
    for name, weights in {**CASES, **CONTROLLED_CASES}.items():
        pipe, more = (controlled, dict(image=hint.convert("RGB"))) if name in CONTROLLED_CASES else (plain, {})
        pipe.set_progress_bar_config(disable=True)
        for adapter in weights:
            pipe.load_lora_weights(adapters, weight_name=adapter + ".safetensors", adapter_name=adapter)
        if weights:
            pipe.set_adapters(list(weights), list(weights.values()))
        picture = pipe(REQUEST["prompt"], num_inference_steps=REQUEST["steps"], guidance_scale=REQUEST["guidance_scale"], height=128,
                       width=128, generator=torch.Generator().manual_seed(REQUEST["seed"]), **more).images[0]
        picture.save(os.path.join(out, name + ".png"))
        pipe.unload_lora_weights()
    manifest = dict(about="The demo model's pictures, 128x128, by diffusers' stock pipelines in float32.",
                    reference=f"diffusers {diffusers.__version__}, torch {torch.__version__.split('+')[0]}", request=REQUEST, cases=CASES,
                    controlled_cases=CONTROLLED_CASES, largest_difference=2)
    with open(os.path.join(out, "manifest.json"), "w") as file:
        json.dump(manifest, file, indent=1)
        file.write("\n")
