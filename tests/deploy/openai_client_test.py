"""OpenAI's own Python client against a server behind Envoy as deploy/ ships it."""

import base64
import concurrent.futures
import contextlib
import io
import shutil
import time
import unittest

import balancers
from balancers import e2e
import numpy
import openai
from hotlora_server import images_pb2, request_for
from PIL import Image

PROMPT = request_for().prompt
HARD_NAME = "styles/neon+glow (100%), \u6c34\u5f69"
HARD_ID = "styles/neon%2Bglow (100%25), \u6c34\u5f69"


def adapter_folder():
    folder = e2e.copy_adapters(e2e.DEMO_ADAPTERS)
    for name in (HARD_NAME, "sdxl"):
        file = folder / f"{name}.safetensors"
        file.parent.mkdir(exist_ok=True)
        shutil.copyfile(folder / "night.safetensors", file)
    (folder / "broken.safetensors").write_bytes(b"not safetensors")
    return folder


class OpenAiCase(unittest.TestCase):
    """One server behind Envoy; `flags` are the server's."""

    flags = ()

    @classmethod
    def setUpClass(cls):
        cls.replica = balancers.Replica(adapter_folder(), *cls.flags)
        cls.addClassCleanup(cls.replica.kill)
        cls.envoy = balancers.Envoy([cls.replica])
        cls.addClassCleanup(cls.envoy.stop)
        cls.client = cls.make_client()
        cls.addClassCleanup(cls.client.close)

    @classmethod
    def make_client(cls, **options):
        """A client of the server: without retries and without the environment's proxies, unless `options` say so."""
        return openai.OpenAI(**{"base_url": cls.envoy.rest_url + "/v1", "api_key": "none", "max_retries": 0,
                                "timeout": 2 * e2e.PATIENCE, "http_client": openai.DefaultHttpxClient(trust_env=False), **options})

    def generate(self, client=None, extra=None, **words):
        """The same small request as request_for(); `extra` are hotlora's own fields."""
        client = client or self.client
        return client.images.generate(**{"prompt": PROMPT, "size": "64x64", **words},
                                      extra_body={"seed": 7, "steps": 2, **(extra or {})})

    def image(self, **words):
        """The bytes of the one image."""
        (image,) = self.generate(**words).data
        return base64.b64decode(image.b64_json, validate=True)


class GenerateTest(OpenAiCase):
    def test_the_image_is_the_file_that_grpc_gives(self):
        models = [({}, []), ({"model": "sdxl"}, []), ({"model": None}, []), ({"model": "night"}, ["night"]),
                  ({"model": "sdxl:1"}, ["sdxl"]), ({"model": "night:0.5+outline"}, [("night", 0.5), "outline"]),
                  ({"model": "outline:-1+night:0"}, [("outline", -1.0), ("night", 0.0)]),
                  ({"model": HARD_ID + ":2"}, [(HARD_NAME, 2.0)])]
        seen = set()
        for words, adapters in models:
            with self.subTest(**words):
                file = self.image(**words)
                self.assertEqual(file, self.replica.caller.image(request_for(*adapters)))
                parameters = Image.open(io.BytesIO(file)).text["parameters"]
                self.assertIn("Seed: 7", parameters)
                self.assertTrue(parameters.startswith(PROMPT), parameters)
                seen.add(e2e.pixels(file).tobytes())
        self.assertEqual(len(seen), 5)  # none and sdxl are one picture; so are night and the adapter sdxl, its copy

    def test_hotloras_own_fields(self):
        for extra, fields in (
                ({"guidance_scale": 2.5}, {}), ({"negative_prompt": ""}, {}), ({"negative_prompt": "blue", "steps": 3}, {}),
                ({"sampler": "SAMPLER_DPMPP_2M", "schedule": "NOISE_SCHEDULE_KARRAS"},
                 {"sampler": images_pb2.SAMPLER_DPMPP_2M, "schedule": images_pb2.NOISE_SCHEDULE_KARRAS}),
                ({"seed": str(2**64 - 1)}, {"seed": 2**64 - 1})):
            with self.subTest(**extra):
                self.assertEqual(self.image(extra=extra), self.replica.caller.image(request_for(**{**extra, **fields})))

    def test_several_images(self):
        begin = int(time.time())
        answer = self.generate(n=3, model="night")
        expected = self.replica.caller.generate(request_for("night", num_images=3)).images
        self.assertEqual([base64.b64decode(image.b64_json) for image in answer.data], [image.data for image in expected])
        self.assertEqual([int(image.seed) for image in answer.data], [7, 8, 9])
        self.assertEqual((answer.size, answer.output_format, answer.background), ("64x64", "png", "opaque"))
        self.assertIsInstance(answer.created, int)
        self.assertTrue(begin <= answer.created <= time.time())
        self.assertEqual([(image.url, image.revised_prompt) for image in answer.data], [(None, None)] * 3)

    def test_sizes(self):
        for size, expected in (("96x64", (96, 64)), ("64x96", (64, 96)), ("auto", (128, 128)), (openai.omit, (128, 128)),
                               (None, (128, 128))):
            file = self.image(size=size, extra={"steps": 1})
            self.assertEqual(Image.open(io.BytesIO(file)).size, expected)

    def test_formats(self):
        for name in ("png", "jpeg", "webp"):
            for compression, quality in ((openai.omit, None), (0, 1), (30, 30), (100, 100)):
                with self.subTest(format=name, compression=compression):
                    file = self.image(output_format=name, output_compression=compression)
                    self.assertEqual(Image.open(io.BytesIO(file)).format, name.upper())
                    value = images_pb2.ImageFormat.Value(f"IMAGE_FORMAT_{name.upper()}")
                    self.assertEqual(file, self.replica.caller.image(request_for(format=value, quality=quality)))

    def test_what_clients_send_beside_it_changes_nothing(self):
        file = self.image(response_format="b64_json", background="auto", quality="standard", style="vivid", moderation="low",
                          user="user-1", stream=False, extra={"safety_identifier": "user-2", "partial_images": 0})
        self.assertEqual(file, self.image())
        self.assertNotIn("user-1", self.replica.log())

    def test_callers_with_different_adapters_at_once(self):
        models = ["sdxl", "night", "outline", "night:0.5+outline"] * 2
        alone = {model: e2e.pixels(self.image(model=model)) for model in set(models)}
        with concurrent.futures.ThreadPoolExecutor(len(models)) as callers:
            files = list(callers.map(lambda model: self.image(model=model), models))
        for model, file in zip(models, files):
            # A row of a larger batch may be rounded differently, and more so with side branches.
            self.assertLessEqual(numpy.abs(e2e.pixels(file) - alone[model]).max(), 2, model)

    def test_calls_are_counted_and_their_id_is_in_the_answer(self):
        before = self.replica.metrics().sum("hotlora_requests_total", method="CreateImage", code="OK")
        answer = self.client.images.with_raw_response.generate(prompt=PROMPT, size="64x64", extra_body={"steps": 1})
        self.assertIn(f"request_id={answer.headers['x-request-id']}", self.replica.log())
        after = self.replica.metrics().sum("hotlora_requests_total", method="CreateImage", code="OK")
        self.assertEqual(after, before + 1)

    def test_a_caller_who_gives_up_ends_the_request(self):
        with self.assertRaises(openai.APITimeoutError):
            self.generate(client=self.client.with_options(timeout=0.5), extra={"steps": 1000})
        self.replica.wait_for_metric(1, "hotlora_requests_total", method="CreateImage", code="CANCELLED")
        self.image()


class ModelsTest(OpenAiCase):
    def test_each_listed_model_can_be_retrieved_and_used(self):
        models = list(self.client.models.list())
        self.assertEqual([model.id for model in models], ["sdxl", "broken", "night", "outline", "sdxl:1", HARD_ID])
        for model in models:
            self.assertEqual((model.object, model.owned_by, model.created), ("model", "hotlora", 0))
            self.assertEqual(self.client.models.retrieve(model.id), model)
            if model.id != "broken":
                self.image(model=model.id, extra={"steps": 1})
        with self.assertRaises(openai.BadRequestError) as caught:
            self.image(model="broken")
        self.assertEqual(caught.exception.code, "ADAPTER_INVALID")
        self.assertIn("broken", caught.exception.message)

    def test_a_set_of_adapters_is_a_model_too(self):
        self.assertEqual(self.client.models.retrieve("outline:-0.5+night").id, "outline:-0.5+night")
        for unknown in ("dall-e-3", "night+dall-e-3"):
            with self.assertRaises(openai.NotFoundError) as caught:
                self.client.models.retrieve(unknown)
            self.assertEqual(caught.exception.code, "ADAPTER_NOT_FOUND")
            self.assertIn("dall-e-3", caught.exception.message)
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.models.retrieve("night:strong")
        self.assertEqual(caught.exception.param, "model")


class BadInputTest(OpenAiCase):
    def tearDown(self):
        self.assertEqual(self.image(), self.replica.caller.image(request_for()), "the next request works")

    def test_bad_values_are_400_with_the_field_and_the_value(self):
        cases = [
            ("response_format", "url", '"url"'), ("response_format", "png", '"png"'),
            ("output_format", "gif", '"gif"'), ("output_compression", 101, "101"),
            ("background", "transparent", '"transparent"'), ("quality", "hd", '"hd"'), ("style", "natural", '"natural"'),
            ("size", "64", '"64"'), ("size", "64x65", "65"), ("size", "8192x64", "8192"), ("size", "4096x4096", "16777216"),
            ("size", "NaNxNaN", '"NaNxNaN"'), ("n", 0, "0"), ("n", 17, "17"),
            ("model", "night:", '"night:"'), ("model", "night:NaN", "nan"), ("model", "night:11", "11"),
            ("model", "night+outline+night", "adapter 3"), ("model", "+".join(f"s{i}" for i in range(17)), "17"),
            ("model", "../night", "begins with"), ("model", "100%", '"100%"'),
            ("prompt", "x" * 16385, "16385"),
        ]
        for field, value, shown in cases:
            with self.subTest(field=field, value=value[:40] if isinstance(value, str) else value):
                self.refused(field, shown, **{field: value})
        for field, value, shown in (
                ("steps", 0, "0"), ("steps", 1001, "1001"), ("guidance_scale", -1, "-1"), ("guidance_scale", "NaN", "nan"),
                ("guidance_scale", "Infinity", "inf"), ("sampler", 99, "99"), ("partial_images", 1, "1"), ("stream", True, "true")):
            with self.subTest(field=field, value=value):
                self.refused(field, shown, extra={field: value})

    def test_values_of_another_type_are_400_with_the_field(self):
        for field, value in (("n", "three"), ("n", 1.5), ("n", -1), ("n", [1]), ("n", 2**40), ("prompt", ["x"]),
                             ("prompt", {"x": 1}), ("model", {"x": 1}), ("size", [64, 64]), ("output_compression", "best"),
                             ("seed", -1), ("seed", "x"), ("seed", 1.5), ("seed", 2**64), ("steps", "many"), ("steps", 2.5),
                             ("guidance_scale", "high"), ("guidance_scale", "1e999"), ("sampler", "euler"),
                             ("schedule", "SAMPLER_EULER"), ("stream", "yes"), ("negative_prompt", ["x"])):
            with self.subTest(field=field, value=value):
                self.refused(field, "", extra={field: value})

    def test_unknown_fields_are_400_with_the_field(self):
        for field, value in (("frame_count", 3), ("complexity", "high"), ("svg", {"model": "x"}), ("width", 64), ("adapters", [])):
            self.refused(field, field, extra={field: value})

    def refused(self, field, shown, **words):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.generate(**words)
        error = caught.exception
        self.assertEqual((error.type, error.param), ("invalid_request_error", field), error.message)
        self.assertIn(field, error.message)
        self.assertIn(shown, error.message)

    def test_every_bad_field_is_in_the_message(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.generate(n=99, quality="hd", size="1x1", model="night:50")
        for field in ("n is 99", "quality is \"hd\"", "size (width) is 1", "size (height) is 1", "model (weight of adapter 1) is 50"):
            self.assertIn(field, caught.exception.message)
        self.assertEqual(caught.exception.code, "INVALID_REQUEST")

    def test_a_request_without_a_prompt(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.post("/images/generations", body={"n": 1}, cast_to=object)
        self.assertEqual(caught.exception.param, "prompt")

    def test_an_unknown_model_is_404(self):
        for model in ("gpt-image-2", "night+gpt-image-2:0.5", "Night"):
            with self.assertRaises(openai.NotFoundError) as caught:
                self.generate(model=model)
            self.assertEqual(caught.exception.code, "ADAPTER_NOT_FOUND")
            self.assertIn("gpt-image-2" if "gpt" in model else "Night", caught.exception.message)

    def test_what_this_api_does_not_have_is_404(self):
        with self.assertRaises(openai.NotFoundError) as caught:
            self.client.images.edit(image=("x.png", self.image(), "image/png"), prompt="x")
        self.assertEqual(caught.exception.type, "invalid_request_error")
        with self.assertRaises(openai.NotFoundError):
            self.client.models.delete("night")


class FullQueueTest(OpenAiCase):
    flags = ("--max-batch", 1, "--max-queue", 1)

    def test_it_is_429_until_there_is_room(self):
        with contextlib.ExitStack() as stack:
            calls = []
            for depth in (0, 1):
                calls.append(stack.enter_context(e2e.ended(self.replica.caller.stream(request_for(steps=1000)))))
                e2e.read_until(calls[-1], "accepted")
                self.replica.wait_for_metric(depth, "hotlora_queue_depth")
            with self.assertRaises(openai.RateLimitError) as caught:
                self.generate()
            self.assertEqual((caught.exception.code, caught.exception.type), ("QUEUE_FULL", "rate_limit_error"))
            self.assertGreaterEqual(int(caught.exception.response.headers["retry-after"]), 1)
            with concurrent.futures.ThreadPoolExecutor(1) as caller:
                patient = self.client.with_options(max_retries=20)
                answer = caller.submit(self.generate, client=patient)
                self.replica.wait_for_metric(2, "hotlora_requests_total", method="CreateImage", code="RESOURCE_EXHAUSTED")
                for call in calls:
                    call.cancel()
                self.assertEqual(len(answer.result(timeout=2 * e2e.PATIENCE).data), 1)


class TokensTest(OpenAiCase):
    PAINTER, READER = "painter-0123456789", "reader-0123456789"

    @classmethod
    def setUpClass(cls):
        tokens = e2e.temporary_folder() / "tokens"
        tokens.write_text(f"{cls.PAINTER} generate\n{cls.READER} adapters.read\n")
        tokens.chmod(0o600)
        cls.flags = ("--tokens-file", tokens)
        super().setUpClass()

    def test_the_key_is_the_token(self):
        painter, reader = (self.client.with_options(api_key=token) for token in (self.PAINTER, self.READER))
        self.assertEqual(len(self.generate(client=painter).data), 1)
        self.assertIn("night", [model.id for model in reader.models.list()])
        for call in (self.client.models.list, lambda: self.generate(client=self.client)):
            with self.assertRaises(openai.AuthenticationError) as caught:
                call()
            self.assertEqual(caught.exception.code, "UNAUTHENTICATED")
        for call in (painter.models.list, lambda: self.generate(client=reader)):
            with self.assertRaises(openai.PermissionDeniedError) as caught:
                call()
            self.assertEqual(caught.exception.code, "PERMISSION_DENIED")


class NoReplicaTest(OpenAiCase):
    def test_it_is_503(self):
        self.image()
        self.replica.kill()
        with self.assertRaises(openai.InternalServerError) as caught:
            self.generate()
        self.assertEqual((caught.exception.status_code, caught.exception.type), (503, "server_error"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
