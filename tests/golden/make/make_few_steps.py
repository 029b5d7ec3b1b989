"""Writes tests/golden/few_steps: runs of 1 to 8 steps with the settings of Turbo, Lightning and LCM models, on the fixture pipeline.

    python make_few_steps.py [--out DIR]

Made with torch 2.11.0 and diffusers 0.42.1, in float32 with seed 42. Each case was run twice, with and without oneDNN; the manifest has the
difference.
"""

import argparse
import json
import os

import diffusers
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import save_file

GOLDEN = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TRAILING = {"timestep_spacing": "trailing"}
SAMPLE = {"prediction_type": "sample"}
CASES = {}
for steps in (1, 2, 4):
    CASES[f"turbo_{steps}"] = ("SAMPLER_EULER_ANCESTRAL", "EulerAncestralDiscreteScheduler", TRAILING, {}, steps, 0.0)
for steps in (2, 4, 8):
    CASES[f"lightning_{steps}"] = ("SAMPLER_EULER", "EulerDiscreteScheduler", TRAILING, {}, steps, 0.0)
CASES["lightning_1_predicts_the_sample"] = ("SAMPLER_EULER", "EulerDiscreteScheduler", TRAILING, SAMPLE, 1, 0.0)
CASES["euler_1"] = ("SAMPLER_EULER", "EulerDiscreteScheduler", TRAILING, {}, 1, 1.0)
for steps in (1, 2, 8):
    CASES[f"lcm_{steps}"] = ("SAMPLER_LCM", "LCMScheduler", {}, {}, steps, 1.0)
CASES["lcm_4_with_guidance"] = ("SAMPLER_LCM", "LCMScheduler", {}, {}, 4, 1.5)
for name, cls in (("heun", "HeunDiscreteScheduler"), ("ddim", "DDIMScheduler"), ("dpmpp_2m", "DPMSolverMultistepScheduler"),
                  ("unipc", "UniPCMultistepScheduler")):
    for steps in (1, 3):
        CASES[f"{name}_{steps}"] = ("SAMPLER_" + name.upper(), cls, TRAILING, {}, steps, 1.0)


def run(pipe, cls, changed, steps, guidance):
    pipe.scheduler = getattr(diffusers, cls).from_config(pipe.base_config, **changed)
    latents = pipe("a photo of a cat", num_inference_steps=steps, guidance_scale=guidance, height=64, width=64,
                   generator=torch.Generator().manual_seed(42), output_type="latent").images
    return latents.clone()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=os.path.join(GOLDEN, "few_steps"))
    out = parser.parse_args().out
    os.makedirs(out, exist_ok=True)
    pipe = StableDiffusionXLPipeline.from_pretrained(os.path.join(GOLDEN, "pipeline"), dtype=torch.float32, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.base_config = dict(pipe.scheduler.config)
    tensors, cases = {}, []
    for name, (sampler, cls, changed, checkpoint, steps, guidance) in CASES.items():
        tensors[name] = run(pipe, cls, {**changed, **checkpoint}, steps, guidance)
        with torch.backends.mkldnn.flags(enabled=False):
            other = run(pipe, cls, {**changed, **checkpoint}, steps, guidance)
        cases.append({"name": name, "sampler": sampler, "trailing": changed is TRAILING, "checkpoint": checkpoint, "steps": steps,
                      "guidance_scale": guidance, "largest": round(float(tensors[name].abs().max()), 3),
                      "difference": float((tensors[name] - other).abs().max())})
        assert torch.isfinite(tensors[name]).all(), name
    save_file(tensors, os.path.join(out, "latents.safetensors"))
    lines = ",\n".join("  " + json.dumps(case) for case in cases)
    with open(os.path.join(out, "manifest.json"), "w") as file:
        file.write('{\n "about": "Last latents of `a photo of a cat`, 64x64, seed 42, no negative prompt, at 1 to 8 steps.",\n'
                   f' "reference": "diffusers {diffusers.__version__}, torch {torch.__version__}",\n'
                   ' "notes": ["checkpoint: what the checkpoint\'s scheduler_config.json has otherwise"],\n'
                   ' "tolerance": {"relative_to_largest": 5e-5},\n "cases": [\n' + lines + "\n ]\n}\n")


if __name__ == "__main__":
    main()
