"""Both text encoders: train_text.py OUT STEPS. They learn to make a caption's facts readable where SDXL's UNet reads: in the
penultimate hidden states (all facts at the end token; an object's own colour, shape and rank at its noun) and in the pooled
projection. The heads that read them are thrown away; the encoders are frozen from then on."""
import os
import random
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from world import COLOURS, FACTS, SHAPES, caption, draw_scene, facts

BATCH, RATE = 128, 3e-3
TEMPLATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "model")
CLASSES = dict(text_encoder=CLIPTextModel, text_encoder_2=CLIPTextModelWithProjection)


def with_filler(text, r, words):
    """Now and then a word that means nothing here, so that unknown words disturb little."""
    if r.random() < 0.2:
        parts = text.split(" ")
        for _ in range(r.choice((1, 1, 2))):
            parts.insert(r.randrange(len(parts) + 1), r.choice(words))
        text = " ".join(parts)
    return text


def filler_words(tokenizer):
    names = {w[:-4] for w in tokenizer.get_vocab() if w.endswith("</w>")}
    return sorted(w for w in names if w.isalpha() and w.isascii() and 3 < len(w) < 10 and w not in COLOURS and w not in SHAPES)


def ids_of(tokenizer, texts):
    return tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids


if __name__ == "__main__":
    out, steps = sys.argv[1], int(sys.argv[2])
    torch.manual_seed(2)
    torch.set_num_threads(1)
    r = random.Random(2)
    tokenizer = CLIPTokenizer.from_pretrained(os.path.join(TEMPLATE, "tokenizer"))
    words = filler_words(tokenizer)
    nouns = {}  # token id of a shape's last token -> True
    for shape in SHAPES:
        for word in (shape, shape + ("es" if shape == "cross" else "s")):
            nouns[tokenizer(word).input_ids[-2]] = True
    noun_ids = torch.tensor(sorted(nouns))
    models = {}
    for name, cls in CLASSES.items():
        models[name] = cls(CLIPTextConfig.from_pretrained(os.path.join(TEMPLATE, name))).float()
        for key, parameter in models[name].named_parameters():
            if "embedding" in key:
                torch.nn.init.normal_(parameter, std=0.1)
    one, two = models["text_encoder"], models["text_encoder_2"]
    width = one.config.hidden_size + two.config.hidden_size
    parts = list(FACTS.values())
    noun_parts = [len(COLOURS), len(SHAPES), 2]  # own colour, own shape, first or second
    at_end, at_noun = torch.nn.Linear(width, sum(parts)), torch.nn.Linear(width, sum(noun_parts))
    from_pooled = torch.nn.Sequential(torch.nn.Linear(two.config.projection_dim, 128), torch.nn.SiLU(), torch.nn.Linear(128, sum(parts)))
    parameters = [p for m in (one, two, at_end, at_noun, from_pooled) for p in m.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=RATE, betas=(0.9, 0.98), weight_decay=0.0)
    begin = time.time()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 100) * max(0.01, 0.5 * (1 + np.cos(np.pi * step / steps)))
        scenes = [draw_scene(r) for _ in range(BATCH)]
        ids = ids_of(tokenizer, [with_filler(caption(s, r), r, words) for s in scenes])
        end, rows = ids.argmax(1), torch.arange(BATCH)
        ids = ids[:, :int(end.max()) + 1]  # causal: what follows the end token changes nothing before it
        target = torch.tensor([facts(s) for s in scenes])
        second = two(ids, output_hidden_states=True)
        hidden = torch.cat([one(ids, output_hidden_states=True).hidden_states[-2], second.hidden_states[-2]], 2)
        loss, right = 1e-3 * (second.text_embeds.pow(2).mean() + hidden.pow(2).mean()), []
        for answer in (at_end(hidden[rows, end]), from_pooled(second.text_embeds)):
            for n, part in enumerate(answer.split(parts, 1)):
                told = target[:, n] >= 0
                loss = loss + F.cross_entropy(part, target[:, n], ignore_index=-1)
                right.append((part.argmax(1) == target[:, n])[told].float().mean().item())
        is_noun = torch.isin(ids, noun_ids)
        rank = is_noun.cumsum(1) - 1  # of the noun in its caption
        b, t = torch.nonzero(is_noun & (rank < 2), as_tuple=True)
        k = rank[b, t]
        own = torch.stack([torch.where(k == 0, target[b, 2], target[b, 6]), torch.where(k == 0, target[b, 3], target[b, 7]), k], 1)
        for n, part in enumerate(at_noun(hidden[b, t]).split(noun_parts, 1)):
            loss = loss + F.cross_entropy(part, own[:, n], ignore_index=-1)
            right.append((part.argmax(1) == own[:, n]).float().mean().item())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"text {step} {time.time() - begin:.0f}s loss {loss:.3f} right: end, pooled, noun {[round(v, 2) for v in right]}", flush=True)
    for name, model in models.items():
        tensors = {k: v.half().contiguous() for k, v in model.state_dict().items()}
        # As in published files; transformers 5 dropped the prefix from its module names.
        tensors = {k if k.startswith("text_") else "text_model." + k: v for k, v in tensors.items()}
        os.makedirs(os.path.join(out, name), exist_ok=True)
        save_file(tensors, os.path.join(out, name, "model.safetensors"), metadata={"format": "pt"})
