"""The programs' own words: flags, settings, exit codes, what they say when something is wrong, TLS and tokens."""

import contextlib
import hashlib
import json
import os
import pathlib
import pty
import shutil
import socket
import subprocess
import unittest

import numpy
import safetensors.numpy

import hotlora_server as e2e
from hotlora_server import adapters_pb2, request_for, server_pb2

MODEL = e2e.GOLDEN / "pipeline"  # the smallest
BROKEN = e2e.GOLDEN / "broken_adapters"
FLAGS = """model model-config vae adapters adapters-follow-links apply listen metrics-listen device dtype vae-dtype max-batch max-queue
  adapter-host-bytes controls control-device-bytes control-host-bytes pin-control conditioning-cache-bytes pin base-adapter allow-unmatched-keys max-request-seconds max-message-bytes tls-cert tls-key tls-client-ca
  tokens-file trusted-proxy client-share uploads upload-quota-files upload-quota-bytes reflection ready-file check drain-timeout config log-level version help""".split()


def serve(*words, **variables):
    """Runs the server where it must end by itself."""
    return e2e.run(e2e.SERVER, *words, environment=e2e.clean_environment(**variables))


class BadSettingsTest(unittest.TestCase):
    """Nothing here gets as far as loading a model. Every flag's limits are in tests/server/flags_test.cc."""

    def refused(self, *words, says, **variables):
        result = serve(*words, **variables)
        self.assertEqual((result.returncode, result.stdout), (2, ""), result)
        lines = result.stderr.splitlines()
        self.assertEqual(len(lines), 1, result.stderr)
        self.assertTrue(lines[0].startswith("hotlora-server: "), lines[0])
        for part in says:
            self.assertIn(str(part), lines[0])

    def test_help_names_every_flag(self):
        result = serve("--help")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        for flag in FLAGS:
            self.assertIn(f"--{flag} ", result.stdout)

    def test_version(self):
        for program, name in ((e2e.SERVER, "hotlora-server"), (e2e.CLIENT, "hotlora")):
            result = e2e.run(program, "--version")
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            self.assertRegex(result.stdout, rf"^{name} \d+\.\d+\.\d+\n$")

    def test_unknown_settings(self):
        file = e2e.temporary_folder() / "settings.toml"
        file.write_text('model = "x"\nspeed = 3\n')
        self.refused("--model", MODEL, "--speed", 3, says=["--speed"])
        self.refused("--model", MODEL, "extra", says=["extra"])
        self.refused("--model", MODEL, says=["HOTLORA_SPEED"], HOTLORA_SPEED="3")
        self.refused("--config", file, says=[file, "line 2", "speed"])

    def test_bad_values_say_what_is_allowed(self):
        cases = [
            ("--max-queue", "many", "1 to"),
            ("--adapter-host-bytes", "4GB", "GiB"),
            ("--listen", "50051", "HOST:PORT"),
            ("--device", "gpu", "cpu"),
        ]
        for flag, value, allowed in cases:
            with self.subTest(flag, value=value):
                self.refused("--model", MODEL, flag, value, says=[flag, value, allowed])
        self.refused("--model", MODEL, says=["HOTLORA_MAX_QUEUE", "0"], HOTLORA_MAX_QUEUE="0")

    def test_flags_that_need_others(self):
        self.refused(says=["--model"])
        self.refused("--model", MODEL, "--tls-cert", "x.pem", says=["--tls-cert", "--tls-key"])
        self.refused("--model", MODEL, "--pin", "night", says=["--pin", "--adapters"])

    def test_paths_that_are_not_there(self):
        missing = e2e.temporary_folder() / "missing"
        self.refused("--model", missing, says=["--model", missing])
        self.refused("--model", MODEL, "--adapters", missing, says=["--adapters", missing])
        self.refused("--model", MODEL, "--tokens-file", missing, says=["--tokens-file", missing])
        self.refused("--model", MODEL, "--config", missing, says=["--config", missing])
        self.refused("--model", MODEL, "--ready-file", missing / "ready.json", says=["--ready-file", missing])

    def test_a_taken_port(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            free = "127.0.0.1:0"
            for flag, other in (("--listen", "--metrics-listen"), ("--metrics-listen", "--listen")):
                with self.subTest(flag):
                    result = serve("--model", MODEL, flag, address, other, free)
                    self.assertEqual(result.returncode, 2, result)
                    self.assertEqual(result.stderr.count(f"hotlora-server: {flag} {address}"), 1, result.stderr)

    def test_client_command_lines(self):
        cases = [
            ([], "no command"),
            (["paint"], "paint"),
            (["generate"], "prompt"),
            (["generate", "x", "--out", "x.gif"], ".png"),
            (["generate", "x", "--out", "x.png", "--steps", "many"], "--steps"),
            (["generate", "x", "--out", "x.png", "--seed", "-1"], "--seed"),
            (["generate", "x", "--out", "x.png", "--adapter", "a:b"], "NAME"),
            (["generate", "x", "--out", "/no/such/folder/x.png"], "/no/such/folder"),
            (["info", "--tls-ca", "/no/such.pem"], "/no/such.pem"),
        ]
        for words, says in cases:
            with self.subTest(words):
                result = e2e.run(e2e.CLIENT, *words)
                self.assertEqual((result.returncode, result.stdout), (2, ""), result)
                self.assertIn(says, result.stderr)

    def test_client_without_a_server(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = f"127.0.0.1:{listener.getsockname()[1]}"
        result = e2e.run(e2e.CLIENT, "--server", address, "info")
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertIn("UNAVAILABLE", result.stderr)
        self.assertIn("--server", result.stderr)


class SingleFileTest(unittest.TestCase):
    """A checkpoint of one file, served."""

    def test_gives_the_folders_image(self):
        settings = e2e.temporary_folder() / "settings.toml"
        settings.write_text(f'model_config = "{MODEL}"\nvae = "{MODEL / "vae"}"\n')
        images = []
        for model, flags in (
            (MODEL, ()),
            (e2e.SINGLE_FILE, ("--model-config", MODEL)),
            (e2e.SINGLE_FILE, ("--config", settings)),
        ):
            server = e2e.Server(*flags, model=model)
            try:
                images.append(e2e.pixels(server.caller.image(request_for())).tolist())
            finally:
                server.stop()
        self.assertEqual(images[1], images[0])
        self.assertEqual(images[2], images[0])


class CheckTest(unittest.TestCase):
    """--check, and models that cannot be used."""

    def check(self, model, *words):
        return serve("--check", "--model", model, "--log-level", "error", *words)

    def test_good_model_and_adapters(self):
        result = self.check(e2e.DEMO, "--adapters", e2e.DEMO_ADAPTERS)
        self.assertEqual((result.returncode, result.stderr), (0, ""), result)
        for part in ("model", "sha256", "MiB", "2 found, 0 failed"):
            self.assertIn(part, result.stdout)

    def test_single_file_checkpoint(self):
        result = self.check(e2e.SINGLE_FILE, "--model-config", MODEL, "--vae", MODEL / "vae")
        self.assertEqual((result.returncode, result.stderr), (0, ""), result)
        self.assertIn("tiny_sdxl_sgm", result.stdout)
        result = self.check(e2e.SINGLE_FILE)
        self.assertEqual(result.returncode, 1, result)
        self.assertIn("--model-config", result.stderr)

    def test_bad_adapters_are_named(self):
        folder = e2e.copy_adapters(BROKEN / "good.safetensors", BROKEN / "nan_weights.safetensors")
        shutil.copyfile(BROKEN / "truncated_body.safetensors", folder / "cut.safetensors")
        result = self.check(MODEL, "--adapters", folder)
        self.assertEqual(result.returncode, 1, result)
        self.assertIn("3 found, 2 failed", result.stdout)
        failed = [line for line in result.stdout.splitlines() if "FAILED" in line]
        self.assertEqual([line.split()[1].rstrip(":") for line in failed], ["cut", "nan_weights"])

    def test_a_line_for_each_name(self):
        folder = e2e.temporary_folder()
        for name in ("Pony Style (v2)", "水彩", "cafe\u0301", "a:b", "line\nbreak"):
            shutil.copyfile(BROKEN / "good.safetensors", folder / f"{name}.safetensors")
        for name in ("fine.png", "fine.civitai.info", "notes.txt", ".hidden.safetensors", "old.pt", "older.ckpt"):
            (folder / name).write_bytes(b"x")
        result = serve("--check", "--model", MODEL, "--adapters", folder)
        self.assertEqual(result.returncode, 1, result)
        lines = result.stdout.splitlines()
        for line in ("  ok      Pony Style (v2)", "  ok      水彩", "  ok      caf\u00e9"):
            self.assertIn(line, lines)
        for start, why in (("  FAILED  a:b: ", '":"'), ("  FAILED  line\\x0abreak: ", "U+000A")):
            self.assertTrue(any(line.startswith(start) and why in line for line in lines), result.stdout)
        self.assertIn("5 found, 2 failed", result.stdout)
        self.assertEqual(result.stderr.count("old.pt, older.ckpt"), 1, result.stderr)

    def test_unusable_models_say_which_part(self):
        def copy():
            return pathlib.Path(shutil.copytree(MODEL, e2e.temporary_folder() / "model"))

        dropped = "down_blocks.0.resnets.0.conv1.weight"
        weights = pathlib.Path("unet/diffusion_pytorch_model.safetensors")
        without_tensor, cut, without_folder, without_file, other = (copy() for _ in range(5))
        tensors = safetensors.numpy.load_file(without_tensor / weights)
        del tensors[dropped]
        safetensors.numpy.save_file(tensors, without_tensor / weights)
        os.truncate(cut / weights, os.path.getsize(cut / weights) - 1)
        shutil.rmtree(without_folder / "vae")
        (without_file / "tokenizer/merges.txt").unlink()
        (other / "unet/config.json").write_text("{}")
        cases = [
            (without_tensor, [dropped]),
            (cut, ["unet"]),
            (without_folder, ["vae"]),
            (without_file, ["tokenizer"]),
            (other, ["unet/config.json"]),
            (e2e.DEMO_ADAPTERS, ["model_index.json"]),
        ]
        for model, says in cases:
            with self.subTest(says):
                result = self.check(model)
                self.assertEqual((result.returncode, result.stdout), (1, ""), result)
                self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
                for part in says:
                    self.assertIn(part, result.stderr)


class SettingsTest(unittest.TestCase):
    def test_flag_over_environment_over_file_over_default(self):
        folder = e2e.temporary_folder()
        file = folder / "settings.toml"
        file.write_text('max_queue = 6\nmax_batch = 3\nmax_message_bytes = "1MiB"\npin = ["outline"]\n')
        environment = e2e.clean_environment(
            HOTLORA_MAX_QUEUE="5", HOTLORA_MAX_BATCH="2", HOTLORA_PIN="night,outline", HOTLORA_CONFIG=str(file))
        server = e2e.Server("--max-queue", 4, adapters=e2e.DEMO_ADAPTERS, environment=environment)
        self.addCleanup(server.stop)
        limits = server.caller.info.GetServerInfo(server_pb2.GetServerInfoRequest()).limits
        self.assertEqual((limits.max_queue, limits.max_batch), (4, 2))
        self.assertEqual((limits.max_message_bytes, limits.max_request_seconds), (1 << 20, 0))
        listed = server.caller.adapters.ListAdapters(adapters_pb2.ListAdaptersRequest()).adapters
        self.assertEqual([(a.name, a.pinned, a.tier) for a in listed],
                         [(name, True, adapters_pb2.ADAPTER_TIER_DEVICE) for name in ("night", "outline")])

    def test_a_pinned_adapter_that_cannot_be_had(self):
        listen = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--log-level", "error"]
        folder = e2e.copy_adapters(e2e.DEMO_ADAPTERS)
        result = serve("--model", e2e.DEMO, "--adapters", folder, "--pin", "nobody", *listen)
        self.assertEqual(result.returncode, 1, result)
        self.assertIn("--pin nobody", result.stderr)

    def test_a_log_sees_lines(self):
        command, out = self.painting()
        logged = e2e.run(*command)
        self.assertEqual(logged.returncode, 0)
        self.assertNotIn("\x1b", logged.stdout + logged.stderr)
        self.assertNotIn("\r", logged.stdout + logged.stderr)
        self.assertIn("step 4/4", logged.stderr)
        self.assertIn(str(out), logged.stdout)

    def test_a_terminal_sees_a_bar(self):
        command, out = self.painting()
        try:
            ends = pty.openpty()
        except OSError as error:  # a container without /dev/pts
            self.skipTest(f"no terminals here: {error}")
        shown = self.on_a_terminal(command, *ends)
        self.assertIn("step 4/4", shown)
        self.assertIn("\r", shown)
        self.assertTrue(shown.endswith("\n"))
        self.assertIn(str(out), shown.splitlines()[-2])

    def painting(self):
        """A command that paints one picture, and its file."""
        server = e2e.Server(model=MODEL)
        self.addCleanup(server.stop)
        out = e2e.temporary_folder() / "x.png"
        return [e2e.CLIENT, "--server", server.target, "generate", "a circle", "--steps", "4", "--out", out], out

    def on_a_terminal(self, command, ours, its):
        """What a user sees of a program that succeeds; `ours` and `its` are the two ends of the terminal."""
        with contextlib.closing(os.fdopen(ours, "rb", buffering=0)) as screen:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=its, stderr=its, env=e2e.clean_environment())
            os.close(its)
            shown = b""
            with contextlib.suppress(OSError):  # how Linux says that the other end is closed
                while part := screen.read(4096):
                    shown += part
            self.assertEqual(process.wait(timeout=e2e.PATIENCE), 0)
        return shown.decode().replace("\r\n", "\n")


class SecurityTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = e2e.temporary_folder()
        cls.certificate("server", "subjectAltName=DNS:localhost,IP:127.0.0.1")
        cls.certificate("caller", "extendedKeyUsage=clientAuth")
        cls.certificate("stranger", "extendedKeyUsage=clientAuth")
        (cls.folder / "tokens").write_text(
            "# who may what\npainter-0123456789 generate\nreader-0123456789 adapters.read\nroot-0123456789ab admin\n")

    @classmethod
    def certificate(cls, name, extension):
        """A self-signed certificate, its own authority."""
        made = e2e.run(
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "1", "-subj", f"/CN={name}", "-addext", extension,
            "-keyout", cls.pem(name, "key"), "-out", cls.pem(name))
        if made.returncode != 0:
            raise AssertionError(made.stderr)

    @classmethod
    def pem(cls, name, kind="cert"):
        return cls.folder / f"{name}-{kind}.pem"

    def ask(self, server, *words, **variables):
        port = server.target.rsplit(":", 1)[1]
        return e2e.run(e2e.CLIENT, "--server", f"localhost:{port}", "--timeout", 20, *words,
                       environment=e2e.clean_environment(**variables))

    def serve(self, *flags):
        server = e2e.Server("--tls-cert", self.pem("server"), "--tls-key", self.pem("server", "key"), *flags,
                            model=MODEL, adapters=e2e.copy_adapters(BROKEN / "good.safetensors"))
        self.addCleanup(server.stop)
        return server

    def test_tls_and_tokens(self):
        server = self.serve("--tokens-file", self.folder / "tokens")
        trusting = ["--tls-ca", self.pem("server")]
        # Without TLS, with another authority, and by an address the certificate does not have.
        for words in ([], ["--tls-ca", self.pem("stranger")], trusting + ["--tls-server-name", "example.org"]):
            with self.subTest(words):
                result = self.ask(server, *words, "health")
                self.assertEqual((result.returncode, result.stdout), (1, ""))
                self.assertIn("UNAVAILABLE", result.stderr)
        # Health asks for no token.
        self.assertEqual(self.ask(server, *trusting, "health").stdout, "serving\n")
        generate = ["generate", "x", "--steps", 1, "--out", self.folder / "x.png"]
        cases = [
            (None, ["info"], "UNAUTHENTICATED"),
            ("wrong-0123456789", ["info"], "UNAUTHENTICATED"),
            (None, generate, "UNAUTHENTICATED"),
            ("painter-0123456789", generate, None),
            ("painter-0123456789", ["info"], None),
            ("painter-0123456789", ["adapters", "list"], "PERMISSION_DENIED"),
            ("reader-0123456789", ["adapters", "list"], None),
            ("reader-0123456789", ["adapters", "load", "good"], "PERMISSION_DENIED"),
            ("reader-0123456789", generate, "PERMISSION_DENIED"),
            ("root-0123456789ab", generate, None),
            ("root-0123456789ab", ["adapters", "load", "good"], None),
        ]
        for token, words, code in cases:
            with self.subTest(token, words=words[:2]):
                variables = {"HOTLORA_TOKEN": token} if token else {}
                result = self.ask(server, *trusting, *words, **variables)
                self.assertEqual(result.returncode, 1 if code else 0, result)
                self.assertIn(code or "", result.stderr)
        self.assertNotIn("0123456789", server.log(), "a token is in the log")
        metrics = server.metrics()
        self.assertEqual(metrics.value("hotlora_requests_total", method="GetServerInfo", code="UNAUTHENTICATED"), 2)

    def test_mutual_tls(self):
        server = self.serve("--tls-client-ca", self.pem("caller"))
        trusting = ["--tls-ca", self.pem("server")]
        for name, code in ((None, 1), ("stranger", 1), ("caller", 0)):
            with self.subTest(name):
                own = ["--tls-cert", self.pem(name), "--tls-key", self.pem(name, "key")] if name else []
                result = self.ask(server, *trusting, *own, "health")
                self.assertEqual(result.returncode, code, result)

    def test_bad_files(self):
        cases = [
            (["--tls-cert", self.pem("server", "key"), "--tls-key", self.pem("server", "key")], "--tls-cert"),
            (["--tls-cert", self.pem("server"), "--tls-key", self.pem("caller", "key")], "--tls-key"),
        ]
        tokens = self.folder / "bad-tokens"
        tokens.write_text("good-0123456789abc generate\nshort generate\n")
        cases.append((["--tokens-file", tokens], "line 2"))
        for words, says in cases:
            with self.subTest(says):
                result = serve("--model", MODEL, "--listen", "127.0.0.1:0", *words)
                self.assertEqual(result.returncode, 2, result)
                self.assertIn(says, result.stderr)


class InspectTest(unittest.TestCase):
    """`adapters inspect` needs no server."""

    def inspect(self, *words):
        result = e2e.run(e2e.CLIENT, "--json", "adapters", "inspect", *words)
        return result.returncode, json.loads(result.stdout)

    def test_says_what_fits(self):
        file = e2e.GOLDEN / "adapters/files/lycoris_loha.safetensors"
        code, said = self.inspect(file, "--model-config", MODEL)
        self.assertEqual((code, said["fits"], said["format"]), (0, True, "loha"), said)
        self.assertEqual(said["content_sha256"], hashlib.sha256(file.read_bytes()).hexdigest())
        self.assertEqual(said["matched_modules"], sum(said["modules"].values()))
        self.assertEqual(said["unmatched_keys"], [])
        text = e2e.run(e2e.CLIENT, "adapters", "inspect", file, "--model-config", MODEL)
        self.assertEqual(text.returncode, 0, text)
        self.assertIn("format      loha, rank up to", text.stdout)
        # It is far too small for stock SDXL.
        code, said = self.inspect(file)
        self.assertEqual((code, said["fits"], said["error"]["reason"]), (1, False, "ADAPTER_MISMATCH"), said)
        self.assertIn("has shape", said["error"]["message"])

    def test_says_which_other_model_an_adapter_is_for(self):
        folder = e2e.temporary_folder()
        array = numpy.zeros((4, 768), numpy.float32)
        cases = [
            ({"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": array}, {}, "for Flux"),
            ({"lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight": array}, {}, "for Stable Diffusion 3"),
            ({"lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": array,
              "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_up.weight": array.T.copy()}, {},
             "for Stable Diffusion 1"),
            ({"lora_unet_of_nowhere.lora_down.weight": array}, {"ss_base_model_version": "sd_v1"},
             "for Stable Diffusion 1 (ss_base_model_version \"sd_v1\")"),
        ]
        for number, (tensors, metadata, says) in enumerate(cases):
            with self.subTest(says):
                file = folder / f"{number}.safetensors"
                safetensors.numpy.save_file(tensors, file, metadata or None)
                code, said = self.inspect(file)
                self.assertEqual((code, said["error"]["reason"]), (1, "ADAPTER_MISMATCH"), said)
                self.assertIn(f"adapter is {says}", said["error"]["message"])

    def test_metadata_of_another_model_are_a_note(self):
        file = e2e.temporary_folder() / "text.safetensors"
        safetensors.numpy.save_file(
            {"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": numpy.zeros((4, 768), numpy.float32),
             "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": numpy.zeros((3072, 4), numpy.float32)},
            file, {"ss_base_model_version": "sd_v1"})
        code, said = self.inspect(file)
        self.assertEqual((code, said["fits"]), (0, True), said)
        self.assertEqual(said["notes"], ['its metadata say that it is for Stable Diffusion 1 (ss_base_model_version '
                                         '"sd_v1"); its keys and shapes fit this model'])
        text = e2e.run(e2e.CLIENT, "adapters", "inspect", file)
        self.assertIn("note        its metadata say", text.stdout)

    def test_what_cannot_be_read(self):
        for path in (e2e.GOLDEN / "missing.safetensors", e2e.GOLDEN / "adapters" / "manifest.json"):
            result = e2e.run(e2e.CLIENT, "adapters", "inspect", path)
            self.assertEqual((result.returncode, result.stdout), (1, ""), result)
            self.assertIn(str(path), result.stderr)


if __name__ == "__main__":
    unittest.main()
