"""REST callers behind Envoy as deploy/ ships it: routing keys, error forms, large bodies, the page, and deploy/demo.sh --rest."""

import base64
import hashlib
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import unicodedata
import unittest
import urllib.parse

import balancers
from balancers import SOURCE, TOOLS, e2e
import browser
from hotlora_server import images_pb2, request_for

ENVOY_FOLDER = SOURCE / "deploy/envoy"
OPENAI, TXT2IMG, GENERATE = "/v1/images/generations", "/sdapi/v1/txt2img", "/v1/images:generate"
TOKEN = "0123456789abcdef-rest"
TOO_LARGE = b'{"prompt": "x", "init_image": "' + b"A" * (40 << 20) + b'"}'


def call(url, path, body=None, method=None, **headers):
    """Status, headers in lower case, and body of one HTTP call; `body` is bytes or what becomes JSON."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=e2e.PATIENCE)
    try:
        connection.request(method or ("GET" if data is None else "POST"), path, data,
                           {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def tokens_file(line):
    path = e2e.temporary_folder() / "tokens"
    path.write_text(f"{line}\n")
    path.chmod(0o600)
    return path


class RestCase(unittest.TestCase):
    """One server behind Envoy; `flags` are the server's."""

    flags = ()
    page = False

    @classmethod
    def setUpClass(cls):
        cls.replica = balancers.Replica(e2e.DEMO_ADAPTERS, *cls.flags)
        cls.addClassCleanup(cls.replica.kill)
        cls.envoy = balancers.Envoy([cls.replica], page=cls.page)
        cls.addClassCleanup(cls.envoy.stop)

    def call(self, path, body=None, **more):
        return call(self.envoy.rest_url, path, body, **more)

    def paints(self, **fields):
        """A good request is answered, whatever came before it."""
        status, _, body = self.call(GENERATE, {"prompt": "x", "steps": 1, "width": 64, "height": 64, **fields})
        self.assertEqual(status, 200, body[:500])
        return base64.b64decode(json.loads(body)["images"][0]["data"])


class RoutingKeyTest(RestCase):
    """x-adapter-key as Envoy sets it from the body, beside what the command-line client sends."""

    # Names that no adapter has: the key does not depend on what there is.
    NAMES = [[], ["night"], ["night", "outline"], ["outline", "night"], ["outline", "outline"], ["styles/neon"],
             ["a b", "100%", "a,b", "a+b", "a&b=c~d_e-f.g"], ["caf\u00e9", "\u6c34\u5f69", "\U0001f600"], ['"quoted"', "back\\slash"]]

    def key_of(self, path, act):
        """The key that Envoy logs for the one call of that path that `act` makes."""
        def keys():
            return [line["adapter_key"] for line in self.envoy.access_log() if line["path"] == path]

        before = len(keys())
        act()
        e2e.wait_until(lambda: len(keys()) == before + 1, "the call is logged")
        return keys()[-1]

    def key_of_rest(self, path, body, **headers):
        return self.key_of(path, lambda: self.call(path, body, **headers))

    def key_of_grpc(self, names):
        words = [word for name in names for word in ("--adapter", name)]
        return self.key_of("/hotlora.v1.ImageService/StreamGenerateImages",
                           lambda: e2e.run(e2e.CLIENT, "--server", self.envoy.target, "generate", "x", "--steps", "1", "--width",
                                           "64", "--height", "64", *words, "--out", e2e.temporary_folder() / "x.png"))

    def test_it_is_what_grpc_callers_send(self):
        for names in self.NAMES:
            with self.subTest(names=names):
                expected = ",".join(urllib.parse.quote(name, safe="/") for name in names) or "base"
                if len(set(names)) == len(names) and not any("\\" in name for name in names):  # which the client refuses
                    self.assertEqual(self.key_of_grpc(names), expected)
                adapters = [{"weight": 0.5, "name": name} for name in names]
                for escaped in (True, False):  # \u6c34, or the character itself
                    body = json.dumps({"steps": 1, "adapters": adapters, "prompt": "x"}, ensure_ascii=escaped)
                    self.assertEqual(self.key_of_rest(GENERATE, body.encode()), expected)
                    prompt = "a {[\"<b>:" + "".join(f"<lora: {name}:0.5>" for name in names) + "\\"
                    body = json.dumps({"init_images": ["}]{\"\\"], "prompt": prompt}, ensure_ascii=escaped)
                    self.assertEqual(self.key_of_rest(TXT2IMG, body.encode()), expected)
                    model = "+".join(name.replace("%", "%25").replace("+", "%2B") + ":0.5" for name in names) or "sdxl"
                    body = json.dumps({"model": model, "prompt": "x <lora:no:1>"}, ensure_ascii=escaped)
                    self.assertEqual(self.key_of_rest(OPENAI, body.encode()), expected)

    def test_forms_of_a_name(self):
        for model, key in (("night", "night"), ("night:-0.5+outline", "night,outline"), ("", "base"), (None, "base")):
            self.assertEqual(self.key_of_rest(OPENAI, {"model": model}), key)
        for prompt, key in (("<lora:night>", "night"), ("<lora:night:1:te=0>", "night"), ("<hypernet:night:1>", "base"),
                            ("<lora:te=0:night>", "night"), ("<lora:night:1><lora:><lora:frame:1>", "night"),
                            ("<lora:>", "base"), ("<lora:night", "base"), ("<LORA:night:1>", "base")):
            self.assertEqual(self.key_of_rest(TXT2IMG, {"prompt": prompt}), key, prompt)
        self.assertEqual(self.key_of_rest(TXT2IMG, {"steps": 1}), "base")

    def test_names_are_brought_into_normal_form_c(self):
        scripts = [*range(0xC0, 0x250), *range(0x370, 0x530), *range(0x1E00, 0x2000), *range(0x3040, 0x3100), *range(0xAC00, 0xAC60)]
        names = [unicodedata.normalize("NFD", chr(code)) for code in scripts]
        names = [name for name in names if len(unicodedata.normalize("NFC", name)) < len(name)]
        self.assertGreater(len(names), 800)
        for some in (names[i:i + 200] for i in range(0, len(names), 200)):
            expected = ",".join(urllib.parse.quote(unicodedata.normalize("NFC", name)) for name in some)
            self.assertEqual(self.key_of_rest(GENERATE, {"adapters": [{"name": name} for name in some]}), expected)
        decomposed = [unicodedata.normalize("NFD", name) for name in ("caf\u00e9", "\u30ac", "\ud55c\uae00")]
        self.assertEqual(self.key_of_rest(OPENAI, {"model": "+".join(decomposed)}), self.key_of_grpc(decomposed))

    def test_a_key_that_would_break_the_servers_limit_of_headers_is_left_out(self):
        names = [{"name": f"{i:02}" + "\u6c34" * 84} for i in range(16)]
        with e2e.ended(self.replica_stream()) as stream:
            e2e.read_until(stream, "progress")
            self.assertEqual(self.key_of_rest(GENERATE, {"adapters": names[:15]}).count(","), 14)
            self.assertIsNone(self.key_of_rest(GENERATE, {"adapters": names}))
            self.assertIsNone(self.key_of_rest(GENERATE, {"adapters": names[:8]}, **{"x-more": "x" * 8000}))
            self.assertIsNotNone(e2e.read_until(stream, "summary"), "calls that share the connection go on")

    def replica_stream(self):
        caller = e2e.Caller(self.envoy.target)
        self.addCleanup(caller.close)
        return caller.stream(request_for(steps=200, guidance_scale=1.0))

    def test_a_callers_own_key_stays(self):
        body = {"prompt": "x", "steps": 1, "adapters": [{"name": "nobody"}]}
        self.assertEqual(self.key_of_rest(GENERATE, body, **{"x-adapter-key": "mine"}), "mine")

    def test_what_is_not_such_a_request_has_no_key_or_base(self):
        for body in (b"", b"{", b"[]", b"[{", b'{"adapters": [', b'{"adapters": [{"name"', b'{"adapters": "', b'"\\', b"nonsense",
                     b'{"adapters": ' + b"[" * 100000, b'{"a": "' + b'\\"' * 100000, b'{"adapters": [{"name": {"x": 1}}, 2]}'):
            self.call("/v1/images:render", body)
        self.paints()
        for line in self.envoy.access_log():
            if line["path"] == "/v1/images:render":
                self.assertIn(line["adapter_key"], (None, "base"))
        self.assertNotIn("script log", self.envoy.log_path.read_text())


class ErrorFormsCase(RestCase):
    def openai(self, body, **more):
        status, headers, data = self.call(OPENAI, body, **more)
        self.assertEqual(headers["content-type"], "application/json")
        answer = json.loads(data)
        self.assertEqual(list(answer), ["error"])
        self.assertEqual(list(answer["error"]), ["message", "type", "param", "code"])
        return status, answer["error"]

    def sdapi(self, body, path=TXT2IMG, **more):
        status, headers, data = self.call(path, body, **more)
        self.assertEqual(headers["content-type"], "application/json")
        answer = json.loads(data)
        self.assertEqual(list(answer), ["error", "detail", "body", "errors"])
        return status, answer["detail"]


class ProxyErrorsTest(ErrorFormsCase):
    """What Envoy itself refuses."""

    def test_a_body_of_forty_megabytes_is_413(self):
        status, error = self.openai(TOO_LARGE)
        self.assertEqual((status, error["type"], error["code"]), (413, "invalid_request_error", "TOO_LARGE"))
        self.assertIn("at most 33554432", error["message"])
        status, detail = self.sdapi(TOO_LARGE)
        self.assertEqual(status, 413)
        self.assertIn("at most 33554432", detail)
        self.assertEqual(self.call(GENERATE, TOO_LARGE)[0], 413)
        self.paints()

    def test_a_path_that_is_not_there_is_404(self):
        self.assertEqual(self.sdapi(None, path="/sdapi/v1/nothing"), (404, "Could not resolve /sdapi/v1/nothing to a method."))
        self.assertEqual(self.call("/nothing")[0], 404)
        status, error = self.openai(None, method="DELETE")
        self.assertEqual((status, error["type"]), (404, "invalid_request_error"))
        self.assertEqual(self.call("/")[0], 404, "the page is off")

    def test_without_a_replica_it_is_503(self):
        envoy = balancers.Envoy([])
        self.addCleanup(envoy.stop)
        e2e.wait_until(lambda: envoy.page(f"http://127.0.0.1:{envoy.metrics_port}/ready"), "Envoy is ready")
        status, _, body = call(envoy.rest_url, OPENAI, {"prompt": "x"})
        self.assertEqual((status, json.loads(body)["error"]["type"]), (503, "server_error"))
        status, _, body = call(envoy.rest_url, TXT2IMG, {"prompt": "x"})
        self.assertEqual((status, json.loads(body)["detail"]), (503, "no healthy upstream"))

    def test_other_origins_may_not_read(self):
        _, headers, _ = self.call("/v1/server", Origin="http://elsewhere.example")
        self.assertNotIn("access-control-allow-origin", headers)


class SamePicturesTest(RestCase):
    """One prompt, seed and adapter set by each API."""

    PROMPT = "a large red circle on a yellow background"
    ADAPTERS = (("outline", 1.0), ("night", 0.5))

    def by_grpc(self, **fields):
        request = request_for(*self.ADAPTERS, prompt=self.PROMPT, steps=3, width=128, height=128, guidance_scale=7.0, **fields)
        return self.replica.caller.image(request)

    def by_openai(self, **fields):
        body = {"prompt": self.PROMPT, "model": "outline:1+night:0.5", "seed": 7, "steps": 3, "size": "128x128",
                "guidance_scale": 7, "sampler": "SAMPLER_EULER", **fields}
        status, _, data = self.call(OPENAI, body)
        self.assertEqual(status, 200, data[:500])
        return base64.b64decode(json.loads(data)["data"][0]["b64_json"])

    def by_sdapi(self, **fields):
        body = {"prompt": self.PROMPT + "<lora:outline:1><lora:night:0.5>", "negative_prompt": "", "seed": 7, "steps": 3,
                "width": 128, "height": 128, "cfg_scale": 7, "sampler_name": "Euler", **fields}
        status, _, data = self.call(TXT2IMG, body)
        self.assertEqual(status, 200, data[:500])
        return base64.b64decode(json.loads(data)["images"][0])

    def test_equal_requests_give_equal_bytes(self):
        self.assertEqual(self.by_openai(), self.by_grpc())
        weighted = self.by_grpc(prompt_syntax=images_pb2.PROMPT_SYNTAX_WEIGHTED, long_prompts=True)
        self.assertEqual(self.by_sdapi(), weighted)
        render = {"prompt": self.PROMPT, "seed": 7, "steps": 3, "width": 128, "height": 128, "guidance_scale": 7,
                  "adapters": [{"name": name, "weight": weight} for name, weight in self.ADAPTERS]}
        self.assertEqual(self.call("/v1/images:render", render)[2], self.by_grpc())

    def test_each_api_gives_the_same_pixels(self):
        pixels = e2e.pixels(self.by_grpc()).tolist()
        self.assertEqual(e2e.pixels(self.by_openai()).tolist(), pixels)
        self.assertEqual(e2e.pixels(self.by_sdapi()).tolist(), pixels)
        self.assertNotEqual(e2e.pixels(self.by_openai(model="outline")).tolist(), pixels)
        self.assertNotEqual(e2e.pixels(self.by_sdapi(prompt=self.PROMPT)).tolist(), pixels)


class BadInputTest(ErrorFormsCase):
    """By each API: its own form and status, a text that names the field, and the next request works."""

    CASES = [  # field, value, what the text says; a path that has no such field has None
        ("steps", '"many"', "steps", "steps"),
        ("steps", "-1", "steps", "steps"),
        ("steps", "100000", "steps", "steps"),
        ("seed", '"x"', "seed", "seed"),
        ("prompt", "{}", "prompt", "prompt"),
        ("prompt", '"' + "x" * 20000 + '"', "prompt", "prompt"),
        ("size", '"128"', "size", None),
        ("size", '"130x128"', "size", None),
        ("width", "13", None, "width"),
        ("n", "17", "n", None),
        ("n", "0", "n", None),
        ("batch_size", "99", None, "batch_size"),
        ("model", '"outline:heavy"', "model", None),
        ("model", '"outline:1e9"', "model", None),
        ("sampler", '"SAMPLER_NONE"', "sampler", None),
        ("schedule", '"none"', "schedule", None),
        ("sampler_name", '"none"', None, "sampler_name"),
        ("scheduler", '"none"', None, "scheduler"),
        ("guidance_scale", '"NaN"', "guidance_scale", None),
        ("cfg_scale", '"NaN"', None, "cfg_scale"),
        ("cfg_scale", "NaN", None, ""),
        ("response_format", '"url"', "response_format", None),
        ("init_images", '["***"]', None, "init_images"),
        ("enable_hr", '"much"', None, "enable_hr"),
        ("tiling", "true", None, "tiling"),
        ("no_such_field", "1", "no_such_field", None),
    ]

    def test_each_field(self):
        for field, value, in_openai, in_sdapi in self.CASES:
            def body(**size):
                members = {"prompt": '"x"', "steps": "1", **size, field: value}
                return ("{" + ", ".join(f'"{name}": {text}' for name, text in members.items()) + "}").encode()

            if in_openai is not None:
                with self.subTest(api="openai", field=field, value=value[:40]):
                    status, error = self.openai(body(size='"64x64"'))
                    self.assertEqual((status, error["type"]), (400, "invalid_request_error"), error)
                    self.assertIn(in_openai, error["message"])
                    self.assertEqual(error["param"], in_openai, error)
            path = "/sdapi/v1/img2img" if field == "init_images" else TXT2IMG
            if in_sdapi is not None:
                with self.subTest(api="sdapi", field=field, value=value[:40]):
                    status, detail = self.sdapi(body(width="64", height="64"), path=path)
                    self.assertEqual(status, 422, detail)
                    self.assertIn(in_sdapi, detail)
        self.paints()

    def test_hotloras_own_paths_name_the_field(self):
        for field, value, status in (("width", "7", 400), ("width", '"wide"', 400), ("guidance_scale", '"NaN"', 400),
                                     ("sampler", '"SAMPLER_NONE"', 400), ("schedule", "99", 400), ("init_image", '"@@@"', 400),
                                     ("num_images", "17", 400), ("no adapter", None, 404)):
            member = f'"{field}": {value}' if value else '"adapters": [{"name": "none"}]'
            for path in (GENERATE, "/v1/images:render"):
                with self.subTest(field, path=path):
                    got, _, text = self.call(path, ('{"prompt": "x", "steps": 1, ' + member + "}").encode())
                    self.assertEqual(got, status, text)
                    self.assertIn(field, text.decode())
        self.paints()

    def test_bodies_that_are_not_json_objects(self):
        for body in (b"", b"{", b"[]", b'"x"', b"\xff\xfe", b'{"prompt": "x" "steps": 1}', b'{"prompt": "\xff"}'):
            with self.subTest(body=body):
                status, error = self.openai(body)
                self.assertEqual((status, error["type"]), (400, "invalid_request_error"), error)
                if body:  # none is a request without fields, all of which have defaults
                    self.assertEqual(self.sdapi(body)[0], 422)
        self.paints()

    def test_an_unknown_adapter_is_404(self):
        status, error = self.openai({"prompt": "x", "model": "nobody"})
        self.assertEqual((status, error["code"], error["param"]), (404, "ADAPTER_NOT_FOUND", "model"))
        self.assertIn("nobody", error["message"])
        status, detail = self.sdapi({"prompt": "x<lora:nobody:1>", "width": 64, "height": 64})
        self.assertEqual(status, 404)
        self.assertIn("nobody", detail)
        status, _, data = self.call("/v1/models/nobody")
        self.assertEqual((status, json.loads(data)["error"]["type"]), (404, "invalid_request_error"))
        self.paints()


class TokensTest(ErrorFormsCase):
    @classmethod
    def setUpClass(cls):
        cls.flags = ("--tokens-file", tokens_file(f"{TOKEN} generate"))
        super().setUpClass()

    def test_bearer_and_basic(self):
        body = {"prompt": "x", "steps": 1}
        basic = "Basic " + base64.b64encode(f"anyone:{TOKEN}".encode()).decode()
        for path, size in ((OPENAI, {"size": "64x64"}), (TXT2IMG, {"width": 64, "height": 64})):
            for authorization in (f"Bearer {TOKEN}", basic):
                self.assertEqual(self.call(path, {**body, **size}, Authorization=authorization)[0], 200)
        status, error = self.openai(body)
        self.assertEqual((status, error["type"], error["code"]), (401, "authentication_error", "UNAUTHENTICATED"))
        self.assertEqual(self.sdapi(body, Authorization="Bearer wrong")[0], 401)
        status, _, data = self.call("/v1/models", Authorization=f"Bearer {TOKEN}")
        self.assertEqual((status, json.loads(data)["error"]["type"]), (403, "permission_error"))


class QueueTest(ErrorFormsCase):
    flags = ("--max-batch", "1", "--max-queue", "1")

    def test_a_full_queue_is_429_and_says_when_to_come_back(self):
        streams = []
        for kind in ("progress", "accepted"):
            stream = self.replica.caller.stream(request_for(steps=1000))
            self.addCleanup(stream.cancel)
            e2e.read_until(stream, kind)
            streams.append(stream)
        status, headers, data = self.call(OPENAI, {"prompt": "x", "steps": 1, "size": "64x64"})
        error = json.loads(data)["error"]
        self.assertEqual((status, error["type"], error["code"]), (429, "rate_limit_error", "QUEUE_FULL"))
        self.assertGreaterEqual(int(headers["retry-after"]), 1)
        status, headers, data = self.call(TXT2IMG, {"prompt": "x", "steps": 1})
        self.assertEqual((status, json.loads(data)["error"]), (429, "QUEUE_FULL"))
        self.assertGreaterEqual(int(headers["retry-after"]), 1)


class ExamplesTest(RestCase):
    """docs/rest.md's examples, as they stand there but for the address."""

    flags = ()
    page = True

    def blocks(self, language):
        text = (SOURCE / "docs/rest.md").read_text().replace("http://127.0.0.1:8080", self.envoy.rest_url)
        found = re.findall(f"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        self.assertTrue(found, language)
        return found

    def run_in_a_folder(self, *words):
        folder = e2e.temporary_folder()
        done = e2e.run(*words, cwd=folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        return folder, done.stdout

    def test_those_of_curl(self):
        for script in self.blocks("bash"):
            folder, said = self.run_in_a_folder("bash", "-euo", "pipefail", "-c", script)
            self.assertRegex(said.splitlines()[0], r"^\d{4,} bytes$")
            self.assertEqual((folder / "picture.png").read_bytes()[:4], b"\x89PNG")
            self.assertIn('"outline"', said)

    def test_those_of_python(self):
        for script in self.blocks("python"):
            folder, said = self.run_in_a_folder(sys.executable, "-c", script)
            self.assertRegex(said, r"^\d+\n$")
            stars = [(folder / f"star-{number}.png").read_bytes() for number in range(2)]
            self.assertNotEqual(*stars)

    def test_those_of_javascript(self):
        page = browser.Browser()
        self.addCleanup(page.close)
        page.open(self.envoy.rest_url + "/")
        for script in self.blocks("js"):
            picture = page.value("(async () => {" + script + "\nreturn picture; })()")
            self.assertEqual(base64.b64decode(picture.split(",", 1)[1])[:4], b"\x89PNG")


class PageCase(RestCase):
    page = True

    def setUp(self):
        self.browser = browser.Browser()
        self.addCleanup(self.browser.close)
        self.browser.open(self.envoy.rest_url + "/")

    def fill(self, **fields):
        for name, value in fields.items():
            self.browser.value(f"document.getElementById({json.dumps(name)}).value = {json.dumps(value)}")

    def fill_adapter(self, name, weight):
        row = "document.querySelector('#adapters').lastElementChild"
        self.browser.value(f"{row}.querySelector('.name').value = {json.dumps(name)}")
        self.browser.value(f"{row}.querySelector('.weight').value = {json.dumps(weight)}")

    def text(self, name):
        return self.browser.value(f"document.getElementById({json.dumps(name)}).textContent")

    def generate(self):
        """Presses the button and waits for the end: the state's text."""
        self.browser.value("document.getElementById('generate').click()")
        e2e.wait_until(lambda: self.text("state") in ("Done.", "Failed.", "Stopped."), "it has ended")
        return self.text("state")


class PageTest(PageCase):
    def test_a_prompt_becomes_the_picture_that_grpc_gives(self):
        self.fill(prompt="a large red circle", seed="7", steps="3")
        self.fill_adapter("outline", "1")
        self.browser.value("document.getElementById('add').click()")
        self.fill_adapter("night", "0.5")
        self.assertEqual(self.generate(), "Done.", self.text("error"))
        self.assertEqual(self.browser.value("document.getElementById('progress').value"), 3)
        shown = self.browser.value("""(async () => {
            const picture = document.getElementById("picture");
            await picture.decode();
            const canvas = Object.assign(document.createElement("canvas"), { width: picture.naturalWidth, height: picture.naturalHeight });
            canvas.getContext("2d").drawImage(picture, 0, 0);
            return canvas.toDataURL("image/png");
        })()""")
        by_grpc = self.replica.caller.image(request_for(("outline", 1.0), ("night", 0.5), steps=3, width=128, height=128))
        shown = e2e.pixels(base64.b64decode(shown.split(",", 1)[1]))
        self.assertEqual(shown.tolist(), e2e.pixels(by_grpc).tolist())
        parameters = self.text("parameters")
        for said in ("Seed7", "outline:1, night:0.5", "128 x 128", "SAMPLER_EULER", "a large red circle"):
            self.assertIn(said, parameters)
        self.assertEqual(self.browser.messages, [])

    def test_it_suggests_the_adapters(self):
        names = "[...document.getElementById('names').children].map((option) => option.value)"
        e2e.wait_until(lambda: self.browser.value(names) == ["night", "outline"], "both are suggested")

    def test_an_error_is_shown_as_text(self):
        hostile = "&lt;b&gt;&amp;'"
        self.fill_adapter(hostile, "1")
        self.assertEqual(self.generate(), "Failed.")
        self.assertIn(hostile, self.text("error"))
        self.fill_adapter("", "1")
        self.fill(steps="0")
        self.assertEqual(self.generate(), "Failed.")
        self.assertIn("steps", self.text("error"))
        self.fill(steps="1")
        self.assertEqual(self.generate(), "Done.")
        self.assertEqual(self.text("error"), "")

    def test_stop_ends_the_request(self):
        self.fill(steps="1000")
        self.browser.value("document.getElementById('generate').click()")
        e2e.wait_until(lambda: self.text("state").startswith("Step "), "it runs")
        self.browser.value("document.getElementById('stop').click()")
        e2e.wait_until(lambda: self.text("state") == "Stopped.", "it has stopped")
        self.replica.wait_for_metric(1, "hotlora_requests_total", method="StreamGenerateImages", code="CANCELLED")

    def test_its_policy_allows_its_own_script_and_nothing_else(self):
        _, headers, body = self.call("/")
        self.assertEqual(headers["content-type"], "text/html; charset=utf-8")
        self.assertEqual(body, (ENVOY_FOLDER / "page.html").read_bytes())
        page = body.decode()
        for part in ("script", "style"):
            (text,) = re.findall(f"<{part}>(.*?)</{part}>", page, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            self.assertIn(f"{part}-src 'sha256-{digest}';", headers["content-security-policy"])
        self.assertIn("default-src 'none'", headers["content-security-policy"])
        self.browser.value("document.head.append(Object.assign(document.createElement('script'), {text: 'window.ran = true'}))")
        self.assertIsNone(self.browser.value("window.ran"))


class PageWithTokensTest(PageCase):
    @classmethod
    def setUpClass(cls):
        cls.flags = ("--tokens-file", tokens_file(f"{TOKEN} admin"))
        super().setUpClass()

    def test_it_sends_the_token(self):
        self.fill(steps="1")
        self.assertEqual(self.generate(), "Failed.")
        self.assertIn("token", self.text("error"))
        self.fill(token=TOKEN)
        self.browser.value("document.getElementById('token').dispatchEvent(new Event('change'))")
        e2e.wait_until(lambda: self.browser.value("document.getElementById('names').children.length") == 2, "names are suggested")
        self.assertEqual(self.generate(), "Done.", self.text("error"))


class DemoTest(unittest.TestCase):
    """deploy/demo.sh --serve --rest, in a tree where all is installed and built."""

    def setUp(self):
        self.tree = e2e.temporary_folder()
        shutil.copytree(SOURCE / "deploy/demo", self.tree / "deploy/demo", ignore=shutil.ignore_patterns("train"))
        shutil.copytree(ENVOY_FOLDER, self.tree / "deploy/envoy")
        shutil.copyfile(SOURCE / "deploy/demo.sh", self.tree / "deploy/demo.sh")
        (self.tree / "build").mkdir()
        (self.tree / "build/release").symlink_to(e2e.BIN.parent)
        envoy = self.tree / "cache/envoy/envoy/_bin/envoy"
        envoy.parent.mkdir(parents=True)
        envoy.symlink_to(TOOLS / "envoy")
        for program in (self.tree / "deploy/install_dependencies.sh", self.tree / "path/cmake"):
            program.parent.mkdir(exist_ok=True)
            program.write_text("#!/bin/sh\n")
            program.chmod(0o755)

    def environment(self, **settings):
        return e2e.clean_environment(HOTLORA_CACHE=str(self.tree / "cache"), PATH=f"{self.tree}/path:{os.environ['PATH']}",
                                     HOTLORA_DTYPE=e2e.DTYPE, **settings)

    def test_it_serves_until_it_is_stopped(self):
        listen = f"127.0.0.1:{balancers.free_port()}"
        environment = self.environment(HOTLORA_REST_LISTEN=listen, HOTLORA_LISTEN="127.0.0.1:0",
                                       HOTLORA_METRICS_LISTEN="127.0.0.1:0")
        log_path = self.tree / "demo.log"
        with open(log_path, "wb") as log:
            demo = subprocess.Popen(["bash", self.tree / "deploy/demo.sh", "--serve", "--rest"], stdin=subprocess.DEVNULL,
                                    stdout=log, stderr=log, env=environment, start_new_session=True)
        self.addCleanup(lambda: demo.poll() is None and os.killpg(demo.pid, signal.SIGKILL))

        def ready():
            self.assertIsNone(demo.poll(), log_path.read_text())
            return f"http://{listen}/" in log_path.read_text()

        e2e.wait_until(ready, "it says where it serves REST")
        url = f"http://{listen}"
        status, _, body = call(url, "/v1/images:render", {"prompt": "x", "steps": 1, "width": 64, "height": 64})
        self.assertEqual((status, body[:4]), (200, b"\x89PNG"))
        self.assertEqual(call(url, "/")[0], 200)
        pid = json.loads((self.tree / "out/demo/ready.json").read_text())["pid"]
        demo.send_signal(signal.SIGINT)
        self.assertEqual(demo.wait(timeout=e2e.PATIENCE), 0, log_path.read_text())
        self.assertFalse(pathlib.Path(f"/proc/{pid}").exists(), "the server has ended")
        with self.assertRaises(ConnectionRefusedError):
            call(url, "/")

    def test_it_refuses_what_it_cannot_do(self):
        for words, settings, said in (
                (["--rest"], {}, "give --serve with it"),
                (["--serve", "--rest"], {"HOTLORA_REST_LISTEN": "8080"}, "HOTLORA_REST_LISTEN is 8080; give"),
                (["--serve", "--rest"], {"HOTLORA_REST_LISTEN": "0.0.0.0:8080"}, "set HOTLORA_TOKENS_FILE")):
            done = e2e.run("bash", self.tree / "deploy/demo.sh", *words, environment=self.environment(**settings))
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn(said, done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
