"""Writes tests/golden/scheduler_configs: runs of diffusers' schedulers under many scheduler configs.

    python make_scheduler_configs.py [--out DIR]

Made with torch 2.11.0 and diffusers 0.42.1. Each run is Class.from_config(fixture's scheduler_config.json, **changed) with the fake model
of `schedulers`, and with one fixed list of noise tensors in place of a generator.
"""

import argparse
import importlib
import json
import math
import os

import diffusers
import torch
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.dirname(HERE)
STEPS = (1, 2, 4, 8, 30)
SAMPLERS = {
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "lcm": ("LCMScheduler", {}),
}
SPACINGS = ("linspace", "leading", "trailing")
SIGMAS = {"": {}, "_karras": {"use_karras_sigmas": True}, "_exponential": {"use_exponential_sigmas": True}}
VARIANTS = {spacing + name: {"timestep_spacing": spacing, **sigmas} for spacing in SPACINGS for name, sigmas in SIGMAS.items()}
VARIANTS |= {f"{spacing}_{kind}": {"timestep_spacing": spacing, "prediction_type": kind}
             for spacing in SPACINGS for kind in ("v_prediction", "sample")}
VARIANTS |= {
    "zero_snr": {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    "zero_snr_linspace": {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "linspace"},
    "final_sigma_min": {"final_sigmas_type": "sigma_min"},
    "offset_0": {"steps_offset": 0},
    "offset_7": {"steps_offset": 7},
    "linear_betas": {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
    "cosine_betas": {"beta_schedule": "squaredcos_cap_v2"},
    "trained_betas": {"trained_betas": [round(0.005 + 0.001 * i, 3) for i in range(60)], "num_train_timesteps": 60},
    "fewer_timesteps": {"num_train_timesteps": 500},
    "alpha_to_one": {"set_alpha_to_one": True},
    "clip_sample": {"clip_sample": True, "clip_sample_range": 0.5},
    "sigma_ends": {"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 10.0},
}
MODULES = ("euler_discrete", "euler_ancestral_discrete", "lcm", "dpmsolver_multistep", "ddim")


def run(scheduler, steps, start, noise):
    """Timesteps and the last latents; None where the reference cannot do this."""
    draws = iter(noise)
    for name in MODULES:
        importlib.import_module("diffusers.schedulers.scheduling_" + name).randn_tensor = lambda *args, **kwargs: next(draws)[None]
    try:
        scheduler.set_timesteps(steps)
        x = start * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            out = 0.1 * scheduler.scale_model_input(x, t) + math.sin(float(t) / 1000.0)
            x = scheduler.step(out, t, x, return_dict=False)[0]
    except (ValueError, NotImplementedError, IndexError, AttributeError) as error:
        return None, f"{type(error).__name__}: {str(error)[:100]}"
    if not torch.isfinite(x).all():
        return None, "not finite"
    return torch.cat([scheduler.timesteps.to(torch.float64), x.flatten().to(torch.float64)]), ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=os.path.join(GOLDEN, "scheduler_configs"))
    out = parser.parse_args().out
    with open(os.path.join(GOLDEN, "pipeline", "scheduler", "scheduler_config.json")) as file:
        base = json.load(file)
    generator = torch.Generator().manual_seed(7)
    start = torch.randn(1, 1, 2, 2, generator=generator)
    noise = torch.randn(30, 1, 2, 2, generator=generator)
    tensors, refused = {"start": start, "noise": noise}, {}
    for sampler, (cls, fixed) in SAMPLERS.items():
        for variant, changed in VARIANTS.items():
            for steps in STEPS:
                try:
                    scheduler = getattr(diffusers, cls).from_config(base, **(changed | fixed))
                except (ValueError, NotImplementedError) as error:
                    refused[f"{sampler}/{variant}/{steps}"] = f"{type(error).__name__}: {str(error)[:100]}"
                    continue
                result, error = run(scheduler, steps, start, noise)
                if result is None:
                    refused[f"{sampler}/{variant}/{steps}"] = error
                else:
                    tensors[f"{sampler}/{variant}/{steps}"] = result.to(torch.float32)
    os.makedirs(out, exist_ok=True)
    save_file(tensors, os.path.join(out, "runs.safetensors"))
    manifest = {
        "about": "Timesteps and last latents of samplers under many scheduler configs, with a fake model.",
        "reference": f"diffusers {diffusers.__version__}, torch {torch.__version__}",
        "notes": [
            "runs.safetensors: SAMPLER/VARIANT/STEPS is [timesteps ..., the 4 values of the last latents]; start and noise serve all.",
            "Each is Class.from_config(scheduler/scheduler_config.json, **changed); the fake model is that of `schedulers`.",
            "Heun's timesteps are its 2 N - 1 evaluations.",
        ],
        "variants": VARIANTS,
        "refused_by_the_reference": refused,
        "tolerance": {"timesteps": "exact", "latents": {"relative_to_largest": 3e-5}},
    }
    with open(os.path.join(out, "manifest.json"), "w") as file:
        lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in manifest.items()]
        file.write("{\n" + ",\n".join(lines) + "\n}\n")
    print(len(tensors) - 2, "runs,", len(refused), "refused")


if __name__ == "__main__":
    main()
