#!/usr/bin/env python3
"""The loop of huggingface/peft#1639, with diffusers + PEFT and with ours, on the same model and files, in turn.

  peft_loop.py --model DIR --adapters DIR --bench build/release/bin/adapter_bench --python VENV/bin/python
               [--threads 1] [--blocks 20] [--source disk] [--modes hotswap,unload]

DIR is what make_quarter_model.py writes, and a folder of LoRAs with PEFT's names, all of one rank and on the same layers
(which hotswap needs): make_adapters.py --format lora --rank 16. VENV has what requirements.txt names. An iteration takes
the next file, from its place on disk (page cache) until the first UNet step with it can start, and makes one step (batch 2):

  hotswap   the first file is loaded once; then load_lora_weights(hotswap=True) in place
  unload    load_lora_weights, set_adapters; after the step unload_lora_weights, which is told apart and not counted
  side, merged   ours, beside the weights and into them

In each block every arm makes one iteration, in random order; a block gives the ratios PEFT / ours. Printed: medians, each with its
bootstrap 95 % interval; ratios by processor time too, which others on the machine lengthen less.
"""
import argparse
import pathlib
import random
import sys

from arms import Arm, SERVER, words

TOKENS, WARM_UP = 77, 3


def worker(args):
    """Reads file names, answers with the milliseconds of load, step, the processor for the load, and unload."""
    import time
    import warnings
    import torch
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    warnings.filterwarnings("ignore")
    torch.set_num_threads(args.threads)
    unet = UNet2DConditionModel.from_pretrained(args.model, subfolder="unet").eval().requires_grad_(False)
    pipe = StableDiffusionXLPipeline(vae=None, text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None,
                                     unet=unet, scheduler=EulerDiscreteScheduler(), add_watermarker=False)
    width = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
    sample = torch.randn(2, 4, args.latent, args.latent)
    states = torch.randn(2, TOKENS, unet.config.cross_attention_dim)
    added = {"text_embeds": torch.randn(2, width), "time_ids": torch.randn(2, 6)}

    def step():
        with torch.inference_mode():
            unet(sample, 500, encoder_hidden_states=states, added_cond_kwargs=added)

    step()
    loaded = 0
    print("ready", flush=True)
    for line in sys.stdin:
        file, start, start_cpu = line.strip(), time.perf_counter(), time.process_time()
        if args.worker == "hotswap" and loaded:
            pipe.load_lora_weights(args.adapters, weight_name=file, adapter_name="only", hotswap=True)
        else:
            name = "only" if args.worker == "hotswap" else f"swap_{loaded}"
            pipe.load_lora_weights(args.adapters, weight_name=file, adapter_name=name)
            pipe.set_adapters([name], [1.0])
        loaded += 1
        ready, ready_cpu = time.perf_counter(), time.process_time()
        step()
        stepped = time.perf_counter()
        if args.worker == "unload":
            pipe.unload_lora_weights()
        seconds = ready - start, stepped - ready, ready_cpu - start_cpu, time.perf_counter() - stepped
        print(*(1000 * value for value in seconds), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--adapters", required=True)
    parser.add_argument("--bench", help="adapter_bench")
    parser.add_argument("--python", default=sys.executable, help="interpreter with torch, diffusers and PEFT")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--latent", type=int, default=8, help="of the step, latent pixels on a side")
    parser.add_argument("--source", choices=("disk", "host", "device"), default="disk", help="where ours finds the adapter")
    parser.add_argument("--modes", default="hotswap,unload")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return worker(args)

    names = sorted(path.stem for path in pathlib.Path(args.adapters).glob("*.safetensors"))
    common = ["--model", args.model, "--adapters", args.adapters, "--threads", args.threads]
    peft = args.modes.split(",")
    arms = {mode: Arm([args.python, __file__, "--worker", mode, "--latent", args.latent, *common]) for mode in peft}
    lines = {mode: "{}.safetensors" for mode in peft}  # what an arm is asked, of an adapter's name
    for apply in ("side", "merged"):
        arms[apply] = Arm([args.bench, "turns", *common, "--source", args.source, "--size", 8 * args.latent], SERVER)
        lines[apply] = apply + " {}"
    seen = {name: [] for name in arms}
    order = sorted(arms)
    for block in range(WARM_UP + args.blocks):
        random.Random(block).shuffle(order)
        for arm in order:
            times = arms[arm].numbers(lines[arm].format(names[block % len(names)]))
            if block >= WARM_UP:
                seen[arm].append(times)
    for arm in arms.values():
        arm.close()

    print(f"{args.blocks} blocks, {args.threads} thread(s); ours finds adapters on {args.source}; ms")
    print(" | ".join(f"{word:26s}" for word in ("", "swap", "step", "swap, processor", "putting away")))
    for name, rows in seen.items():
        columns = list(zip(*rows))
        print(" | ".join(f"{word:26s}" for word in (name, *(words(column, 2) for column in columns))))
    for mode in peft:
        for apply in ("side", "merged"):
            pairs = list(zip(seen[mode], seen[apply]))
            wall, cpu = ([theirs[i] / ours[i] for theirs, ours in pairs] for i in (0, 2))
            print(f"{mode} / {apply}: {words(wall)}; by processor time {words(cpu)}")


if __name__ == "__main__":
    main()
