"""Pictures that go in and previews that come out, from outside: the tiny golden checkpoint and diffusers' images of it."""

import io
import json
import unittest

import numpy
import safetensors.numpy
from PIL import Image

import hotlora_server as e2e
from hotlora_server import images_pb2, request_for

IMAGES = e2e.GOLDEN / "images"
INPUTS = e2e.GOLDEN / "input_images"


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def picture(name, size=(64, 64)):
    return png(Image.open(IMAGES / name).resize(size, Image.NEAREST))


# In float32 a value may be rounded to the next byte. The other types keep 11 and 8 bits, and pictures are compared as a whole.
LEAST_PSNR = {"float16": 45, "bfloat16": 30}


class InitImageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = e2e.Server(model=e2e.GOLDEN / "pipeline", adapters=e2e.GOLDEN / "adapters" / "files")
        cls.caller = cls.server.caller
        cls.out = e2e.temporary_folder()

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def changed(self, *adapters, **fields):
        """The image of a short run that begins with a picture."""
        settings = {"init_image": picture("init_image.png"), "steps": 4, "strength": 0.5, **fields}
        request = request_for(*adapters, **settings)
        for name in ("width", "height"):
            if name not in fields:
                request.ClearField(name)
        return self.caller.generate(request).images[0]

    def test_diffusers_images(self):
        manifest = json.loads((IMAGES / "manifest.json").read_text())
        cases = [case for case in manifest["cases"] if case["kind"] != "text_to_image"]
        self.assertEqual(len(cases), 4)
        for case in cases:
            with self.subTest(case["name"]):
                arguments = case["arguments"]
                request = request_for(
                    *((adapter["file"].split("/")[-1].removesuffix(".safetensors"), adapter["scale"]) for adapter in case["adapters"]),
                    prompt=arguments["prompt"], negative_prompt=arguments["negative_prompt"], width=64, height=64,
                    steps=arguments["num_inference_steps"], guidance_scale=arguments["guidance_scale"], seed=case["seed"],
                    strength=arguments["strength"], init_image=picture("init_image.png"))
                if case["kind"] == "inpaint":
                    request.mask_image = picture("mask.png")
                expected = safetensors.numpy.load_file(IMAGES / case["file"])["image"][0].transpose(1, 2, 0)
                picture_of = e2e.pixels(self.caller.image(request))
                e2e.expect_picture(self, picture_of, (expected * 255).round(), LEAST_PSNR, case["name"], most=1)

    def test_a_vae_in_a_half_type_draws_nearly_the_same(self):
        for dtype in ("bfloat16", "float16"):
            coarse = e2e.Server("--vae-dtype", dtype, model=e2e.GOLDEN / "pipeline")
            self.addCleanup(coarse.kill)
            for fields in ({}, {"init_image": picture("init_image.png"), "strength": 0.5}):
                request = request_for(steps=4, **fields)
                exact, other = (e2e.pixels(caller.image(request)) for caller in (self.caller, coarse.caller))
                self.assertGreater(e2e.psnr(other, exact), LEAST_PSNR[dtype], (dtype, *fields))
                self.assertFalse(numpy.array_equal(other, exact), "the VAE computes in float32")

    def test_the_size_is_the_pictures_rounded_down(self):
        image = self.changed(init_image=picture("init_image.png", (71, 90)))
        self.assertEqual((image.width, image.height), (64, 88))
        self.assertEqual(e2e.pixels(image.data).shape, (88, 64, 3))

    def test_another_size_is_resized_as_pillow_does(self):
        given = Image.open(IMAGES / "init_image.png")
        before = png(given.convert("RGB").resize((72, 64), Image.LANCZOS))
        self.assertEqual(self.changed(init_image=png(given), width=72, height=64).data, self.changed(init_image=before).data)
        mask = Image.open(IMAGES / "mask.png")
        small = png(mask.resize((64, 64), Image.NEAREST))
        self.assertEqual(self.changed(mask_image=png(mask)).data, self.changed(mask_image=small).data)

    def test_a_picture_is_the_same_in_any_lossless_form(self):
        plain = Image.open(IMAGES / "init_image.png").convert("RGB").resize((64, 48), Image.NEAREST)
        expected = self.changed(init_image=png(plain)).data
        turned = plain.transpose(Image.Transpose.ROTATE_90)  # orientation 6 turns it back
        tags = Image.Exif()
        tags[0x0112] = 6
        forms = {}
        for name, image, options in (("png", turned, {"exif": tags}), ("webp", turned, {"exif": tags, "lossless": True}),
                                     ("webp", plain, {"lossless": True}), ("png", plain.convert("RGBA"), {})):
            buffer = io.BytesIO()
            image.save(buffer, name.upper(), **options)
            forms[f"{name} {sorted(options)} {image.mode}"] = buffer.getvalue()
        for name, data in forms.items():
            with self.subTest(name):
                self.assertEqual(self.changed(init_image=data).data, expected)

    def test_what_the_mask_keeps_depends_on_no_adapter(self):
        def masked(level, *adapters):
            mask = png(Image.fromarray(numpy.full((64, 64), level, numpy.uint8)))
            return e2e.pixels(self.changed(*adapters, mask_image=mask).data).tolist()
        lora = "kohya_text_encoders_and_unet"
        kept = masked(0)
        self.assertEqual(masked(0, lora), kept)
        self.assertEqual(masked(127), kept)
        repainted = masked(128)
        self.assertNotEqual(repainted, kept)
        self.assertNotEqual(masked(128, lora), repainted)

    def test_progress_counts_the_steps_that_run(self):
        events = list(self.caller.stream(request_for(init_image=picture("init_image.png"), steps=10, strength=0.3)))
        steps = [(event.progress.step, event.progress.total_steps) for event in events if event.WhichOneof("event") == "progress"]
        self.assertEqual(steps, [(1, 3), (2, 3), (3, 3)])

    def test_a_png_says_its_strength(self):
        text = Image.open(io.BytesIO(self.changed(strength=0.75).data)).text["parameters"]
        self.assertIn(", Denoising strength: 0.75, ", text)

    def test_jpeg_and_webp_say_it_too(self):
        expected = Image.open(io.BytesIO(self.changed().data)).text["parameters"]
        for format in (images_pb2.IMAGE_FORMAT_JPEG, images_pb2.IMAGE_FORMAT_WEBP):
            exif = Image.open(io.BytesIO(self.changed(format=format).data)).getexif()
            comment = exif.get_ifd(0x8769)[0x9286]
            self.assertEqual((comment[:8], comment[8:].decode("utf-16-be")), (b"UNICODE\0", expected))

    # --- what is refused

    def refused(self, fields, **request):
        for call in (self.caller.generate, lambda r: list(self.caller.stream(r))):
            problem = e2e.problem_of(lambda: call(request_for(**{"steps": 4, **request})))
            self.assertEqual((problem.code, problem.reason), ("INVALID_ARGUMENT", "INVALID_REQUEST"), problem)
            self.assertEqual(set(problem.fields), set(fields), problem)
        return problem

    def test_bad_files(self):
        good = picture("init_image.png")
        for name, data in {"empty header": b"\x89PNG\r\n\x1a\n", "gif": (INPUTS / "image.gif").read_bytes(), "text": b"<html>",
                           "animation": (INPUTS / "animated.webp").read_bytes(), "cut off": good[: len(good) // 2],
                           "bomb": good[:16] + (60000).to_bytes(4) * 2 + good[24:],
                           "cut off jpeg": (INPUTS / "color.jpg").read_bytes()[:-300],
                           "cut off webp": (INPUTS / "lossless.webp").read_bytes()[:-30]}.items():
            with self.subTest(name):
                self.refused(["init_image"], init_image=data)
                self.refused(["mask_image"], init_image=good, mask_image=data)
                self.refused(["init_image", "mask_image"], init_image=data, mask_image=data)
        self.assertEqual(len(self.changed().data), len(self.changed().data))  # it still works

    def test_bad_combinations(self):
        good = picture("init_image.png")
        self.refused(["mask_image"], mask_image=good)
        self.refused(["strength"], strength=0.5)
        for strength in (0.0, 1.5, float("nan"), 0.2):
            with self.subTest(strength=strength):
                self.refused(["strength"], init_image=good, strength=strength)
        self.refused(["preview_every"], preview_every=1001)

    # --- previews

    def test_previews_come_every_nth_step_and_change_nothing(self):
        request = request_for(steps=7, num_images=2, preview_every=3)
        events = list(self.caller.stream(request))
        progresses = [event.progress for event in events if event.WhichOneof("event") == "progress"]
        self.assertEqual(len(progresses), 14)
        for progress in progresses:
            self.assertEqual(bool(progress.preview), progress.step % 3 == 0)
            if progress.preview:
                image = Image.open(io.BytesIO(progress.preview))
                self.assertEqual((image.format, image.size), ("JPEG", (8, 8)))
        request.ClearField("preview_every")
        self.assertEqual([event.image.data for event in events if event.WhichOneof("event") == "image"],
                         [image.data for image in self.caller.generate(request).images])

    # --- memory

    def test_nothing_of_a_picture_stays(self):
        def rounds(count):
            for i in range(count):
                self.changed(mask_image=picture("mask.png"), preview_every=1)
                self.refused(["init_image"], init_image=picture("init_image.png")[:-20 - i])
        rounds(1)
        before = self.server.allocated_bytes()
        rounds(5)
        self.assertEqual(self.server.allocated_bytes(), before)

    # --- the client

    def hotlora(self, *words, **more):
        return e2e.run(e2e.CLIENT, "--server", self.server.target, "generate", "a photo of a cat", *words, **more)

    def test_the_client_sends_pictures_and_writes_previews(self):
        init, mask, out = self.out / "init.png", self.out / "mask.png", self.out / "out.png"
        init.write_bytes(picture("init_image.png"))
        mask.write_bytes(picture("mask.png"))
        result = self.hotlora("--init", init, "--mask", mask, "--strength", 0.75, "--steps", 4, "--seed", 7, "--out", out,
                              "--preview-out", self.out / "look.jpg", "--preview-every", 2)
        self.assertEqual(result.returncode, 0, result.stderr)
        request = request_for(prompt="a photo of a cat", init_image=init.read_bytes(), mask_image=mask.read_bytes(), strength=0.75,
                              steps=4, seed=7)
        self.assertEqual(out.read_bytes(), self.caller.image(request))
        self.assertEqual([file.name for file in sorted(self.out.glob("look*"))], ["look-2.jpg"])
        self.assertEqual(Image.open(io.BytesIO((self.out / "look-2.jpg").read_bytes())).format, "JPEG")

    def test_the_client_says_what_is_wrong(self):
        for words, code, says in ((["--init", self.out / "none.png"], 2, "--init"), (["--mask", self.out], 2, "is a folder"),
                                  (["--preview-every", 2], 2, "--preview-out"), (["--strength", 0.5], 1, "strength"),
                                  (["--init", INPUTS / "image.gif"], 1, "is not a PNG, JPEG or WebP file")):
            with self.subTest(words):
                result = self.hotlora(*words, "--out", self.out / "x.png")
                self.assertEqual(result.returncode, code, result)
                self.assertIn(says, result.stderr)
                self.assertFalse((self.out / "x.png").exists())


if __name__ == "__main__":
    unittest.main()
