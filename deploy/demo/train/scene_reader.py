"""Reads a scene out of a picture's pixels alone: background, layout, and each object's colour and shape.

Every layout of the demo's grammar is tried: where its objects would lie, the shape is the template that overlaps best with what
differs from the background. The layout whose templates together overlap best is the answer. Nothing here knows the prompt.
"""

import functools

import numpy as np
from PIL import Image, ImageDraw

import world

SHIFTS = [(dx, dy) for dx in (-4, -2, 0, 2, 4) for dy in (-4, -2, 0, 2, 4)]
CONTRAST = 55  # Euclidean distance in RGB from which on a pixel is not background; the palette's closest two are 93 apart


def nearest_colour(rgb):
    names = list(world.COLOURS)
    return names[int(np.argmin([np.sum((np.array(world.COLOURS[n], float) - rgb) ** 2) for n in names]))]


def layouts():
    """(kind, size, place) with the (x, y) and radius of each object. Two side by side lie where a pair does: read_scene tells them
    apart by what they are."""
    for size in world.SIZES:
        for place, at in world.PLACES.items():
            if size != "large" or not place:
                yield ("single", size, place), [(at, world.SIZES[size])]
    for kind, places in world.COUNTS.items():
        yield (kind, "medium", ""), [(at, world.COUNT_RADIUS[kind]) for at in places]
    yield ("above", "medium", ""), [(at, world.PAIR_RADIUS) for at in world.PAIRS["above"]]


@functools.lru_cache(maxsize=None)
def template(shape, at, radius):
    """The shape's mask, uint8 0 or 1, [128, 128]."""
    scale = world.OVERSAMPLING
    image = Image.new("L", (world.SIZE * scale,) * 2)
    pen = ImageDraw.Draw(image)
    (x, y), r = (at[0] * scale, at[1] * scale), radius * scale
    if shape in ("circle", "ring"):
        pen.ellipse((x - r, y - r, x + r, y + r), fill=255)
        if shape == "ring":
            pen.ellipse((x - r / 2, y - r / 2, x + r / 2, y + r / 2), fill=0)
    else:
        pen.polygon(world.corners(shape, x, y, r), fill=255)
    return np.asarray(image.reduce(scale)) > 127


def best_shape(mask, at, radius):
    """(overlap, shape, template) of the shape that fits the mask best within the object's box."""
    reach = int(radius * 1.3) + 6
    box = (slice(max(0, at[1] - reach), at[1] + reach), slice(max(0, at[0] - reach), at[0] + reach))
    best = (-1.0, "", None)
    for shape in world.SHAPES:
        for dx, dy in SHIFTS:
            candidate = template(shape, (at[0] + dx, at[1] + dy), radius)
            overlap = np.sum(mask[box] & candidate[box]) / max(1, np.sum(mask[box] | candidate[box]))
            if overlap > best[0]:
                best = (overlap, shape, candidate)
    return best


def split(pixels):
    """The background's colour, and the mask of what differs from it, of float [128, 128, 3]."""
    border = np.concatenate([pixels[:4].reshape(-1, 3), pixels[-4:].reshape(-1, 3), pixels[:, :4].reshape(-1, 3), pixels[:, -4:].reshape(-1, 3)])
    ground = np.median(border, axis=0)
    return ground, np.sqrt(np.sum((pixels - ground) ** 2, axis=2)) > CONTRAST


def overlap(pixels, things):
    """How well the shapes of uint8 [128, 128, 3] cover (colour, shape, (x, y), radius), whatever their colours: the intersection's
    share of the union, 0 to 1."""
    mask = split(pixels.astype(float))[1]
    wanted = functools.reduce(np.logical_or, [template(shape, at, radius) for _, shape, at, radius in things])
    return float(np.sum(mask & wanted) / np.sum(mask | wanted))


def colours(pixels, things):
    """The colour that each of (colour, shape, (x, y), radius) has in the picture, by name."""
    return [nearest_colour(np.median(pixels[template(shape, at, radius)], axis=0)) for _, shape, at, radius in things]


def read_scene(pixels):
    """{"background", "layout", "objects": [(colour, shape)…]} of uint8 [128, 128, 3]."""
    pixels = pixels.astype(float)
    ground, mask = split(pixels)
    best = (-1.0, None, None)
    for layout, slots in layouts():
        fits = [best_shape(mask, at, radius) for at, radius in slots]
        union = functools.reduce(np.logical_or, [fit[2] for fit in fits])
        overlap = np.sum(mask & union) / max(1, np.sum(mask | union))
        if overlap > best[0]:
            best = (overlap, layout, fits)
    objects = []
    for _, shape, candidate in best[2]:
        inside = pixels[mask & candidate]
        objects.append((nearest_colour(np.median(inside, axis=0)) if len(inside) else "", shape))
    layout = best[1]
    if layout[0] == "two" and objects[0] != objects[1]:
        layout = ("left", *layout[1:])
    return {"background": nearest_colour(ground), "layout": layout, "objects": objects}


def expected(scene):
    """What read_scene says of a perfect picture of the scene: a pair from left to right or from top to bottom."""
    objects = [(colour, shape) for colour, shape, _, _ in world.objects(scene)]
    kind = {"right": "left", "below": "above"}.get(scene["kind"], scene["kind"])
    if kind != scene["kind"]:
        objects.reverse()
    return {"background": scene["background"], "layout": (kind, scene["size"], scene["place"]), "objects": objects}
