"""The demo model draws what the prompt says, its LoRAs do what their names say, and its ControlNet puts shapes where the outlines
are, through the server, judged by pixels.

demo_model_test.py [--prompt-seed N]: other held-out prompts.
"""

import io
import json
import random
import shutil
import sys
import unittest

import numpy as np
import safetensors.numpy
from PIL import Image

import hotlora_server as e2e
from hotlora_server import images_pb2

sys.path.insert(0, str(e2e.SOURCE / "deploy/demo/train"))
import scene_reader  # noqa: E402
import world  # noqa: E402

PROMPT_SEED = 2026
STEPS = 20
GOLDEN = e2e.GOLDEN / "demo"


def request(prompt, seed, *adapters, **fields):
    return images_pb2.GenerateImagesRequest(prompt=prompt, seed=seed, steps=STEPS, adapters=e2e.adapter_refs(*adapters), **fields)


def pixels_of(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def right(pictures, scenes):
    """How many pictures show their scene: every shape, colour, place and the background."""
    return sum(scene_reader.read_scene(p) == scene_reader.expected(s) for p, s in zip(pictures, scenes))


class FilesTest(unittest.TestCase):
    def test_small_and_float16(self):
        files = [file for file in (e2e.SOURCE / "deploy/demo").rglob("*") if file.is_file() and not file.is_symlink()]
        self.assertLessEqual(sum(file.stat().st_size for file in files), 24_000_000)
        weights = [file for file in files if file.suffix == ".safetensors"]
        self.assertEqual(len(weights), 9)
        for file in weights:
            kinds = {value.dtype for value in safetensors.numpy.load_file(file).values()}
            self.assertEqual(kinds, {np.dtype(np.float16)}, file)


class PromptTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.prompts = world.held_out_prompts(PROMPT_SEED)
        cls.scenes = [scene for scene, _ in cls.prompts]
        server = e2e.Server("--dtype", "float32")
        cls.pictures = [pixels_of(server.caller.image(request(text, 100 + n))) for n, (_, text) in enumerate(cls.prompts)]
        server.stop()

    def test_reader_reads_perfect_pictures(self):
        r = random.Random(5)
        scenes = [world.draw_scene(r) for _ in range(40)]
        self.assertGreaterEqual(right([world.draw(s, r) for s in scenes], scenes), 39)

    def test_held_out_prompts_come_out_right(self):
        self.assertEqual(sum(scene["kind"] in world.PAIRS for scene in self.scenes), 6)
        wrong = [
            f"{text}: {scene_reader.read_scene(picture)}"
            for (scene, text), picture in zip(self.prompts, self.pictures)
            if scene_reader.read_scene(picture) != scene_reader.expected(scene)
        ]
        print(f"{16 - len(wrong)} of 16 right with prompt seed {PROMPT_SEED}", *wrong, sep="\n  ")
        self.assertLessEqual(len(wrong), 3, wrong)

    def test_reader_fails_shuffled_prompts(self):
        self.assertLessEqual(right(self.pictures, self.scenes[5:] + self.scenes[:5]), 1)

    def test_reader_fails_an_untrained_model(self):
        folder = e2e.temporary_folder() / "model"
        shutil.copytree(e2e.DEMO, folder)
        file = folder / "unet/diffusion_pytorch_model.safetensors"
        generator = np.random.default_rng(1)
        tensors = {k: generator.permutation(v.ravel()).reshape(v.shape) for k, v in safetensors.numpy.load_file(file).items()}
        safetensors.numpy.save_file(tensors, file)
        server = e2e.Server("--dtype", "float32", model=folder)
        pictures = [pixels_of(server.caller.image(request(text, 100 + n))) for n, (_, text) in enumerate(self.prompts)]
        server.stop()
        self.assertLessEqual(right(pictures, self.scenes), 1)


def luminance(pixels):
    return pixels.astype(float) @ [0.299, 0.587, 0.114]


def night(pixels):
    """How dark the picture is, 0 to 255."""
    return 255 - luminance(pixels).mean()


def frame(pixels):
    """How much the border differs from the picture just inside it."""
    light = luminance(pixels)
    outer = np.concatenate([light[:8].ravel(), light[-8:].ravel()])
    inner = np.concatenate([light[20:24, 20:108].ravel(), light[-24:-20, 20:108].ravel()])
    return abs(np.median(outer) - np.median(inner))


def stripes(pixels):
    """How much bands of sixteen rows differ from the bands between them, at the picture's left and right margins."""
    rows = luminance(pixels)[:, [*range(2, 12), *range(116, 126)]].mean(1).reshape(8, 16).mean(1)
    return abs(rows[::2].mean() - rows[1::2].mean())


def outline(pixels):
    """How much there is of nearly black inside the border; the prompts name only bright colours."""
    return np.clip(90 - luminance(pixels)[24:-24, 24:-24], 0, None).mean()


MEASURES = dict(night=night, frame=frame, stripes=stripes, outline=outline)
LEAST = dict(night=80, frame=100, stripes=60, outline=5)  # what an adapter at 1.0 adds to its measure, at least
BRIGHT = ["a large red circle on a yellow background", "a yellow square and a red triangle on a white background",
          "an orange star on a white background"]


class AdapterTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = e2e.Server("--dtype", "float32", adapters=e2e.ALL_DEMO_ADAPTERS)
        cls.painted = {}

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def images(self, *adapters):
        return [self.server.caller.image(request(text, 7 + n, *adapters)) for n, text in enumerate(BRIGHT)]

    def measure(self, name, *adapters):
        """The mean of a measure over the pictures with these adapters, which are painted once."""
        if adapters not in self.painted:
            self.painted[adapters] = [pixels_of(png) for png in self.images(*adapters)]
        return float(np.mean([MEASURES[name](pixels) for pixels in self.painted[adapters]]))

    def test_four_formats(self):
        listed = {}
        for name in MEASURES:
            self.server.caller.generate(request(BRIGHT[0], 7, name))
            listed[name] = self.server.caller.adapters.GetAdapter(e2e.adapters_pb2.GetAdapterRequest(name=name)).format
        self.assertEqual(listed, dict(night="lora", stripes="lora", frame="locon", outline="locon"))

    def test_each_effect_grades_with_its_weight_and_leaves_nothing(self):
        base = self.images()
        for name in MEASURES:
            with self.subTest(name):
                none, half, full = self.measure(name), self.measure(name, (name, 0.5)), self.measure(name, name)
                print(f"{name}: none {none:.1f}, 0.5 {half:.1f}, 1.0 {full:.1f}")
                self.assertGreater(full - none, LEAST[name])
                self.assertGreater(half - none, 0.15 * (full - none))
                self.assertLess(half - none, 0.85 * (full - none))
                self.assertEqual(self.images((name, 0.0)), base)
                self.assertEqual(self.images(), base)

    def test_both_show_in_a_mix(self):
        for name in ("frame", "outline"):
            with self.subTest(name):
                none, full = self.measure(name), self.measure(name, name)
                self.assertGreater(self.measure(name, "frame", "outline") - none, 0.4 * (full - none))


def outlines_of(png, **fields):
    return [images_pb2.ControlRef(name="outlines", image=png, **fields)]


class ControlTest(unittest.TestCase):
    """Held-out captions, and outlines at places of which the captions say nothing or something else."""

    @classmethod
    def setUpClass(cls):
        r = random.Random(11)
        cls.scenes = [world.draw_scene(r, test=True) for _ in range(12)]
        cls.texts = [world.caption(scene, r) for scene in cls.scenes]
        cls.things = [world.placed_anywhere(scene, r) for scene in cls.scenes]
        cls.server = e2e.Server("--dtype", "float32", "--controls", e2e.DEMO_CONTROLS)

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def paint(self, count=12, **fields):
        """A picture of each of the first scenes; the fields are those of its control, and without any it has none."""
        pictures = []
        for n, (text, things) in enumerate(zip(self.texts[:count], self.things)):
            outlines = io.BytesIO()
            Image.fromarray(world.outlines(things)).save(outlines, "PNG")
            controls = outlines_of(outlines.getvalue(), **fields) if fields else []
            pictures.append(pixels_of(self.server.caller.image(request(text, 300 + n, controls=controls))))
        return pictures

    def overlap(self, pictures, things):
        return float(np.mean([scene_reader.overlap(p, t) for p, t in zip(pictures, things)]))

    def test_shapes_are_where_the_outlines_are(self):
        painted, plain = self.paint(scale=1), self.paint()
        with_control, without = self.overlap(painted, self.things), self.overlap(plain, self.things)
        of_others = self.overlap(painted, self.things[5:] + self.things[:5])
        named = [[colour for colour, *_ in things] for things in self.things]
        seen = [scene_reader.colours(p, t) for p, t in zip(painted, self.things)]
        right_colours = sum(n == s for n, s in zip(named, seen))
        print(f"overlap with control {with_control:.3f}, without {without:.3f}, with the outlines of others {of_others:.3f}; "
              f"{right_colours} of 12 pictures have all colours right")
        self.assertGreater(with_control, 0.84)
        self.assertLess(without, 0.3)
        self.assertLess(of_others, 0.3)
        self.assertGreaterEqual(right_colours, 11, (named, seen))

    def test_a_scale_of_zero_has_no_effect(self):
        self.assertTrue((np.array(self.paint(count=1, scale=0)) == np.array(self.paint(count=1))).all())


class DiffusersTest(unittest.TestCase):
    """tests/golden/demo: pictures of diffusers' stock pipelines from the same folder, same prompt and seed."""

    def test_same_pictures(self):
        manifest = json.loads((GOLDEN / "manifest.json").read_text())
        controlled = manifest["controlled_cases"]
        self.assertEqual(sorted(manifest["cases"]), sorted(["none", *MEASURES, "mix"]))
        self.assertEqual(sorted(controlled), ["control", "control_night"])
        server = e2e.Server("--dtype", "float32", "--controls", e2e.DEMO_CONTROLS, adapters=e2e.ALL_DEMO_ADAPTERS)
        for name, weights in {**manifest["cases"], **controlled}.items():
            with self.subTest(name):
                controls = outlines_of((GOLDEN / "outlines.png").read_bytes()) if name in controlled else []
                wanted = images_pb2.GenerateImagesRequest(
                    **manifest["request"], adapters=e2e.adapter_refs(*weights.items()), controls=controls)
                ours = pixels_of(server.caller.image(wanted)).astype(int)
                worst = np.abs(ours - np.asarray(Image.open(GOLDEN / f"{name}.png")).astype(int)).max()
                print(f"{name}: largest difference {worst} of 255")
                self.assertLessEqual(worst, manifest["largest_difference"])
        server.stop()


if __name__ == "__main__":
    if "--prompt-seed" in sys.argv:
        at = sys.argv.index("--prompt-seed")
        PROMPT_SEED = int(sys.argv[at + 1])
        del sys.argv[at : at + 2]
    unittest.main(verbosity=2)
