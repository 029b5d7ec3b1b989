"""A mixed load on a server that dies under it, and what must be true of the adapter folder after its next start.

Callers write down what they asked for and what they were told. From that follows which content each name may have:
what was acknowledged last, or what was asked for and not answered, as a whole.
"""

import argparse
import hashlib
import json
import math
import os
import pathlib
import random
import struct
import sys
import threading
import time
import unittest

SOURCE = pathlib.Path(os.environ["HOTLORA_TEST_SOURCE"])
sys.path[:0] = [str(SOURCE / "tests/e2e"), str(SOURCE / "tests/deploy")]

import grpc  # noqa: E402
import hotlora_server as e2e  # noqa: E402
from balancers import free_port  # noqa: E402
from hotlora_server import adapters_pb2, images_pb2, server_pb2  # noqa: E402

ABSENT = "absent"
KEPT = "kept"  # an adapter that no caller changes
FILES = ["a", "b", "c", "styles/a", "styles/b", "deep/er/still/a", "é ü", "hot", "hot/x"]
PEFT = ["peft/one", "peft/two"]  # uploads make none
PEFT_CONFIG = '{"peft_type": "LORA", "r": 4, "lora_alpha": 4}'
# What the server answers if it has changed nothing.
REFUSALS = {"ADAPTER_EXISTS", "UPLOADS_BUSY"}
NOT_DELETED = {"ADAPTER_NOT_FOUND"}
# Also where a file is replaced or removed while it is read.
EXPECTED = {*REFUSALS, *NOT_DELETED, "ADAPTER_INVALID"}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def peft_sha256(tensors):
    """As the server does it: of the tensors' hash and the configuration."""
    return sha256(sha256(tensors).encode() + PEFT_CONFIG.encode())


def variant(data, number, padding=0, tensors=None):
    """The same adapter, or its first tensors, as another file: other metadata, and so another hash."""
    size, = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    metadata = {**header.pop("__metadata__", {}), "variant": str(number), "padding": "x" * padding}
    kept = dict(sorted(header.items(), key=lambda entry: entry[1]["data_offsets"])[:tensors])
    end = max(entry["data_offsets"][1] for entry in kept.values())
    text = json.dumps({"__metadata__": metadata, **kept}).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[8 + size : 8 + size + end]


def request_for(*adapters):
    return e2e.request_for(*adapters, steps=1, format=images_pb2.IMAGE_FORMAT_RAW_RGB8)


class Contents:
    """Adapter files, each of its own hash, of a few kinds that differ in size and in the picture they make."""

    def __init__(self):
        outline, night = ((e2e.ALL_DEMO_ADAPTERS / f"{name}.safetensors").read_bytes() for name in ("outline", "night"))
        self.kinds = {"small": (night, 0, 12), "middle": (outline, 0, None), "large": (night, 4_000_000, None)}
        self.peft = variant(night, "peft")
        self.lock = threading.Lock()
        self.kind_of = {}  # by hash

    def make(self, kind=None):
        with self.lock:
            kind = kind or random.choice(list(self.kinds))
            data, padding, tensors = self.kinds[kind]
            made = variant(data, len(self.kind_of), padding, tensors)
            self.kind_of[sha256(made)] = kind
            return made


class Ledger:
    """What callers did to each name since the last start. A deed without an end was not answered."""

    def __init__(self):
        self.lock = threading.Lock()
        self.before = {}
        self.deeds = {}
        self.answered = 0

    def begin(self, name, result):
        deed = {"begin": time.monotonic(), "end": None, "result": result}
        with self.lock:
            self.deeds.setdefault(name, []).append(deed)
        return deed

    def acknowledge(self, deed):
        with self.lock:
            deed["end"] = time.monotonic()
            self.answered += 1

    def take_back(self, name, deed):
        """The server has said that it changed nothing."""
        with self.lock:
            self.deeds[name].remove(deed)
            self.answered += 1

    def allowed(self, name, moment=math.inf):
        """A deed may be the last one unless an acknowledged one began after its end.

        At an earlier moment, what was answered after it was not answered yet.
        """
        deeds = [deed for deed in self.deeds.get(name, []) if deed["begin"] <= moment]
        ends = [deed["end"] if deed["end"] is not None and deed["end"] <= moment else math.inf for deed in deeds]
        last_begin = max((deed["begin"] for deed, end in zip(deeds, ends) if end < math.inf), default=-math.inf)
        results = {deed["result"] for deed, end in zip(deeds, ends) if end >= last_begin}
        return results if last_begin > -math.inf else results | {self.before.get(name, ABSENT)}

    def ends(self):
        return [deed["end"] for deeds in self.deeds.values() for deed in deeds if deed["end"] is not None]

    def settle(self, found):
        """What is there now is what later deeds begin from."""
        self.before = dict(found)
        self.deeds = {}


def messages(name, data, replace, chunk):
    header = adapters_pb2.UploadHeader(name=name, size=len(data), sha256=sha256(data), replace=replace)
    yield adapters_pb2.UploadAdapterRequest(header=header)
    for begin in range(0, len(data), chunk):
        yield adapters_pb2.UploadAdapterRequest(chunk=data[begin : begin + chunk])


class Load:
    """Callers of all kinds on one server until they are stopped or it is gone."""

    def __init__(self, target, contents, ledger, pictures):
        self.target, self.contents, self.ledger, self.pictures = target, contents, ledger, pictures
        self.stopped = threading.Event()
        self.faults = []
        kinds = [self.upload] * 4 + [self.delete] * 2 + [self.load, self.generate, self.list]
        chances = [random.Random(random.random()) for _ in kinds]
        self.threads = [threading.Thread(target=self.run, args=pair) for pair in zip(kinds, chances)]
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()
        if self.faults:
            raise self.faults[0]

    def run(self, act, chance):
        caller = e2e.Caller(self.target)
        try:
            while not self.stopped.is_set():
                try:
                    act(caller, chance)
                except grpc.RpcError as error:
                    self.take_note(e2e.Problem(error))
        except Exception as fault:  # pylint: disable=broad-except
            self.faults.append(fault)
        finally:
            caller.close()

    def take_note(self, problem):
        if problem.reason is None:
            self.stopped.wait(0.01)  # the caller has broken off, or the server is gone
        elif problem.reason not in EXPECTED:
            raise AssertionError(f"a call ended with {problem}")

    def change(self, name, result, no_change, call):
        deed = self.ledger.begin(name, result)
        try:
            call()
        except grpc.RpcError as error:
            if e2e.Problem(error).reason in no_change:
                self.ledger.take_back(name, deed)
            raise
        self.ledger.acknowledge(deed)

    def upload(self, caller, chance):
        name, data = chance.choice(FILES), self.contents.make()
        stream = messages(name, data, replace=chance.random() < 0.6, chunk=chance.choice((20_000, 100_000, 1_000_000)))
        patience = chance.choice([e2e.PATIENCE] * 9 + [0.01])  # some break off
        upload = caller.adapters.UploadAdapter
        self.change(name, sha256(data), REFUSALS, lambda: upload(stream, timeout=patience))

    def delete(self, caller, chance):
        name = chance.choice(FILES + PEFT)
        request = adapters_pb2.DeleteAdapterRequest(name=name)
        self.change(name, ABSENT, NOT_DELETED, lambda: caller.adapters.DeleteAdapter(request, timeout=e2e.PATIENCE))

    def load(self, caller, chance):
        name = chance.choice(FILES + PEFT)
        tier = chance.choice((adapters_pb2.ADAPTER_TIER_HOST, adapters_pb2.ADAPTER_TIER_DEVICE))
        caller.adapters.LoadAdapter(adapters_pb2.LoadAdapterRequest(name=name, tier=tier), timeout=e2e.PATIENCE)
        caller.adapters.UnloadAdapter(adapters_pb2.UnloadAdapterRequest(name=name), timeout=e2e.PATIENCE)

    def generate(self, caller, chance):
        names = chance.choice(([], [KEPT], [chance.choice(FILES)]))
        answer = caller.generate(request_for(*names))
        kinds = [self.contents.kind_of[applied.content_sha256] for applied in answer.summary.adapters]
        if answer.images[0].data != self.pictures[kinds[0] if kinds else ABSENT]:
            raise AssertionError(f"{names}: the picture is not that of the adapter's content")

    def list(self, caller, chance):
        names = [entry.name for entry in list_all(caller)]
        if names != sorted(names) or not set(names) <= {KEPT, *FILES, *PEFT}:
            raise AssertionError(f"the list names {names}")


def list_all(caller):
    entries, token = [], ""
    while True:
        request = adapters_pb2.ListAdaptersRequest(page_size=5, page_token=token)
        page = caller.adapters.ListAdapters(request, timeout=e2e.PATIENCE)
        entries += page.adapters
        token = page.next_page_token
        if not token:
            return entries


def put_peft(folder, contents, ledger):
    """PEFT folders where there are none, as an operator copies them."""
    for name in PEFT:
        if not (folder / name).exists():
            (folder / name).mkdir(parents=True)
            (folder / name / "adapter_model.safetensors").write_bytes(contents.peft)
            (folder / name / "adapter_config.json").write_text(PEFT_CONFIG)
            ledger.before[name] = peft_sha256(contents.peft)


def files_in(folder):
    """Bytes by path."""
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if not path.is_dir()}


def adapters_of(files):
    """Hashes by name. A PEFT folder's configuration alone has ABSENT. Anything that is no adapter is an error."""
    found = {}
    for path, content in sorted(files.items()):
        if any(part.startswith(".") for part in path.parts):
            raise AssertionError(f"{path} is left")
        if path.name == "adapter_config.json":
            found[str(path.parent)] = ABSENT
        elif path.name == "adapter_model.safetensors":
            whole = found.get(str(path.parent)) == ABSENT
            found[str(path.parent)] = peft_sha256(content) if whole else "tensors alone"
        else:
            found[str(path.with_suffix(""))] = sha256(content)
    return found


def check_files(files, ledger, moment=math.inf):
    """Each name has a content that it may have at that moment."""
    found = adapters_of(files)
    for name in {*found, *ledger.before, *ledger.deeds}:
        now, allowed = found.get(name, ABSENT), ledger.allowed(name, moment)
        if now not in allowed:
            deeds = ledger.deeds.get(name)
            raise AssertionError(f"adapter {name} is {now} at {moment}; allowed are {allowed}; deeds: {deeds}")
    return found


def check_served(caller, found, pictures):
    """The server lists, reads and applies what is in the folder, and deletes what is left of a PEFT folder."""
    listed = {entry.name: entry.state for entry in list_all(caller)}
    if listed.keys() != found.keys():
        raise AssertionError(f"listed are {sorted(listed)}; in the folder are {sorted(found)}")
    for name, content in found.items():
        if content == ABSENT:
            caller.adapters.DeleteAdapter(adapters_pb2.DeleteAdapterRequest(name=name), timeout=e2e.PATIENCE)
            continue
        request = adapters_pb2.LoadAdapterRequest(name=name, tier=adapters_pb2.ADAPTER_TIER_HOST)
        loaded = caller.adapters.LoadAdapter(request, timeout=e2e.PATIENCE)
        if loaded.content_sha256 != content:
            raise AssertionError(f"adapter {name} is read as {loaded.content_sha256}; its file is {content}")
    check_pictures(caller, pictures)
    integrity = caller.info.VerifyBase(server_pb2.VerifyBaseRequest(), timeout=e2e.PATIENCE)
    if not integrity.intact:
        raise AssertionError(f"the base weights changed: {integrity}")


def check_pictures(caller, pictures):
    for names, kind in (([], ABSENT), ([KEPT], "middle")):
        if caller.image(request_for(*names)) != pictures[kind]:
            raise AssertionError(f"{names or 'no adapter'}: another picture than before")


class Trial:
    """Folders, contents and ledger of one test; servers that follow each other on them and on one port."""

    def __init__(self):
        self.work = e2e.temporary_folder()
        self.folder = self.work / "adapters"
        self.folder.mkdir()
        self.process_folder = self.work / "process"
        self.process_folder.mkdir()
        self.ports = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        self.contents, self.ledger = Contents(), Ledger()
        kept = self.contents.make("middle")
        (self.folder / f"{KEPT}.safetensors").write_bytes(kept)
        self.ledger.before[KEPT] = sha256(kept)
        self.pictures = self._paint()
        put_peft(self.folder, self.contents, self.ledger)

    def start(self, environment=None):
        return e2e.Server("--access-log", self.process_folder / "access.log", "--upload-quota-files", 0,
                          "--upload-quota-bytes", 0, "--max-batch", 1, adapters=self.folder, listen=self.ports[0],
                          metrics_listen=self.ports[1], environment=environment, folder=self.process_folder)

    def _paint(self):
        """The picture of each kind, by a server that has nothing else to do."""
        folder = e2e.temporary_folder()
        for kind in self.contents.kinds:
            (folder / f"{kind}.safetensors").write_bytes(self.contents.make(kind))
        server = e2e.Server("--max-batch", 1, adapters=folder)
        pictures = {kind: server.caller.image(request_for(kind)) for kind in self.contents.kinds}
        pictures[ABSENT] = server.caller.image(request_for())
        server.stop()
        return pictures

    def check(self, server):
        """After a start: everything that must be true. What is there becomes what later deeds begin from."""
        found = check_files(files_in(self.folder), self.ledger)
        check_served(server.caller, found, self.pictures)
        self.ledger.settle({name: content for name, content in found.items() if content != ABSENT})
        server.wait_for_metric(0, "hotlora_adapter_refs")
        self._check_process_files(server)

    def _check_process_files(self, server):
        names = {path.name for path in self.process_folder.iterdir()}
        if names != {"ready.json", "server.log", "access.log"}:
            raise AssertionError(f"beside the server lie {sorted(names)}")


ROUNDS = 0


def main(description):
    """Runs the script's tests, with --rounds and --seed."""
    global ROUNDS  # pylint: disable=global-statement
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=2026)
    options, rest = parser.parse_known_args()
    ROUNDS = options.rounds
    random.seed(options.seed)
    print(f"seed {options.seed}")
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)
