"""The control pictures of paint_sheets.sh, ROW-COLUMN.png: draw_outlines.py OUT. A row is for the prompt of that row there, which
says the colours and the shapes; its three pictures say where they lie and how large they are, within what placed_anywhere of
world.py draws for the training."""
import os
import sys

from PIL import Image

from world import outlines

PICTURES = [
    [[("circle", (40, 40), 28)], [("circle", (90, 90), 28)], [("circle", (94, 36), 24)]],
    [[("square", (34, 92), 24), ("triangle", (90, 38), 27)], [("square", (94, 34), 22), ("triangle", (42, 86), 26)],
     [("square", (40, 34), 20), ("triangle", (88, 90), 22)]],
    [[("star", (28, 98), 18), ("star", (64, 64), 18), ("star", (100, 30), 18)],
     [("star", (26, 34), 18), ("star", (64, 92), 18), ("star", (102, 34), 18)],
     [("star", (36, 84), 22), ("star", (92, 36), 22), ("star", (100, 100), 18)]],
    [[("cross", (34, 34), 24), ("ring", (90, 90), 27)], [("cross", (94, 34), 24), ("ring", (36, 92), 26)],
     [("cross", (38, 30), 20), ("ring", (38, 94), 24)]],
]

if __name__ == "__main__":
    for row, pictures in enumerate(PICTURES, 1):
        for column, things in enumerate(pictures, 1):
            path = os.path.join(sys.argv[1], f"{row}-{column}.png")
            Image.fromarray(outlines([("", *thing) for thing in things])).save(path, optimize=True)
