"""webuiapi, a client made for AUTOMATIC1111's web UI, with a server behind Envoy as deploy/ ships it."""

import base64
import contextlib
import io
import json
import threading
import unittest

import balancers
from balancers import e2e
from PIL import Image, ImageDraw
import webuiapi

from hotlora_server import images_pb2, pixels, request_for

TOKENS = {"alice": "token-of-alice-01", "bob": "token-of-bob-0001"}
SMALL = {"seed": 7, "steps": 4, "width": 64, "height": 64}  # of both APIs
SAMPLERS = {
    "Euler": {"sampler": images_pb2.SAMPLER_EULER},
    "Euler a": {"sampler": images_pb2.SAMPLER_EULER_ANCESTRAL},
    "Heun": {"sampler": images_pb2.SAMPLER_HEUN},
    "DDIM": {"sampler": images_pb2.SAMPLER_DDIM},
    "DPM++ 2M": {"sampler": images_pb2.SAMPLER_DPMPP_2M},
    "DPM++ 2M SDE": {"sampler": images_pb2.SAMPLER_DPMPP_2M_SDE},
    "UniPC": {"sampler": images_pb2.SAMPLER_UNIPC},
    "LCM": {"sampler": images_pb2.SAMPLER_LCM},
    "TCD": {"sampler": images_pb2.SAMPLER_TCD},
    "DPM2": {"sampler": images_pb2.SAMPLER_DPM2},
    "DPM2 a": {"sampler": images_pb2.SAMPLER_DPM2_ANCESTRAL},
    "LMS": {"sampler": images_pb2.SAMPLER_LMS},
    "DEIS": {"sampler": images_pb2.SAMPLER_DEIS},
    "DPM++ 2S": {"sampler": images_pb2.SAMPLER_DPMPP_2S},
    "DPM++ 3M": {"sampler": images_pb2.SAMPLER_DPMPP_3M},
    "DPM++ 3M SDE": {"sampler": images_pb2.SAMPLER_DPMPP_3M_SDE},
}


def grpc_request(*adapters, **fields):
    """What an AUTOMATIC1111 request of the same settings is for gRPC."""
    defaults = {"guidance_scale": 7.0, "prompt_syntax": images_pb2.PROMPT_SYNTAX_WEIGHTED, "long_prompts": True, **SMALL}
    return request_for(*adapters, **{**defaults, **fields})


def files(result):
    """The image files in an answer, as they came."""
    return [base64.b64decode(image) for image in result.json["images"]]


def picture(color):
    image = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(image).ellipse((12, 12, 52, 52), fill=color)
    return image


def png(image):
    return base64.b64decode(webuiapi.raw_b64_img(image))


class WebuiCase(unittest.TestCase):
    flags = ()

    @classmethod
    def setUpClass(cls):
        cls.replica = balancers.Replica(e2e.DEMO_ADAPTERS, "--max-batch", "1", *cls.flags)
        cls.addClassCleanup(cls.replica.kill)
        cls.envoy = balancers.Envoy([cls.replica])
        cls.addClassCleanup(cls.envoy.stop)

    def client(self, user=None, password=None):
        api = webuiapi.WebUIApi(baseurl=f"{self.envoy.rest_url}/sdapi/v1", sampler="Euler", username=user, password=password)
        api.session.trust_env = False  # no proxy
        return api

    def refusal(self, call):
        """The status and text of the error that `call` ends with."""
        with self.assertRaises(RuntimeError) as caught:
            call()
        return caught.exception.args

    def start(self, api, **fields):
        """Begins a long txt2img. The function returned waits for its end and gives the answer, or the error."""
        ended = []

        def work():
            try:
                ended.append(api.txt2img(prompt="a large red circle", **{**SMALL, **fields}))
            except RuntimeError as error:
                ended.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()

        def result():
            thread.join(timeout=2 * e2e.PATIENCE)
            self.assertEqual(len(ended), 1, "the request hangs")
            return ended[0]

        return result


class ImagesTest(WebuiCase):
    def setUp(self):
        self.api = self.client()

    def grpc_files(self, request):
        return [image.data for image in self.replica.caller.generate(request).images]

    def test_txt2img_is_grpcs_picture(self):
        prompt = "a (large:1.2) red circle "
        result = self.api.txt2img(prompt=f"{prompt}<lora:night:0.7>", negative_prompt="", **SMALL)
        tagged = grpc_request(prompt=f"{prompt}<lora:night:0.7>", lora_tags=True)
        named = grpc_request(("night", 0.7), prompt=prompt)
        self.assertEqual(files(result), self.grpc_files(tagged))
        self.assertEqual(files(result), self.grpc_files(named))
        base = grpc_request(prompt=prompt)
        self.assertTrue((pixels(files(result)[0]) != pixels(self.grpc_files(base)[0])).any())

        self.assertEqual(result.image.size, (64, 64))
        self.assertEqual(result.info["seed"], 7)
        self.assertEqual(result.info["infotexts"], [result.image.info["parameters"]])
        self.assertEqual(result.info["sampler_name"], "Euler")
        self.assertEqual(result.parameters["steps"], 4)
        self.assertEqual(result.parameters["prompt"], f"{prompt}<lora:night:0.7>")

    def test_defaults_of_the_api(self):
        answer = self.api.session.post(f"{self.api.baseurl}/txt2img", json={"prompt": "a circle", "seed": 1, "width": 64,
                                                                          "height": 64})
        request = grpc_request(prompt="a circle", seed=1, steps=50)
        self.assertEqual([base64.b64decode(image) for image in answer.json()["images"]], self.grpc_files(request))
        self.assertEqual(json.loads(answer.json()["info"])["cfg_scale"], 7)

    def test_negative_prompts_batches_and_random_seeds(self):
        result = self.api.txt2img(prompt="a circle", negative_prompt="a square", batch_size=2, n_iter=2, **SMALL)
        self.assertEqual(files(result),
                         self.grpc_files(grpc_request(prompt="a circle", negative_prompt="a square", num_images=4)))
        self.assertEqual(result.info["all_seeds"], [7, 8, 9, 10])
        seeds = {self.api.txt2img(prompt="a circle", **{**SMALL, "seed": -1}).info["seed"] for _ in range(3)}
        self.assertEqual(len(seeds), 3)

    def test_every_sampler_is_grpcs(self):
        self.assertEqual(set(self.api.util_get_sampler_names()), set(SAMPLERS))
        for name, fields in SAMPLERS.items():
            with self.subTest(name):
                result = self.api.txt2img(prompt="a circle", sampler_name=name, **SMALL)
                self.assertEqual(files(result), self.grpc_files(grpc_request(prompt="a circle", **fields)))
        karras = grpc_request(prompt="a circle", sampler=images_pb2.SAMPLER_DPMPP_2M,
                              schedule=images_pb2.NOISE_SCHEDULE_KARRAS)
        for fields in ({"sampler_name": "DPM++ 2M Karras"}, {"sampler_name": "DPM++ 2M", "scheduler": "karras"}):
            result = self.api.txt2img(prompt="a circle", **fields, **SMALL)
            self.assertEqual(files(result), self.grpc_files(karras))
            self.assertEqual(result.info["extra_generation_params"], {"Schedule type": "Karras"})

    def test_a_second_pass_is_grpcs_picture(self):
        fields = {"hr_scale": 1.5, "hr_second_pass_steps": 6, "denoising_strength": 0.5}
        result = self.api.txt2img(prompt="a circle <lora:night:0.7>", enable_hr=True, hr_upscaler=webuiapi.HiResUpscaler.Lanczos,
                                  **fields, **SMALL)
        request = grpc_request(("night", 0.7), prompt="a circle ")
        request.hires.scale, request.hires.steps, request.hires.strength = 1.5, 6, 0.5
        self.assertEqual(files(result), self.grpc_files(request))
        self.assertEqual(result.image.size, (96, 96))
        self.assertEqual((result.info["width"], result.info["denoising_strength"]), (64, 0.5))
        self.assertEqual(result.info["extra_generation_params"], {"Hires upscale": 1.5, "Hires steps": 6, "Hires upscaler": "Lanczos"})

    def test_img2img_is_grpcs_picture(self):
        init = picture("red")
        result = self.api.img2img(images=[init], prompt="a circle", denoising_strength=0.6, **SMALL)
        request = grpc_request(prompt="a circle", init_image=png(init), strength=0.6)
        self.assertEqual(files(result), self.grpc_files(request))
        self.assertEqual(result.info["denoising_strength"], 0.6)

    def test_inpainting_is_grpcs_picture(self):
        init, mask = picture("red"), Image.new("L", (64, 64), 0)
        ImageDraw.Draw(mask).rectangle((0, 0, 31, 63), fill=255)
        settings = {"images": [init], "mask_image": mask, "prompt": "a circle", "denoising_strength": 0.75, **SMALL}
        plain = {"mask_blur": 0, "inpainting_fill": 1, "inpaint_full_res": False}
        result = self.api.img2img(**settings, **plain)
        request = grpc_request(prompt="a circle", init_image=png(init), mask_image=png(mask), strength=0.75)
        self.assertEqual(files(result), self.grpc_files(request))
        _, text = self.refusal(lambda: self.api.img2img(**settings))
        for field in plain:  # the client's own defaults ask for more than the server can do
            self.assertIn(field, text)

    def test_a_format_by_override_settings(self):
        result = self.api.txt2img(prompt="a circle", override_settings={"samples_format": "jpg"}, **SMALL)
        self.assertEqual(result.image.format, "JPEG")
        self.assertEqual(files(result), self.grpc_files(grpc_request(prompt="a circle", format=images_pb2.IMAGE_FORMAT_JPEG)))

    def test_lists(self):
        self.assertEqual([lora["name"] for lora in self.api.get_loras()], ["night", "outline"])
        self.assertIn("karras", self.api.util_get_scheduler_names())
        (model,) = self.api.get_sd_models()
        self.assertEqual(model["model_name"], "model")
        self.assertEqual(len(model["sha256"]), 64)
        self.assertEqual(self.api.controlnet_model_list(), [])
        self.assertIn("ip-adapter-auto", self.api.controlnet_module_list())

    def test_options(self):
        current = self.api.util_get_current_model()
        self.assertEqual(self.api.util_get_model_names(), [current])
        with contextlib.redirect_stdout(io.StringIO()):
            self.api.util_set_model("model")  # finds the closest name, which is in force
        self.assertEqual(self.api.set_options(self.api.get_options()), {})
        self.assertIn("sd_model_checkpoint", str(self.api.set_options({"sd_model_checkpoint": "dreamshaper"})))
        self.assertIn("face_restoration", str(self.api.set_options({"face_restoration": True})))
        self.assertEqual(self.api.util_get_current_model(), current)


class ProgressTest(WebuiCase):
    def setUp(self):
        self.api = self.client()

    def await_progress(self, api, condition, what):
        return e2e.wait_until(lambda: (lambda told: told if condition(told) else None)(api.get_progress()), what)

    def test_progress_goes_up_and_ends_at_0(self):
        self.assertEqual(self.api.get_progress()["progress"], 0)
        result = self.start(self.client(), steps=300)
        told = self.await_progress(self.api, lambda told: told["state"]["sampling_step"] >= 20, "20 steps are done")
        self.assertLess(told["progress"], 1)
        self.assertGreater(told["progress"], 0)
        self.assertGreater(told["eta_relative"], 0)
        self.assertEqual(told["state"]["job"], "txt2img")
        self.assertEqual(told["state"]["job_count"], 1)
        self.assertEqual(told["state"]["sampling_steps"], 300)
        preview = Image.open(io.BytesIO(base64.b64decode(told["current_image"])))
        self.assertEqual(preview.size, (8, 8))
        without = self.api.session.get(f"{self.api.baseurl}/progress?skip_current_image=true").json()
        self.assertIsNone(without["current_image"])
        self.assertEqual(len(result().images), 1)
        self.api.util_wait_for_ready(check_interval=0.01)

    def test_interrupt_ends_a_request_without_an_image(self):
        result = self.start(self.client(), steps=1000)
        self.await_progress(self.api, lambda told: told["progress"] > 0, "it runs")
        self.assertEqual(self.api.interrupt(), {})
        status, text = result().args
        self.assertEqual(status, 499)
        self.assertIn("interrupted", text)
        self.api.util_wait_for_ready(check_interval=0.01)
        self.assertEqual(len(self.api.txt2img(prompt="a circle", **SMALL).images), 1)

    def test_interrupt_keeps_finished_images(self):
        result = self.start(self.client(), steps=100, n_iter=16)
        self.await_progress(self.api, lambda told: told["state"]["job_no"] >= 1, "one image is finished")
        self.api.interrupt()
        answer = result()
        self.assertIn(len(answer.images), range(1, 16))
        self.assertEqual(answer.info["all_seeds"], list(range(7, 7 + len(answer.images))))


class TokensTest(WebuiCase):
    @classmethod
    def setUpClass(cls):
        tokens = e2e.temporary_folder() / "tokens"
        tokens.write_text("".join(f"{token} generate,adapters.read\n" for token in TOKENS.values()))
        tokens.chmod(0o600)
        cls.flags = ("--tokens-file", tokens)
        super().setUpClass()

    def test_the_password_is_the_token(self):
        alice = self.client("alice", TOKENS["alice"])
        self.assertEqual(len(alice.txt2img(prompt="a circle", **SMALL).images), 1)
        self.assertEqual(len(alice.get_loras()), 2)
        for user, password in ((None, None), ("alice", "token-of-alice-02"), (TOKENS["alice"], "x")):
            status, _ = self.refusal(lambda: self.client(user, password).txt2img(prompt="a circle", **SMALL))
            self.assertEqual(status, 401)
        for broken in ("Basic", "Basic !", "Basic YWxpY2U=", "Basic " + "A" * 8000):
            answer = self.client().session.get(f"{self.envoy.rest_url}/sdapi/v1/options",
                                               headers={"Authorization": broken})
            self.assertEqual(answer.status_code, 401, broken)

    def test_progress_and_interrupt_are_the_callers_own(self):
        alice, bob = (self.client(name, token) for name, token in TOKENS.items())
        of_alice = self.start(self.client("alice", TOKENS["alice"]), steps=1000)
        e2e.wait_until(lambda: alice.get_progress()["progress"] > 0, "Alice's request runs")
        self.assertEqual(bob.get_progress()["state"]["job_count"], 0)
        self.assertIsNone(bob.get_progress()["current_image"])
        bob.interrupt()
        before = alice.get_progress()["state"]["sampling_step"]
        e2e.wait_until(lambda: alice.get_progress()["state"]["sampling_step"] > before, "Alice's request goes on")
        alice.interrupt()
        self.assertEqual(of_alice().args[0], 499)


class BadInputTest(WebuiCase):
    def setUp(self):
        self.api = self.client()

    def post(self, path, body):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.api.session.post(f"{self.api.baseurl}/{path}", data=data, headers={"Content-Type": "application/json"})

    def test_errors_name_the_field_and_the_next_request_works(self):
        good_image = webuiapi.raw_b64_img(picture("red"))
        cut_off = base64.b64encode(png(picture("red"))[:60]).decode()
        cases = [
            ("txt2img", {"steps": "many"}, "steps"),
            ("txt2img", {"steps": 1.5}, "steps"),
            ("txt2img", {"steps": {"a": 20}}, "steps"),
            ("txt2img", {"width": 100}, "width"),
            ("txt2img", {"width": 1e10}, "width"),
            ("txt2img", {"height": -64}, "height"),
            ("txt2img", {"cfg_scale": "NaN"}, "cfg_scale"),
            ("txt2img", {"cfg_scale": "Infinity"}, "cfg_scale"),
            ("txt2img", {"seed": "x"}, "seed"),
            ("txt2img", {"prompt": {"a": 1}}, "prompt"),
            ("txt2img", {"prompt": "(a:1.2.3)"}, "prompt"),
            ("txt2img", {"prompt": "<lora:night:strong>"}, "prompt"),
            ("txt2img", {"sampler_name": "PLMS"}, "sampler_name"),
            ("txt2img", {"sampler_index": "PLMS"}, "sampler_index"),
            ("txt2img", {"scheduler": "Uniform"}, "scheduler"),
            ("txt2img", {"batch_size": 17}, "batch_size"),
            ("txt2img", {"enable_hr": True, "hr_upscaler": "Latent"}, "hr_upscaler"),
            ("txt2img", {"enable_hr": True, "hr_scale": 5}, "hr_scale"),
            ("txt2img", {"enable_hr": True, "hr_second_pass_steps": -1}, "hr_second_pass_steps"),
            ("txt2img", {"tiling": True}, "tiling"),
            ("txt2img", {"styles": "anime"}, "styles"),
            ("txt2img", {"override_settings": {"sd_model_checkpoint": "dreamshaper"}}, "sd_model_checkpoint"),
            ("txt2img", {"alwayson_scripts": {"ControlNet": {"args": [{"model": "canny"}]}}}, "ControlNet"),
            ("img2img", {}, "init_images"),
            ("img2img", {"init_images": ["no base64!"]}, "init_images"),
            ("img2img", {"init_images": [good_image[:-5] + "%"]}, "init_images"),
            ("img2img", {"init_images": ["data:image/png;base64,AAAA"]}, "init_images"),
            ("img2img", {"init_images": [cut_off]}, "init_images"),
            ("img2img", {"init_images": [7]}, "init_images"),
            ("img2img", {"init_images": [good_image], "mask": "no base64!"}, "mask"),
            ("img2img", {"init_images": [good_image], "denoising_strength": 0}, "denoising_strength"),
            ("img2img", {"init_images": [good_image], "denoising_strength": "NaN"}, "denoising_strength"),
            ("options", {"sd_model_checkpoint": "dreamshaper"}, "sd_model_checkpoint"),
        ]
        for path, fields, named in cases:
            with self.subTest(path=path, fields=str(fields)[:80]):
                answer = self.post(path, fields if path == "options" else {"prompt": "a circle", **SMALL, **fields})
                self.assertIn(answer.status_code, (400, 422), answer.text[:500])
                self.assertIn(named, answer.text)
                self.assertEqual(len(self.api.txt2img(prompt="a circle", **{**SMALL, "steps": 1}).images), 1)

    def test_what_is_not_a_request(self):
        unknown = self.post("txt2img", {"prompt": "<lora:nobody:1>", **SMALL})
        self.assertEqual(unknown.status_code, 404)
        self.assertIn("nobody", unknown.text)
        for body in (b"[1]", b"null", b"{", b'{"steps": [20]}', b'{"prompt": NaN}', b"\xff\xfe", b'{"prompt": "\xc3\x28"}'):
            with self.subTest(body):
                self.assertIn(self.post("txt2img", body).status_code, (400, 422))
        large = self.post("img2img", b'{"init_images": ["' + b"A" * (40 << 20) + b'"]}')
        self.assertEqual(large.status_code, 413)
        self.assertEqual(len(self.api.txt2img(prompt="a circle", **SMALL).images), 1)


if __name__ == "__main__":
    unittest.main()
