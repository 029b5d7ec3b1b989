"""Writes tests/golden/textual_inversion: embedding files, and what diffusers encodes with them.

    python make_textual_inversion.py [--out DIR]

Made with torch 2.11.0, transformers 5.23.0 and diffusers 0.42.1, on the fixture pipeline in float32. Explicit change: the pooled state is
taken at the end token. With the eos_token_id of 2 that SDXL's configs carry, transformers takes the largest id, which is an added token's.
"""

import argparse
import json
import os

import diffusers
import torch
import transformers
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import save_file

GOLDEN = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WORDS = "cat red house " * 24  # 72 tokens
CASES = [
    {"embeddings": {"single": "<s0>"}, "prompt": "a photo of <s0> on grass", "negative_prompt": ""},
    {"embeddings": {"single": "<s0>"}, "prompt": "photo:<s0>,cat<s0>", "negative_prompt": "<s0> bad", "clip_skip": 1},
    {"embeddings": {"single": "zneon"}, "prompt": "A ZNEON sign, ZNeon", "negative_prompt": "bad"},
    {"embeddings": {"multi": "zink"}, "prompt": "a cat, zink, sharp", "negative_prompt": "blurry"},
    {"embeddings": {"single": "<s0>", "multi": "zink"}, "prompt": "zink <s0> zink", "prompt_2": "a <s0> only", "negative_prompt": "zink",
     "negative_prompt_2": "nothing"},
    {"embeddings": {"multi": "zink"}, "prompt": WORDS + "zink cat", "negative_prompt": WORDS + "red zink"},
    {"embeddings": {"multi": "zink"}, "prompt": WORDS + WORDS + "zink", "negative_prompt": "bad"},
]


def encode(files, case):
    pipe = StableDiffusionXLPipeline.from_pretrained(os.path.join(GOLDEN, "pipeline"), dtype=torch.float32, add_watermarker=False)
    for name, token in case["embeddings"].items():
        pipe.load_textual_inversion(files[name]["clip_l"], token=token, text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)
        pipe.load_textual_inversion(files[name]["clip_g"], token=token, text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2)
    for encoder in (pipe.text_encoder, pipe.text_encoder_2):
        for module in encoder.modules():
            if hasattr(module, "eos_token_id"):
                module.eos_token_id = 49407
    arguments = {key: value for key, value in case.items() if key != "embeddings"}
    with torch.no_grad():
        values = pipe.encode_prompt(**arguments, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True)
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    return dict(zip(names, values))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=os.path.join(GOLDEN, "textual_inversion"))
    out = parser.parse_args().out
    os.makedirs(out, exist_ok=True)
    pipe = StableDiffusionXLPipeline.from_pretrained(os.path.join(GOLDEN, "pipeline"), dtype=torch.float32, add_watermarker=False)
    widths = [e.get_input_embeddings().weight.shape[1] for e in (pipe.text_encoder, pipe.text_encoder_2)]
    scale = pipe.text_encoder_2.get_input_embeddings().weight.std()
    generator = torch.Generator().manual_seed(11)
    files = {}
    for name, count in (("single", 1), ("multi", 3)):
        draws = [2 * scale * torch.randn(count, width, generator=generator) for width in widths]
        files[name] = {"clip_l": draws[0], "clip_g": draws[1]}
        save_file(files[name], os.path.join(out, f"{name}.safetensors"))
    cases = []
    for index, case in enumerate(CASES):
        save_file({key: value.contiguous() for key, value in encode(files, case).items()}, os.path.join(out, f"case_{index}.safetensors"))
        cases.append({"name": f"case_{index}", "file": f"case_{index}.safetensors", **case})
    lines = [" " + json.dumps(case) for case in cases]
    with open(os.path.join(out, "manifest.json"), "w") as file:
        file.write(json.dumps({
            "about": "Prompts with textual-inversion embeddings (NAME.safetensors: its token) -> encode_prompt of diffusers.",
            "reference": f"diffusers {diffusers.__version__}, transformers {transformers.__version__}, torch {torch.__version__}",
            "explicit_change": "pooled at the end token, not at the largest id",
            "tolerance": {"absolute": 1e-4},
        }, indent=1)[:-2] + ',\n "cases": [\n' + ",\n".join(lines) + "\n ]\n}\n")


if __name__ == "__main__":
    main()
