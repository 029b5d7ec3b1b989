"""The demo's world: scenes of coloured shapes, their captions, their pictures (128x128), and the styles of its LoRAs."""
import hashlib
import math
import random

import numpy as np
from PIL import Image, ImageDraw

SIZE, OVERSAMPLING = 128, 2
COLOURS = dict(red=(222, 38, 38), green=(36, 160, 60), blue=(40, 70, 215), yellow=(248, 218, 50), orange=(245, 128, 20),
               purple=(128, 48, 170), white=(250, 250, 250), black=(16, 16, 16))
BACKGROUNDS = COLOURS
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
SIZES = dict(small=21, medium=29, large=43)  # radius in pixels
PLACES = {"": (64, 64), "on the left": (36, 64), "on the right": (92, 64), "at the top": (64, 36), "at the bottom": (64, 92)}
COUNTS = {"two": [(33, 64), (95, 64)], "three": [(64, 35), (33, 93), (95, 93)], "four": [(36, 36), (92, 36), (36, 92), (92, 92)]}
COUNT_RADIUS = dict(two=25, three=23, four=23)
# Pairs by where the object that is named first lies; the second one lies opposite.
PAIRS = {"left": ((33, 64), (95, 64)), "right": ((95, 64), (33, 64)), "above": ((64, 34), (64, 94)), "below": ((64, 94), (64, 34))}
PAIR_RADIUS = 25
PAIR_WORDS = {"left": ("and", "and", "next to", "left of"), "right": ("right of",), "above": ("above",), "below": ("below",)}
KINDS = ("single", *COUNTS, *PAIRS)
STYLES = ("outline", "night", "stripes", "frame")
# What a caption says, as class numbers: the text encoders are trained to make these readable.
FACTS = dict(background=len(BACKGROUNDS), kind=len(KINDS), colour=len(COLOURS), shape=len(SHAPES), size=len(SIZES),
             place=len(PLACES), colour2=len(COLOURS), shape2=len(SHAPES))


def held_out(scene):
    """One scene in eight is never trained on; the choice hangs on its facts alone."""
    said = ",".join(f"{k}={scene[k]}" for k in sorted(scene))
    return hashlib.sha256(said.encode()).digest()[0] % 8 == 0


def draw_scene(r, kinds=None, test=False):
    """A random scene out of the training part, or out of the held-out part where `test`."""
    while True:
        kind = r.choices(KINDS, (34, 7, 6, 6, 20, 7, 12, 8))[0] if kinds is None else r.choice(kinds)
        background = r.choice(list(BACKGROUNDS))
        free = [c for c in COLOURS if c != background]
        scene = dict(kind=kind, background=background, colour=r.choice(free), shape=r.choice(SHAPES), size="medium", place="")
        if kind == "single":
            scene["size"] = r.choice(list(SIZES))
            if scene["size"] != "large" and r.random() < 0.5:
                scene["place"] = r.choice(list(PLACES)[1:])
        elif kind in PAIRS:
            scene["colour2"], scene["shape2"] = r.choice(free), r.choice(SHAPES)
            if (scene["colour2"], scene["shape2"]) == (scene["colour"], scene["shape"]):
                continue
        if held_out(scene) == test:
            return scene


def held_out_prompts(seed):
    """Sixteen (scene, caption) that training never saw: ten of one kind of object, six of two different ones."""
    r = random.Random(seed)
    scenes = [draw_scene(r, kinds, test=True) for kinds in [("single", *COUNTS)] * 10 + [tuple(PAIRS)] * 6]
    return [(scene, caption(scene, r)) for scene in scenes]


def facts(scene):
    """Class numbers in the order of FACTS; -1 where the scene does not say."""
    def at(names, value):
        return -1 if value is None else list(names).index(value)
    return [at(BACKGROUNDS, scene["background"]), at(KINDS, scene["kind"]), at(COLOURS, scene["colour"]), at(SHAPES, scene["shape"]),
            at(SIZES, scene["size"]), at(PLACES, scene["place"]), at(COLOURS, scene.get("colour2")), at(SHAPES, scene.get("shape2"))]


def article(words):
    return ("an " if words[0] in "aeio" else "a ") + words


def caption(scene, r):
    kind, colour, shape = scene["kind"], scene["colour"], scene["shape"]
    if kind == "single":
        size = {"small": "small", "medium": "", "large": "large"}[scene["size"]]
        text = article(" ".join(w for w in (size, colour, shape) if w)) + (" " + scene["place"] if scene["place"] else "")
    elif kind in COUNTS:
        text = f"{kind} {colour} {shape}{'es' if shape == 'cross' else 's'}"
    else:
        text = f"{article(f'{colour} {shape}')} {r.choice(PAIR_WORDS[kind])} {article(scene['colour2'] + ' ' + scene['shape2'])}"
    if r.random() < 0.15:
        text = r.choice(("a picture of ", "an image of ", "a drawing of ", "a photo of ")) + text
    b = scene["background"]
    return text + r.choice((f" on {article(b)} background", f" on {article(b)} background", f" on {b}", f", {b} background"))


def objects(scene):
    """(colour, shape, (x, y), radius) of each object, in the order in which the caption names them."""
    kind = scene["kind"]
    if kind == "single":
        return [(scene["colour"], scene["shape"], PLACES[scene["place"]], SIZES[scene["size"]])]
    if kind in COUNTS:
        return [(scene["colour"], scene["shape"], at, COUNT_RADIUS[kind]) for at in COUNTS[kind]]
    first, second = PAIRS[kind]
    return [(scene["colour"], scene["shape"], first, PAIR_RADIUS), (scene["colour2"], scene["shape2"], second, PAIR_RADIUS)]


def corners(shape, x, y, radius):
    def around(n, radii, turn=0.0):
        return [(x + radii[i % len(radii)] * math.sin(2 * math.pi * i / n + turn),
                 y - radii[i % len(radii)] * math.cos(2 * math.pi * i / n + turn)) for i in range(n)]
    if shape == "square":
        return around(4, [radius * 1.22], math.pi / 4)
    if shape == "triangle":
        return [(px, py + 0.2 * radius) for px, py in around(3, [radius * 1.25])]
    if shape == "star":
        return around(10, [radius * 1.25, radius * 0.52])
    a, b = radius, radius * 0.36
    return [(x + u, y + v) for u, v in ((-b, -a), (b, -a), (b, -b), (a, -b), (a, b), (b, b), (b, a), (-b, a), (-b, b),
                                        (-a, b), (-a, -b), (-b, -b))]


def blend(a, b, share):
    return tuple(round(u + (v - u) * share) for u, v in zip(a, b))


def placed(scene, r):
    """objects(scene), each moved a little and all of them a little larger or smaller."""
    jitter = r.uniform(0.95, 1.05)
    return [(colour, shape, (x + r.uniform(-2, 2), y + r.uniform(-2, 2)), radius * jitter)
            for colour, shape, (x, y), radius in objects(scene)]


def placed_anywhere(scene, r):
    """objects(scene) of any size at any places, apart from one another; the caption's words about both do not hold."""
    named = objects(scene)
    least, most = {1: (18, 44), 2: (16, 27), 3: (14, 22), 4: (14, 19)}[len(named)]
    while True:
        things = []
        for colour, shape, _, _ in named:
            radius = r.uniform(least, most)
            reach = 1.3 * radius + 2
            things.append((colour, shape, (r.uniform(reach, SIZE - reach), r.uniform(reach, SIZE - reach)), radius))
        if all(math.dist(a[2], b[2]) > 1.2 * (a[3] + b[3]) + 2 for i, a in enumerate(things) for b in things[:i]):
            return things


def draw(scene, r, style="", strength=1.0):
    """The picture as uint8 [128, 128, 3]. `r` moves and resizes the shapes a little; a style's strength is 0 (absent) to 1."""
    return paint(scene["background"], placed(scene, r), style, strength)


def paint(background, things, style="", strength=1.0):
    """The same of (colour, shape, (x, y), radius) that lie where they are said to lie."""
    def tone(colour):
        night = tuple(int(v * 0.3 + n) for v, n in zip(COLOURS[colour], (2, 6, 40)))
        return blend(COLOURS[colour], night, strength) if style == "night" else COLOURS[colour]
    ground = tone(background)
    contrast = (255, 255, 255) if sum(COLOURS[background]) < 330 else (0, 0, 0)
    image = Image.new("RGB", (SIZE * OVERSAMPLING,) * 2, ground)
    pen = ImageDraw.Draw(image)
    if style == "stripes":  # horizontal bands over the background
        for y in range(0, SIZE, 32):
            pen.rectangle((0, y * OVERSAMPLING, SIZE * OVERSAMPLING, (y + 16) * OVERSAMPLING - 1),
                          fill=blend(ground, contrast, 0.6 * strength))
    for colour, shape, (x, y), radius in things:
        x, y = x * OVERSAMPLING, y * OVERSAMPLING
        rr, fill, line = radius * OVERSAMPLING, tone(colour), 5 * OVERSAMPLING
        edge = blend(fill, contrast, strength) if style == "outline" else None
        if shape in ("circle", "ring"):
            hole = 0.5 * rr
            pen.ellipse((x - rr, y - rr, x + rr, y + rr), fill=fill, outline=edge, width=line if edge else 1)
            if shape == "ring":
                grow = line if edge else 0
                if edge:
                    pen.ellipse((x - hole - grow / 2, y - hole - grow / 2, x + hole + grow / 2, y + hole + grow / 2), fill=edge)
                pen.ellipse((x - hole + grow / 2, y - hole + grow / 2, x + hole - grow / 2, y + hole - grow / 2), fill=ground)
        else:
            ends = corners(shape, x, y, rr)
            pen.polygon(ends, fill=fill)
            if edge:
                pen.line(ends + ends[:2], fill=edge, width=line, joint="curve")
    if style == "frame":
        pen.rectangle((0, 0, SIZE * OVERSAMPLING - 1, SIZE * OVERSAMPLING - 1), width=10 * OVERSAMPLING,
                      outline=blend(ground, contrast, strength))
    return np.asarray(image.reduce(OVERSAMPLING))


def outlines(things):
    """The control picture of (colour, shape, (x, y), radius): their outlines, white lines on black, uint8 [128, 128]."""
    image = Image.new("L", (SIZE * OVERSAMPLING,) * 2)
    pen, line = ImageDraw.Draw(image), 2 * OVERSAMPLING
    for _, shape, (x, y), radius in things:
        x, y, radius = x * OVERSAMPLING, y * OVERSAMPLING, radius * OVERSAMPLING
        if shape in ("circle", "ring"):
            for rr in (radius, 0.5 * radius) if shape == "ring" else (radius,):
                pen.ellipse((x - rr, y - rr, x + rr, y + rr), outline=255, width=line)
        else:
            ends = corners(shape, x, y, radius)
            pen.line(ends + ends[:2], fill=255, width=line, joint="curve")
    return np.asarray(image.reduce(OVERSAMPLING))


if __name__ == "__main__":
    import sys
    rng = random.Random(1)
    rows = [np.concatenate([draw(draw_scene(rng), rng, style) for _ in range(10)], 1) for style in ("", "", *STYLES)]
    Image.fromarray(np.concatenate(rows)).save(sys.argv[1])
    for _ in range(12):
        print(caption(draw_scene(rng), rng))
