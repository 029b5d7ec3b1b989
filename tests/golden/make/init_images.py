"""Makes tests/golden/init_images: image-to-image and inpainting with every sampler, by diffusers, on the tiny checkpoint.

  python init_images.py GOLDEN      GOLDEN is tests/golden; writes GOLDEN/init_images

As make_fixtures.py's cases "image_to_image" and "inpaint" in images/, of which these are further ones: the same pictures,
resized by NEAREST beforehand, and tolerances made the same way. To keep files small each holds the final latents and the image's bytes."""
import os
import sys

import numpy as np
import torch
from PIL import Image
import diffusers
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline, StableDiffusionXLPipeline

from make_fixtures import SCHEDULERS, Folder, measured

golden = sys.argv[1]
torch.set_num_threads(1)
pipe = StableDiffusionXLPipeline.from_pretrained(os.path.join(golden, "pipeline"), dtype=torch.float32, add_watermarker=False)
for part in (pipe.unet, pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
    part.eval().requires_grad_(False)
stock = dict(pipe.scheduler.config)
folder = Folder(golden, "init_images", "Runs of StableDiffusionXLImg2ImgPipeline and StableDiffusionXLInpaintPipeline.", notes=[
    "latents are the scheduler's last output, after the mask; pixels are round(255 * image), [height, width, 3].",
    "init_image.png and mask.png of ../images are resized by NEAREST to width x height first."])
guided = dict(negative_prompt="blurry", guidance_scale=6.0)
unguided = dict(negative_prompt=None, guidance_scale=1.0)
cases = [  # scheduler, inpaint, strength (None: the pipeline's default), steps, size, guidance
    ("euler_ancestral", False, 0.5, 8, (64, 64), guided), ("heun", False, 0.6, 6, (64, 64), guided),
    ("ddim", False, 0.7, 8, (64, 64), guided), ("dpmpp_2m_karras", False, 0.5, 8, (96, 64), guided),
    ("dpmpp_2m_sde", False, 0.6, 6, (64, 64), guided), ("unipc", False, 0.6, 8, (64, 64), guided),
    ("lcm", False, 0.5, 6, (64, 64), unguided), ("euler_trailing", False, 0.75, 4, (64, 96), unguided),
    ("euler", True, None, 6, (96, 64), guided), ("euler_ancestral", True, 0.8, 6, (64, 64), guided),
    ("heun", True, 0.7, 5, (64, 64), guided), ("ddim", True, 1.0, 6, (64, 64), guided),
    ("dpmpp_2m_karras", True, 0.6, 8, (64, 64), guided), ("dpmpp_2m_sde", True, 0.7, 6, (64, 64), guided),
    ("unipc", True, 0.8, 6, (64, 96), guided), ("lcm", True, 0.75, 4, (64, 64), unguided),
    ("lcm", True, 1.0, 4, (64, 64), unguided)]
for number, (scheduler, inpaint, strength, steps, (width, height), guidance) in enumerate(cases):
    cls, changed = SCHEDULERS[scheduler]
    pipe.scheduler = getattr(diffusers, cls).from_config(stock, **changed)
    runner = (StableDiffusionXLInpaintPipeline if inpaint else StableDiffusionXLImg2ImgPipeline)(**pipe.components, add_watermarker=False)
    runner.set_progress_bar_config(disable=True)

    def picture(name):
        return Image.open(os.path.join(golden, "images", name)).resize((width, height), Image.NEAREST)
    call = dict(guidance, prompt="a photo of a cat", num_inference_steps=steps, image=picture("init_image.png"))
    if strength is not None:
        call["strength"] = strength
    if inpaint:
        call.update(mask_image=picture("mask.png"), width=width, height=height)

    def compute():
        last = {}

        def keep(_, step, timestep, values):
            last["latents"] = values["latents"].clone()
            return {}
        image = runner(**call, generator=torch.Generator().manual_seed(42 + number), output_type="pt", callback_on_step_end=keep).images
        return {"latents": last["latents"], "image": image}
    values, tolerances = measured(pipe, compute)
    name = f"{number:02}_{'inpaint' if inpaint else 'image_to_image'}_{scheduler}"
    pixels = torch.from_numpy((values["image"][0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    folder.case(name, kind="inpaint" if inpaint else "image_to_image", scheduler=scheduler, seed=42 + number, adapters=[],
                arguments=dict(guidance, prompt="a photo of a cat", num_inference_steps=steps, width=width, height=height, strength=strength),
                file=folder.save(f"{name}.safetensors", {"latents": values["latents"], "pixels": pixels}), tolerance=tolerances)
    print(name, tolerances["latents"], flush=True)
folder.close()
