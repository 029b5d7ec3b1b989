"""Image prompts from outside: the tiny golden checkpoint, IP-Adapters, an image encoder and diffusers' images of them."""

import base64
import concurrent.futures
import io
import json
import shutil
import subprocess
import unittest

import numpy
from google.protobuf import json_format
from PIL import Image

import hotlora_server as e2e
from control_test import GoldenPictures, cases, lines, upload_parts
from hotlora.sdapi.v1 import sdapi_pb2, sdapi_pb2_grpc
from hotlora_server import adapters_pb2, controls_pb2, image_prompts_pb2, images_pb2, request_for, server_pb2

PROMPTS = e2e.GOLDEN / "image_prompt"
# For all nets, image prompts and the encoder at once.
ROOM = ("--control-device-bytes", "16MiB", "--control-host-bytes", "16MiB")


def picture(name):
    return (PROMPTS / f"{name}.png").read_bytes()


def standard(**fields):
    return images_pb2.ImagePromptRef(**{"name": "standard", "images": [picture("red")], **fields})


def plus(**fields):
    return standard(name="plus", **fields)


class ImagePromptTest(GoldenPictures, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = e2e.temporary_folder()
        (cls.folder / "prompts").mkdir()
        for kind in ("standard", "plus"):
            shutil.copy(PROMPTS / f"{kind}.safetensors", cls.folder / "prompts")
        shutil.copytree(PROMPTS / "image_encoder", cls.folder / "encoder")
        cls.server = cls.start(*ROOM)

    @classmethod
    def start(cls, *flags, encoder=True):
        return e2e.Server(
            "--image-prompts", cls.folder / "prompts", *(("--image-encoder", cls.folder / "encoder") if encoder else ()),
            "--controls", e2e.golden_controlnets(), *flags, model=e2e.GOLDEN / "pipeline", adapters=e2e.GOLDEN / "adapters/files")

    def good(self):
        return request_for(image_prompts=[standard()])

    # --- pictures

    def test_alone_they_are_diffusers_pictures(self):
        golden = list(cases(PROMPTS))
        self.assertEqual(len(golden), 14)
        self.expect_alone(golden, "image_prompts")

    def test_at_once_they_are_the_same_and_leave_no_trace(self):
        self.expect_at_once(cases(PROMPTS))

    def test_a_png_says_its_image_prompts(self):
        blocks = [images_pb2.BlockWeight(prefix="up_blocks.0.attentions.1", weight=0.25)]
        data = self.server.caller.image(request_for(image_prompts=[standard(scale=0.5, images=[picture("red"), picture("blue")]), plus(blocks=blocks)]))
        text = Image.open(io.BytesIO(data)).text["parameters"]
        self.assertRegex(text, r'Image prompt 0: "Model: standard \[[0-9a-f]{12}\], Weight: 0.5, Images: 2", '
                               r'Image prompt 1: "Model: plus \[[0-9a-f]{12}\], Weight: 1, Images: 1, Blocks: up_blocks.0.attentions.1=0.25"')

    def test_a_hires_request_equals_its_two_requests(self):
        self.expect_both_passes("image_prompts", [standard(), plus(scale=0.5)])

    def test_scales_of_blocks_that_are_all_0_are_as_if_it_were_not_there(self):
        absent = e2e.pixels(self.server.caller.image(request_for()))
        blocks = [images_pb2.BlockWeight(prefix=prefix, weight=0) for prefix in ("down_blocks", "mid_block", "up_blocks")]
        answer = self.server.caller.generate(request_for(image_prompts=[standard(blocks=blocks)]))
        self.assertEqual(len(answer.summary.image_prompts), 0)
        self.assertTrue((e2e.pixels(answer.images[0].data) == absent).all())
        made = e2e.pixels(self.server.caller.image(request_for(image_prompts=[standard(blocks=blocks[:2])])))
        self.assertGreater(numpy.abs(made - absent).max(), 8, "the last block has the scale of 1")

    def test_units_of_automatic1111s_api_are_image_prompts(self):
        args = [{"module": "ip-adapter_clip_h", "model": "standard", "image": base64.b64encode(picture("red")).decode(), "weight": 0.75}]
        fields = dict(prompt="a lighthouse", steps=4, seed=7, width=64, height=64, cfg_scale=5.0, sampler_name="Euler")
        units = json_format.ParseDict({**fields, "alwayson_scripts": {"controlnet": {"args": args}}}, sdapi_pb2.GenerateRequest())
        answer = sdapi_pb2_grpc.SdapiServiceStub(self.server.caller.channel).Txt2Img(units, timeout=e2e.PATIENCE)
        ours = request_for(prompt="a lighthouse", steps=4, seed=7, guidance_scale=5.0, sampler=images_pb2.SAMPLER_EULER,
                           prompt_syntax=images_pb2.PROMPT_SYNTAX_WEIGHTED, long_prompts=True, image_prompts=[standard(scale=0.75)])
        self.assertTrue((e2e.pixels(answer.images[0]) == e2e.pixels(self.server.caller.image(ours))).all())

    # --- what is refused

    def test_bad_fields(self):
        nan = float("nan")
        rule = lambda prefix, weight=1.0: images_pb2.BlockWeight(prefix=prefix, weight=weight)
        problem = self.refused("INVALID_ARGUMENT", "INVALID_REQUEST", image_prompts=[
            standard(name="../x", images=[picture("red"), b"no picture", b""], scale=4.5),
            standard(images=[], scale=nan, blocks=[
                rule(""), rule("up_blocks.0"), rule("up_blocks.0"), rule("up_blocks.0.resnets.0"), rule("up_blocks.1", 4.5), rule("mid_block", -1)])])
        self.assertEqual(set(problem.fields), {
            "image_prompts[0].name", "image_prompts[0].images[1]", "image_prompts[0].images[2]", "image_prompts[0].scale",
            "image_prompts[1].images", "image_prompts[1].scale", "image_prompts[1].blocks[0].prefix",
            "image_prompts[1].blocks[2].prefix", "image_prompts[1].blocks[3].prefix", "image_prompts[1].blocks[4].weight",
            "image_prompts[1].blocks[5].weight"})
        bad = lambda **request: set(self.refused("INVALID_ARGUMENT", "INVALID_REQUEST", **request).fields)
        self.assertEqual(bad(image_prompts=[standard(), standard()]), {"image_prompts[1].name"})
        self.assertEqual(bad(image_prompts=[standard(), plus(), standard(name="third")]), {"image_prompts"})
        self.assertEqual(bad(image_prompts=[standard(images=[picture("red")] * 5)]), {"image_prompts[0].images"})
        self.assertEqual(bad(image_prompts=[standard(blocks=[rule("mid_block")] * 65)]), {"image_prompts[0].blocks"})
        cut = picture("other_size")[:200]
        self.assertEqual(bad(image_prompts=[standard(), plus(images=[picture("red"), cut])]), {"image_prompts[1].images[1]"})

    def test_names_and_files(self):
        self.refused("NOT_FOUND", "IMAGE_PROMPT_NOT_FOUND", image_prompts=[standard(name="absent")])
        for broken in sorted((e2e.GOLDEN / "broken_adapters").glob("*.safetensors")):
            shutil.copy(broken, self.folder / "prompts/broken.safetensors")
            problem = e2e.problem_of(lambda: self.server.caller.generate(request_for(image_prompts=[standard(name="broken")])))
            self.assertEqual(problem.code, "FAILED_PRECONDITION", problem)
        (self.folder / "prompts/broken.safetensors").unlink()

    def test_an_encoder_is_needed_that_fits(self):
        server = self.start(encoder=False)
        self.addCleanup(server.stop)
        problem = e2e.problem_of(lambda: server.caller.generate(self.good()))
        self.assertEqual((problem.code, problem.reason), ("FAILED_PRECONDITION", "NO_IMAGE_ENCODER"), problem)
        config = self.folder / "encoder/config.json"
        sound = config.read_text()
        config.write_text(json.dumps({**json.loads(sound), "num_hidden_layers": 2}))
        self.addCleanup(config.write_text, sound)
        server = self.start()
        self.addCleanup(server.stop)
        problem = e2e.problem_of(lambda: server.caller.generate(self.good()))
        self.assertEqual((problem.code, problem.reason), ("FAILED_PRECONDITION", "IMAGE_ENCODER_MISMATCH"), problem)
        config.write_text(sound)
        self.assertEqual(len(server.caller.generate(self.good()).images), 1, "the folder is looked at again")

    def test_check_reads_the_files(self):
        command = [e2e.BIN / "hotlora-server", "--check", "--model", e2e.GOLDEN / "pipeline", "--image-prompts", self.folder / "prompts",
                   "--image-encoder", self.folder / "encoder"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=e2e.PATIENCE)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("image prompts  2 found, 0 failed", done.stdout)
        self.assertIn("image encoder  1 found, 0 failed", done.stdout)
        done = subprocess.run(command[:-2], capture_output=True, text=True, timeout=e2e.PATIENCE)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("image encoder  FAILED: image prompts need one (--image-encoder)", done.stdout)

    # --- the service

    def test_the_service_lists_loads_receives_and_deletes(self):
        prompts = self.server.caller.image_prompts
        names = [prompt.name for prompt in prompts.ListImagePrompts(image_prompts_pb2.ListImagePromptsRequest()).image_prompts]
        self.assertEqual([name for name in names if name in ("plus", "standard")], ["plus", "standard"])
        loaded = prompts.LoadImagePrompt(image_prompts_pb2.LoadImagePromptRequest(name="plus", pin=True))
        self.assertEqual((loaded.name, loaded.tier, loaded.kind, loaded.pinned), ("plus", adapters_pb2.ADAPTER_TIER_DEVICE, "ip_adapter_plus", True))
        unloaded = prompts.UnloadImagePrompt(image_prompts_pb2.UnloadImagePromptRequest(name="plus"))
        self.assertEqual((unloaded.tier, unloaded.pinned), (adapters_pb2.ADAPTER_TIER_DISK, False))
        parts = upload_parts(image_prompts_pb2.UploadImagePromptRequest, "sent/standard", (PROMPTS / "standard.safetensors").read_bytes())
        self.assertEqual(prompts.UploadImagePrompt(iter(parts)).kind, "ip_adapter")
        request = request_for(image_prompts=[standard(name="sent/standard")])
        self.assertEqual(self.server.caller.image(request), self.server.caller.image(request))
        got = prompts.GetImagePrompt(image_prompts_pb2.GetImagePromptRequest(name="sent/standard"))
        self.assertEqual((got.name, got.content_sha256), ("sent/standard", parts[0].header.sha256))
        prompts.DeleteImagePrompt(image_prompts_pb2.DeleteImagePromptRequest(name="sent/standard"))
        self.assertEqual(e2e.problem_of(lambda: self.server.caller.image(request)).reason, "IMAGE_PROMPT_NOT_FOUND")
        net = (e2e.golden_controlnets() / "depth/diffusion_pytorch_model.safetensors").read_bytes()
        wrong = upload_parts(image_prompts_pb2.UploadImagePromptRequest, "net", net)
        self.assertEqual(e2e.problem_of(lambda: prompts.UploadImagePrompt(iter(wrong))).reason, "IMAGE_PROMPT_MISMATCH")

    def test_pages_go_on_behind_a_name_that_no_request_can_have(self):
        bad = self.folder / "prompts/a:b.safetensors"
        bad.write_bytes(b"x")
        self.addCleanup(bad.unlink)
        names, token = [], ""
        while True:
            page = self.server.caller.image_prompts.ListImagePrompts(image_prompts_pb2.ListImagePromptsRequest(page_size=1, page_token=token))
            names += [prompt.name for prompt in page.image_prompts]
            token = page.next_page_token
            if not token:
                break
        self.assertEqual(names, ["a:b", "plus", "standard"])

    def test_a_name_reaches_no_other_kind(self):
        data = (PROMPTS / "standard.safetensors").read_bytes()
        for kind in ("image prompt", "image encoder"):
            parts = upload_parts(controls_pb2.UploadControlRequest, f"{kind}\nmodel", data)
            problem = e2e.problem_of(lambda: self.server.caller.controls.UploadControl(iter(parts)))
            self.assertEqual((problem.code, set(problem.fields)), ("INVALID_ARGUMENT", {"header.name"}), problem)
            token = base64.urlsafe_b64encode(f"after:{kind}\na".encode()).decode().rstrip("=")
            request = controls_pb2.ListControlsRequest(page_token=token)
            problem = e2e.problem_of(lambda: self.server.caller.controls.ListControls(request))
            self.assertEqual((problem.code, set(problem.fields)), ("INVALID_ARGUMENT", {"page_token"}), problem)

    def test_they_wait_for_room_beside_controlnets(self):
        # In float32 the net lines takes 4.2 MB, depth 1.7 MB, plus 0.4 MB and the encoder 0.2 MB.
        server = self.start("--max-batch", "2", "--control-device-bytes", "5MiB", "--control-host-bytes", "5MiB")
        self.addCleanup(server.stop)
        wanted = [request_for(steps=4, image_prompts=[prompt], controls=controls)
                  for prompt, controls in ((standard(), []), (plus(), [lines()]), (standard(scale=0.5), [lines(name="depth")]), (plus(scale=0.5), []))]
        alone = [e2e.pixels(server.caller.image(each)) for each in wanted]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            made = list(pool.map(server.caller.image, wanted * 2))
        for data, expected in zip(made, alone * 2, strict=True):
            self.expect(data, expected, "together with others")
        if e2e.DTYPE == "float32":
            self.assertGreater(server.metrics().sum("hotlora_control_cache_evictions_total", reason="capacity"), 0)

    def test_a_pinned_one_is_resident_from_the_start(self):
        server = self.start("--pin-control", "plus", "--pin-control", "lines", *ROOM)
        self.addCleanup(server.stop)
        answer = server.caller.generate(request_for(image_prompts=[plus()], controls=[lines()]))
        for said in (answer.summary.image_prompts[0], answer.summary.controls[0]):
            self.assertEqual(said.tier_found, adapters_pb2.ADAPTER_TIER_DEVICE)
        tiers = server.caller.info.GetStatistics(server_pb2.GetStatisticsRequest()).control_tiers
        self.assertEqual({tier.entries for tier in tiers}, {3}, "the encoder is pinned with the image prompt")
        self.assertTrue(all(tier.pinned_bytes == tier.used_bytes for tier in tiers), tiers)


if __name__ == "__main__":
    unittest.main(verbosity=2)
