"""ControlNets from outside: the tiny golden checkpoint, nets and diffusers' images of them."""

import base64
import concurrent.futures
import hashlib
import io
import json
import shutil
import unittest

import numpy
from google.protobuf import json_format
from PIL import Image

import hotlora_server as e2e
from hires_test import second_of
from hotlora_server import adapters_pb2, controls_pb2, images_pb2, request_for, server_pb2
from hotlora.sdapi.v1 import sdapi_pb2, sdapi_pb2_grpc

CONTROL = e2e.GOLDEN / "control"
SAMPLERS = {"euler": images_pb2.SAMPLER_EULER, "heun": images_pb2.SAMPLER_HEUN, "dpmpp_2m_sde": images_pb2.SAMPLER_DPMPP_2M_SDE}
# In float32 both forms are within 2 of 255. The other types keep 11 and 8 bits, and pictures are compared as a whole.
LEAST_PSNR = {"float16": 40, "bfloat16": 22}


# For all nets at once.
ROOM = ("--control-device-bytes", "16MiB", "--control-host-bytes", "16MiB")


def png(name, width, height):
    buffer = io.BytesIO()
    Image.open(CONTROL.parent / "images" / name).resize((width, height), Image.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def control_of(said):
    return images_pb2.ControlRef(
        name=said["net"].split("/")[-1], image=(CONTROL / said["image"].split("/")[-1]).read_bytes(), scale=said["scale"],
        start=said["start"], end=said["end"], type=said.get("control_type"))


def image_prompt_of(said, folder):
    blocks = [images_pb2.BlockWeight(**rule) for rule in said.get("block_rules", [])]
    return images_pb2.ImagePromptRef(
        name=said["adapter"].removesuffix(".safetensors"), images=[(folder / name).read_bytes() for name in said["images"]],
        scale=0 if blocks else said["scale"], blocks=blocks)


def cases(folder=CONTROL):
    """(name, request, pictures) of each golden case."""
    for case in json.loads((folder / "manifest.json").read_text())["cases"]:
        if "arguments" not in case:
            continue  # a call of a network
        arguments = case["arguments"]
        size = {"width": arguments["width"], "height": arguments["height"]}
        request = request_for(
            *((adapter["file"].split("/")[-1].removesuffix(".safetensors"), adapter["scale"]) for adapter in case["adapters"]),
            prompt=arguments["prompt"], negative_prompt=arguments["negative_prompt"], steps=arguments["num_inference_steps"],
            guidance_scale=arguments["guidance_scale"], seed=case["seed"], num_images=len(case["images"]),
            sampler=SAMPLERS[case["scheduler"]], controls=[control_of(said) for said in case.get("control", [])],
            image_prompts=[image_prompt_of(said, folder) for said in case.get("image_prompts", [])], **size)
        if case["kind"] != "text_to_image":
            request.init_image, request.strength = png("init_image.png", **size), arguments["strength"]
        if case["kind"] == "inpaint":
            request.mask_image = png("mask.png", **size)
        pictures = [numpy.asarray(Image.open(folder / name).convert("RGB")).astype(int) for name in case["images"]]
        yield case["name"], request, pictures


def upload_parts(part, name, data):
    """The messages of an upload."""
    header = adapters_pb2.UploadHeader(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    return [part(header=header)] + [part(chunk=data[at:at + (1 << 20)]) for at in range(0, len(data), 1 << 20)]


def lines(**fields):
    return images_pb2.ControlRef(**{"name": "lines", "image": (CONTROL / "lines.png").read_bytes(), **fields})


class GoldenPictures:
    """What tests of controls and of image prompts have in common. They have `server`, and `good`, which makes a request of
    theirs that is served."""

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def expect(self, data, picture, name):
        made = e2e.pixels(data)
        if e2e.DTYPE == "float32":
            self.assertLessEqual(numpy.abs(made - picture).max(), 2, name)
        else:
            self.assertGreaterEqual(e2e.psnr(made, picture), LEAST_PSNR[e2e.DTYPE], name)

    def expect_alone(self, golden, field):
        for name, request, pictures in golden:
            answer = self.server.caller.generate(request)
            for image, picture in zip(answer.images, pictures, strict=True):
                self.expect(image.data, picture, name)
            refs = [ref for ref in getattr(request, field) if ref.scale or not hasattr(ref, "blocks") or ref.blocks]
            for ref, said in zip(refs, getattr(answer.summary, field), strict=True):
                self.assertEqual((said.name, said.scale, len(said.content_sha256)), (ref.name, ref.scale, 64))

    def expect_at_once(self, golden):
        """Alone they were right; at once they are the same, and leave no trace."""
        golden = [case for case in golden if len(case[2]) == 1] + [("plain", request_for(prompt="a lighthouse", steps=8), None)]
        plain = e2e.pixels(self.server.caller.image(golden[-1][1]))
        for _, request, _ in golden:  # everything is resident
            self.server.caller.image(request)
        allocated = self.server.allocated_bytes()
        with concurrent.futures.ThreadPoolExecutor(len(golden)) as pool:
            made = list(pool.map(self.server.caller.image, [request for _, request, _ in golden]))
        for (name, _, pictures), data in zip(golden, made, strict=True):
            self.expect(data, pictures[0] if pictures else plain, name)
        self.assertEqual(self.server.allocated_bytes(), allocated)
        page = self.server.metrics()
        self.assertEqual(page.value("hotlora_control_refs"), 0)
        self.assertEqual(page.sum("hotlora_base_restore_mismatch_total"), 0)
        statistics = self.server.caller.info.GetStatistics(server_pb2.GetStatisticsRequest(), timeout=e2e.PATIENCE)
        self.assertEqual(statistics.base.mismatches, 0)

    def refused(self, code, reason, **request):
        for call in (self.server.caller.generate, lambda r: list(self.server.caller.stream(r))):
            problem = e2e.problem_of(lambda: call(request_for(**request)))
            self.assertEqual((problem.code, problem.reason), (code, reason), problem)
        self.server.caller.image(self.good())
        return problem

    def expect_both_passes(self, field, theirs):
        """A hires request has them in both passes: its picture is that of its two requests."""
        request = request_for(prompt="a lighthouse", steps=4, seed=7, **{field: theirs})
        first = images_pb2.GenerateImagesRequest()
        first.CopyFrom(request)
        request.hires.SetInParent()
        made = e2e.pixels(self.server.caller.image(request))
        second = second_of(request, self.server.caller.generate(first).images[0])
        self.expect(self.server.caller.image(second), made, "hires")
        second.ClearField(field)
        self.assertGreater(numpy.abs(e2e.pixels(self.server.caller.image(second)) - made).max(), 8, "the second pass has none")


class ControlTest(GoldenPictures, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.nets = e2e.temporary_folder() / "nets"
        shutil.copytree(e2e.golden_controlnets(), cls.nets)
        cls.server = cls.start()

    @classmethod
    def start(cls, *flags):
        return e2e.Server("--controls", cls.nets, *(flags or ROOM), model=e2e.GOLDEN / "pipeline", adapters=e2e.GOLDEN / "adapters/files")

    def good(self):
        return request_for(controls=[lines()])

    def test_alone_they_are_diffusers_pictures(self):
        golden = list(cases())
        self.assertEqual(len(golden), 22)
        self.expect_alone(golden, "controls")

    def test_at_once_they_are_the_same_and_leave_no_trace(self):
        self.expect_at_once(cases())

    def test_a_png_says_its_controls(self):
        data = self.server.caller.image(request_for(controls=[lines(scale=0.5, end=0.75)]))
        text = Image.open(io.BytesIO(data)).text["parameters"]
        self.assertRegex(text, r'ControlNet 0: "Model: lines \[[0-9a-f]{12}\], Weight: 0.5, Guidance Start: 0, Guidance End: 0.75"')

    def test_a_hires_request_equals_its_two_requests(self):
        self.expect_both_passes("controls", [
            lines(end=0.5), lines(name="union", type=3, scale=0.8), lines(name="depth", start=0.5)])

    def test_units_of_automatic1111s_api_are_controls(self):
        service = sdapi_pb2_grpc.SdapiServiceStub(self.server.caller.channel)

        def units(*changes):
            image = base64.b64encode((CONTROL / "lines.png").read_bytes()).decode()
            args = [{"enabled": True, "module": "none", "model": "lines", "image": image, "control_mode": "Balanced",
                     "resize_mode": 1, "pixel_perfect": False, "processor_res": 512, **change} for change in changes]
            fields = dict(prompt="a lighthouse", steps=4, seed=7, width=64, height=64, cfg_scale=5.0, sampler_name="Euler")
            return json_format.ParseDict({**fields, "alwayson_scripts": {"controlnet": {"args": args}}}, sdapi_pb2.GenerateRequest())

        said = (dict(weight=0.75, guidance_end=0.5), dict(model="union", union_control_type="Hard Edge", guidance_start=0.5),
                dict(model="depth", enabled=False))
        answer = service.Txt2Img(units(*said), timeout=e2e.PATIENCE)
        request = request_for(prompt="a lighthouse", steps=4, seed=7, guidance_scale=5.0, sampler=images_pb2.SAMPLER_EULER,
                              prompt_syntax=images_pb2.PROMPT_SYNTAX_WEIGHTED, long_prompts=True,
                              controls=[lines(scale=0.75, end=0.5), lines(name="union", type=3, start=0.5)])
        ours = e2e.pixels(self.server.caller.image(request))
        self.assertEqual(numpy.abs(e2e.pixels(answer.images[0]) - ours).max(), 0)
        self.assertNotIn("iVBOR", json_format.MessageToJson(answer.parameters), "a picture is sent back")
        for change, field in ((dict(module="canny"), "args[1].module"), (dict(control_mode=2), "args[1].control_mode"),
                              (dict(weight=9), "args (weight of ControlNet unit 2)"),
                              (dict(union_control_type="Depth"), "args (union_control_type of ControlNet unit 2)")):
            problem = e2e.problem_of(lambda: service.Txt2Img(units({}, change), timeout=e2e.PATIENCE))
            self.assertEqual((problem.code, problem.reason), ("INVALID_ARGUMENT", "INVALID_REQUEST"), problem)
            self.assertIn("alwayson_scripts.controlnet." + field, problem.message)

    # --- what is refused

    def test_bad_fields(self):
        nan = float("nan")
        problem = self.refused(
            "INVALID_ARGUMENT", "INVALID_REQUEST",
            controls=[lines(name="../x", image=b"no picture"), lines(image=b"", scale=4.5), lines(start=0.5, end=0.5), lines(scale=nan, end=1.5)])
        self.assertEqual(set(problem.fields), {
            "controls[0].name", "controls[0].image", "controls[1].image", "controls[1].scale", "controls[2].start",
            "controls[3].scale", "controls[3].end"})
        self.assertEqual(set(self.refused("INVALID_ARGUMENT", "INVALID_REQUEST", controls=[lines()] * 5).fields), {"controls"})
        cut = (CONTROL / "lines.png").read_bytes()[:200]
        self.assertEqual(set(self.refused("INVALID_ARGUMENT", "INVALID_REQUEST", controls=[lines(), lines(image=cut)]).fields), {"controls[1].image"})

    def test_types(self):
        union = lambda **fields: lines(name="union", **fields)
        for control, words in ((lines(type=0), "one kind"), (union(), "0 to 5"), (union(type=6), "0 to 5")):
            problem = self.refused("INVALID_ARGUMENT", "INVALID_REQUEST", controls=[lines(), control])
            self.assertEqual(set(problem.fields), {"controls[1].type"})
            self.assertIn(words, problem.fields["controls[1].type"])

    def test_names_and_files(self):
        self.refused("NOT_FOUND", "CONTROL_NOT_FOUND", controls=[lines(name="absent")])
        broken = sorted((e2e.GOLDEN / "broken_adapters").glob("*.safetensors"))[0]
        (self.nets / "broken.safetensors").write_bytes(broken.read_bytes())
        problem = e2e.problem_of(lambda: self.server.caller.generate(request_for(controls=[lines(name="broken")])))
        self.assertEqual(problem.code, "FAILED_PRECONDITION", problem)

    # --- the service

    def test_the_service_lists_loads_receives_and_deletes(self):
        controls = self.server.caller.controls
        names = [control.name for control in controls.ListControls(controls_pb2.ListControlsRequest()).controls]
        self.assertEqual([name for name in names if name in ("depth", "lines", "union")], ["depth", "lines", "union"])
        loaded = controls.LoadControl(controls_pb2.LoadControlRequest(name="union", pin=True))
        self.assertEqual((loaded.tier, loaded.kind, loaded.control_types, loaded.pinned), (adapters_pb2.ADAPTER_TIER_DEVICE, "union", 6, True))
        unloaded = controls.UnloadControl(controls_pb2.UnloadControlRequest(name="union"))
        self.assertEqual((unloaded.tier, unloaded.pinned), (adapters_pb2.ADAPTER_TIER_DISK, False))
        data = (self.nets / "depth/diffusion_pytorch_model.safetensors").read_bytes()
        parts = upload_parts(controls_pb2.UploadControlRequest, "sent/depth", data)
        self.assertEqual(controls.UploadControl(iter(parts)).kind, "controlnet")
        request = lambda name: request_for(controls=[lines(name=name)])
        self.assertEqual(self.server.caller.image(request("sent/depth")).__class__, bytes)
        self.assertEqual(controls.GetControl(controls_pb2.GetControlRequest(name="sent/depth")).content_sha256, parts[0].header.sha256)
        controls.DeleteControl(controls_pb2.DeleteControlRequest(name="sent/depth"))
        self.assertEqual(e2e.problem_of(lambda: self.server.caller.image(request("sent/depth"))).reason, "CONTROL_NOT_FOUND")

    def test_by_default_there_is_room_for_the_largest(self):
        server = self.start("--max-batch", "2")
        self.addCleanup(server.stop)
        both = request_for(controls=[lines(), lines(name="depth"), lines(name="union", type=1)])
        self.assertEqual(e2e.problem_of(lambda: server.caller.image(both)).reason, "CONTROL_BUDGET")
        wanted = [request_for(steps=4, controls=[lines(name=name, type=kind)])
                  for name, kind in (("lines", None), ("depth", None), ("union", 3))]
        alone = [e2e.pixels(server.caller.image(each)) for each in wanted]
        with concurrent.futures.ThreadPoolExecutor(6) as pool:  # nets wait for one another's room
            made = list(pool.map(server.caller.image, wanted * 2))
        for data, expected in zip(made, alone * 2, strict=True):
            self.expect(data, expected, "with one net at a time")
        self.assertGreater(server.metrics().sum("hotlora_control_cache_evictions_total", reason="capacity"), 0)

    def test_without_a_folder_there_are_none(self):
        server = e2e.Server(model=e2e.GOLDEN / "pipeline")
        self.addCleanup(server.stop)
        self.assertEqual(e2e.problem_of(lambda: server.caller.image(request_for(controls=[lines()]))).reason, "CONTROL_NOT_FOUND")

    def test_a_pinned_net_is_resident_from_the_start(self):
        server = self.start("--pin-control", "depth", "--pin-control", "lines", *ROOM)
        self.addCleanup(server.stop)
        answer = server.caller.generate(request_for(controls=[lines(name="depth")]))
        self.assertEqual(answer.summary.controls[0].tier_found, adapters_pb2.ADAPTER_TIER_DEVICE)


if __name__ == "__main__":
    unittest.main(verbosity=2)
