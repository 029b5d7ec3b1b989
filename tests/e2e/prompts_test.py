"""What a caller writes into prompts: tags, embeddings, emphasis, long texts; and what a PNG says of it all."""

import io
import json
import unittest

import numpy
from PIL import Image
from safetensors.numpy import load_file, save_file

import hotlora_server as e2e
from hotlora_server import images_pb2, request_for

WEIGHTED = images_pb2.PROMPT_SYNTAX_WEIGHTED


def pixels(data):
    return numpy.asarray(Image.open(io.BytesIO(data)).convert("RGB")).tolist()


def parameters_of(data):
    """The text that a PNG carries, read as AUTOMATIC1111's form: prompt, negative prompt, settings by name."""
    lines = Image.open(io.BytesIO(data)).text["parameters"].split("\n")
    settings, rest = {}, lines.pop()
    while rest:
        name, _, rest = rest.partition(": ")
        if rest.startswith('"'):
            value, end = json.JSONDecoder().raw_decode(rest)
        else:
            end = len(rest.split(",", 1)[0])
            value = rest[:end]
        settings[name] = value
        rest = rest[end:].removeprefix(", ")
    text = "\n".join(lines)
    prompt, _, negative = text.partition("\nNegative prompt: ")
    return prompt, negative, settings


def hashes_of(setting):
    return dict(entry.split(": ") for entry in setting.split(", "))


def make_embeddings():
    """A folder of embeddings as wide as the demo model's: one of two vectors, and some that no server should take."""
    first, second = (
        load_file(e2e.DEMO / name / "model.safetensors")["text_model.embeddings.token_embedding.weight"]
        for name in ("text_encoder", "text_encoder_2")
    )
    folder = e2e.temporary_folder()
    (folder / "styles").mkdir()
    random = numpy.random.default_rng(5)

    def draw(count, table, width=None):
        values = random.standard_normal((count, width or table.shape[1])) * table.astype(numpy.float32).std() * 3
        return values.astype(numpy.float32)

    good = {"clip_l": draw(2, first), "clip_g": draw(2, second)}
    save_file(good, folder / "styles/ink.safetensors")
    save_file({"emb_params": draw(2, first)}, folder / "old.safetensors")
    save_file({**good, "clip_g": draw(2, second, second.shape[1] + 1)}, folder / "wide.safetensors")
    save_file({**good, "clip_g": numpy.full_like(good["clip_g"], numpy.nan)}, folder / "nan.safetensors")
    (folder / "text.safetensors").write_text("not tensors")
    return folder


class PromptsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        adapters = e2e.copy_adapters(e2e.DEMO_ADAPTERS)
        cls.server = e2e.Server("--embeddings", make_embeddings(), adapters=adapters)
        cls.caller = cls.server.caller

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def image(self, *adapters, **fields):
        return self.caller.image(request_for(*adapters, **fields))

    # --- textual inversion

    def test_an_embedding_takes_part_in_its_request_alone(self):
        prompt = "a large red circle, ink"
        base = self.image(prompt=prompt)
        ink = images_pb2.EmbeddingRef(name="styles/ink", token="ink")
        answer = self.caller.generate(request_for(prompt=prompt, embeddings=[ink]))
        (applied,) = answer.summary.embeddings
        self.assertEqual((applied.name, applied.token, applied.vectors), ("styles/ink", "ink", 2))
        self.assertRegex(applied.content_sha256, "^[0-9a-f]{64}$")
        self.assertNotEqual(pixels(answer.images[0].data), pixels(base))
        self.assertEqual(self.image(prompt=prompt), base, "something is left of the embedding")
        by_name = self.image(prompt="a large red circle, Styles/Ink", embeddings=[images_pb2.EmbeddingRef(name="styles/ink")])
        self.assertEqual(pixels(by_name), pixels(answer.images[0].data))
        unused = self.image(prompt="a large red circle", embeddings=[ink])
        self.assertEqual(pixels(unused), pixels(self.image(prompt="a large red circle")))
        _, _, settings = parameters_of(answer.images[0].data)
        self.assertEqual(hashes_of(settings["TI hashes"]), {"ink": applied.content_sha256[:12]})

    def test_embeddings_that_cannot_be_had_are_refused(self):
        cases = [
            ("nobody", "NOT_FOUND", "EMBEDDING_NOT_FOUND"),
            ("old", "FAILED_PRECONDITION", "EMBEDDING_MISMATCH"),
            ("wide", "FAILED_PRECONDITION", "EMBEDDING_MISMATCH"),
            ("nan", "FAILED_PRECONDITION", "EMBEDDING_INVALID"),
            ("text", "FAILED_PRECONDITION", "EMBEDDING_INVALID"),
        ]
        for name, code, reason in cases:
            with self.subTest(name):
                request = request_for(embeddings=[images_pb2.EmbeddingRef(name=name)])
                problem = e2e.problem_of(lambda: self.caller.generate(request))
                self.assertEqual((problem.code, problem.reason), (code, reason))
                self.assertIn(f'"{name}"', problem.message)
        for ref in [{"name": "../a"}, {"name": "a", "token": "two words"}, {"name": "a", "token": ""}, {}]:
            request = request_for(embeddings=[images_pb2.EmbeddingRef(**ref)])
            problem = e2e.problem_of(lambda: self.caller.generate(request))
            self.assertEqual((problem.code, len(problem.fields)), ("INVALID_ARGUMENT", 1), ref)

    # --- tags

    def test_tags_are_adapters_where_they_are_asked_for(self):
        tagged = self.caller.generate(request_for(prompt="<lora:outline:0.8>a large red circle<lora:night:-0.5:0.25>", lora_tags=True))
        night = images_pb2.AdapterRef(name="night", weight=0.25, text_encoder_weight=-0.5)
        listed = request_for(("outline", 0.8))
        listed.adapters.append(night)
        listed = self.caller.generate(listed)
        self.assertEqual(tagged.images[0].data, listed.images[0].data)
        self.assertEqual([adapter.name for adapter in tagged.summary.adapters], ["outline", "night"])
        plain = self.caller.generate(request_for(prompt="<lora:outline:0.8>a large red circle"))
        self.assertEqual(len(plain.summary.adapters), 0)
        self.assertNotEqual(pixels(plain.images[0].data), pixels(self.image()))
        prompt, _, settings = parameters_of(tagged.images[0].data)
        self.assertEqual(prompt, "a large red circle <lora:outline:0.8> <lora:night:-0.5:0.25>")
        again = self.caller.generate(request_for(prompt=prompt, lora_tags=True))
        self.assertEqual(pixels(again.images[0].data), pixels(tagged.images[0].data))
        expected = {adapter.name: adapter.content_sha256[:12] for adapter in tagged.summary.adapters}
        self.assertEqual(hashes_of(settings["Lora hashes"]), expected)

    def test_tags_that_are_not_sound_are_refused(self):
        many = "".join(f"<lora:a{i}:1>" for i in range(17))
        for prompt, field in [("<lora:night:x>", "prompt"), ("<lora:night:11>", "prompt"), ("<lora:../a:1>", "prompt"),
                              ("<lora:night:1><lora:night:1>", "prompt"), (many, "adapters")]:
            with self.subTest(prompt):
                request = request_for(prompt=prompt, lora_tags=True)
                problem = e2e.problem_of(lambda: self.caller.generate(request))
                self.assertEqual((problem.code, list(problem.fields)), ("INVALID_ARGUMENT", [field]))
        request = request_for("night", prompt="<lora:night:1>", lora_tags=True)
        self.assertIn("in the list already", e2e.problem_of(lambda: self.caller.generate(request)).fields["prompt"])
        request = request_for(prompt="<lora:nobody:1>", lora_tags=True)
        self.assertEqual(e2e.problem_of(lambda: self.caller.generate(request)).reason, "ADAPTER_NOT_FOUND")

    # --- emphasis and length

    def test_emphasis_is_read_only_where_it_is_asked_for(self):
        plain = "a large red circle"
        self.assertEqual(pixels(self.image(prompt=plain, prompt_syntax=WEIGHTED)), pixels(self.image(prompt=plain)))
        strong = "a large (red:1.6) circle"
        self.assertNotEqual(pixels(self.image(prompt=strong, prompt_syntax=WEIGHTED)), pixels(self.image(prompt=plain)))
        self.assertNotEqual(pixels(self.image(prompt=strong, prompt_syntax=WEIGHTED)), pixels(self.image(prompt=strong)))
        literal = self.image(prompt=strong, prompt_syntax=images_pb2.PROMPT_SYNTAX_PLAIN)
        self.assertEqual(literal, self.image(prompt=strong))
        request = request_for(prompt="(red:1000)", prompt_syntax=WEIGHTED)
        self.assertEqual(list(e2e.problem_of(lambda: self.caller.generate(request)).fields), ["prompt"])

    def test_long_prompts_are_cut_off_unless_they_are_asked_for(self):
        head = "red " * 75
        self.assertEqual(pixels(self.image(prompt=head + "blue")), pixels(self.image(prompt=head)))
        self.assertNotEqual(pixels(self.image(prompt=head + "blue", long_prompts=True)), pixels(self.image(prompt=head)))
        joined = self.image(prompt=head + "blue", long_prompts=True, negative_prompt="green")
        broken = self.image(prompt=head + "BREAK blue", long_prompts=True, negative_prompt="green")
        self.assertEqual(pixels(joined), pixels(broken))
        request = request_for(prompt="red " * 1300, long_prompts=True)
        self.assertEqual(e2e.problem_of(lambda: self.caller.generate(request)).reason, "PROMPT_TOO_LONG")

    # --- guidance

    def test_each_setting_of_guidance_changes_the_picture(self):
        fields = {"steps": 4, "guidance_scale": 6.0, "negative_prompt": "blue"}
        small = images_pb2.SizeConditioning(original_width=8, original_height=8, target_width=64, target_height=64)
        variants = [
            {},
            {"guidance_rescale": 0.7},
            {"guidance_start": 0.5},
            {"guidance_end": 0.5},
            {"negative_size_conditioning": small},
            {"size_conditioning": small},
            {"guidance_scale": 1.0},
        ]
        pictures = [pixels(self.image(**{**fields, **variant})) for variant in variants]
        for i, picture in enumerate(pictures):
            self.assertNotIn(picture, pictures[:i], variants[i])
        # Of no effect: the whole window, and the negative side without guidance.
        self.assertEqual(pixels(self.image(**fields, guidance_start=0.0, guidance_end=1.0)), pictures[0])
        off = {**fields, "guidance_scale": 1.0, "negative_size_conditioning": small}
        self.assertEqual(pixels(self.image(**off)), pictures[-1])

    # --- the parameters of a PNG

    def test_a_png_says_what_made_it(self):
        request = request_for("outline", prompt="un cercle (très) rouge,\n\u2588", negative_prompt="blue: \"dark\"", prompt_2='two "a", b',
                              guidance_end=0.5, guidance_rescale=0.25, clip_skip=1, sampler=images_pb2.SAMPLER_DPMPP_2M,
                              schedule=images_pb2.NOISE_SCHEDULE_KARRAS, num_images=2)
        answer = self.caller.generate(request)
        for i, image in enumerate(answer.images):
            prompt, negative, settings = parameters_of(image.data)
            self.assertEqual(prompt, "un cercle (très) rouge,\n\u2588 <lora:outline:1>")
            self.assertEqual(negative, 'blue: "dark"')
            hashes = settings.pop("Lora hashes")
            self.assertEqual(hashes, f"outline: {answer.summary.adapters[0].content_sha256[:12]}")
            expected = {
                "Steps": "2", "Sampler": "DPM++ 2M", "Schedule type": "Karras", "Emphasis": "None", "CFG scale": "5",
                "Seed": str(7 + i), "Size": "64x64", "Model hash": answer.summary.model_sha256[:10], "Model": "model",
                "Clip skip": "2", "Prompt 2": 'two "a", b', "CFG rescale": "0.25", "CFG window": "0 to 0.5",
                "Version": f"hotlora {answer.summary.server_version}",
            }
            self.assertEqual(settings, expected)

    def test_adapters_by_range_and_block_are_read_back(self):
        request = request_for(prompt="a large red circle", steps=3)
        request.adapters.add(name="outline", start=1 / 3, end=1)
        night = request.adapters.add(name="night", weight=0.5)
        night.blocks.add(prefix="up_blocks", weight=1.1)
        night.blocks.add(prefix="down_blocks.1", weight=0.1 + 0.2)
        made = self.caller.image(request)
        prompt, _, settings = parameters_of(made)
        self.assertEqual(settings["Lora ranges"], "outline: 0.33333333333333331 to 1")
        again = request_for(prompt=prompt.split(" <lora:")[0], steps=int(settings["Steps"]))
        for tag in prompt.split(" <lora:")[1:]:
            name, weight = tag.removesuffix(">").split(":")
            again.adapters.add(name=name, weight=float(weight))
        refs = {ref.name: ref for ref in again.adapters}
        for name, ends in (entry.split(": ") for entry in settings["Lora ranges"].split(", ")):
            refs[name].start, refs[name].end = map(float, ends.split(" to "))
        for name, blocks in (entry.split(": ") for entry in settings["Lora blocks"].split(", ")):
            for prefix, weight in (block.split("=") for block in blocks.split(" ")):
                refs[name].blocks.add(prefix=prefix, weight=float(weight))
        self.assertEqual(self.caller.image(again), made)
        self.assertNotEqual(pixels(made), pixels(self.image("outline", ("night", 0.5), steps=3)))

    def test_a_png_says_eta_and_the_new_schedules(self):
        tcd = self.image(sampler=images_pb2.SAMPLER_TCD, eta=0.25)
        self.assertEqual(parameters_of(tcd)[2]["Eta"], "0.25")
        ddim = parameters_of(self.image(sampler=images_pb2.SAMPLER_DDIM, eta=0.5))[2]
        self.assertEqual((ddim["Sampler"], ddim["Eta DDIM"]), ("DDIM", "0.5"))
        lu = parameters_of(self.image(sampler=images_pb2.SAMPLER_DPMPP_3M_SDE, schedule=images_pb2.NOISE_SCHEDULE_LU))[2]
        self.assertEqual((lu["Sampler"], lu["Schedule type"]), ("DPM++ 3M SDE", "Lu"))


if __name__ == "__main__":
    unittest.main()
