"""A Docker daemon of the test's own, with a Debian base that is made here: no image is taken from anywhere.

The stand-in base carries this machine's certificates, so what is built from it is for tests alone, and goes with the daemon.
"""

import atexit
import fcntl
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

from balancers import TOOLS, e2e

COMPOSE, = TOOLS.parent.glob("lib/python*/site-packages/compose/docker-compose")

BASE = "debian:bookworm-slim"
DOCKER = "/usr/bin/docker"  # Debian's, whose BuildKit needs no plug-in


def output(*words, patience=1200, **more):
    """What a command prints; it must succeed."""
    done = e2e.run(*words, patience=patience, **more)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, words))}: {done.returncode}\n{done.stdout[-6000:]}{done.stderr[-6000:]}")
    return done.stdout


def cache_folder():
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(os.environ.get("HOTLORA_CACHE") or pathlib.Path(cache) / "hotlora")


def base_tar():
    """A minimal Debian 12 with this machine's certificates; kept from one run to the next."""
    tar = cache_folder() / "debian-bookworm-slim.tar"
    if not tar.exists():
        pip_conf = e2e.temporary_folder() / "pip.conf"
        pip_conf.write_text("[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n")
        partial = tar.with_suffix(".partial.tar")
        left_out = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info")]
        output("mmdebstrap", "--variant=minbase", "--mode=root", "--include=ca-certificates", *left_out,
               "--customize-hook=copy-in /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs",
               f"--customize-hook=copy-in {pip_conf} /etc",
               '--customize-hook=rm -rf "$1"/var/lib/apt/lists/* "$1"/etc/resolv.conf "$1"/etc/hostname', "bookworm", partial)
        partial.rename(tar)
    return tar


def cannot_run(reason):
    """Ends the test as one that cannot run here: skipped for CTest, failed where CI=true (tests/count_results.py)."""
    print(f"no Docker daemon can be started here: {reason}", file=sys.stderr)
    sys.exit(77)


class Daemon:
    """dockerd with neither bridge nor iptables of its own; Compose's networks are bridges that `down` removes.

    It needs root, overlay mounts and control groups, which most containers lack. One at a time: another run of this test on
    the same machine waits.
    """

    def __init__(self):
        if os.geteuid() != 0:
            cannot_run("it needs root")
        self.lock = open(cache_folder() / "docker.lock", "w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        if subprocess.run(["pgrep", "-x", "dockerd"], capture_output=True).returncode == 0:
            cannot_run("one runs already, and a second would take its networks away")
        self.folder = e2e.temporary_folder()
        socket = self.folder / "docker.sock"
        self.environment = e2e.clean_environment(DOCKER_HOST=f"unix://{socket}", DOCKER_CONFIG=str(self.folder / "config"),
                                                 DOCKER_BUILDKIT="1")
        command = ["dockerd", f"--host=unix://{socket}", f"--data-root={self.folder}/data", f"--exec-root={self.folder}/exec",
                   f"--pidfile={self.folder}/docker.pid", "--iptables=false", "--ip-masq=false", "--ip-forward=false",
                   "--bridge=none", "--storage-driver=overlay2"]
        self.log = open(self.folder / "dockerd.log", "wb")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                        env={**self.environment, "PATH": os.environ["PATH"] + ":/usr/sbin"})
        atexit.register(self.stop)
        e2e.wait_until(self.answers, "the daemon answers")

    def answers(self):
        if self.process.poll() is not None:
            lines = (self.folder / "dockerd.log").read_text().splitlines()
            cannot_run("\n".join([line for line in lines if re.search("panic:|fatal|failed", line)] or lines[-20:]))
        return e2e.run(DOCKER, "info", environment=self.environment).returncode == 0

    def docker(self, *words, **more):
        return output(DOCKER, *words, environment=self.environment, **more)

    def stop(self):
        if self.process.poll() is None:
            containers = self.docker("ps", "-aq").split()
            if containers:
                self.docker("rm", "-f", *containers)
            self.docker("network", "prune", "-f")
            self.process.terminate()
            self.process.wait(timeout=60)
            time.sleep(0.2)  # its mounts go with it
        shutil.rmtree(self.folder, ignore_errors=True)
        self.lock.close()


def copy_newest(folder, to, most_bytes=1 << 30):
    """Of a compiler cache what was used last."""
    files = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: -path.stat().st_mtime)
    for path in files:
        most_bytes -= path.stat().st_size
        if most_bytes < 0:
            break
        copy = to / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)


def seed_build_base(daemon, source):
    """An image with what this machine has compiled and downloaded: the Dockerfile's BUILD_BASE. Returns its name and SOURCE.

    ccache knows a file again only by the same paths and the same language of messages, so both are as they are here.
    """
    ccache = {name: output("ccache", "-k", name).strip() for name in ("cache_dir", "base_dir", "hash_dir")}
    context = e2e.temporary_folder()
    lines = [f"FROM {BASE}", f"ENV HOTLORA_CACHE={cache_folder()} CCACHE_DIR={ccache['cache_dir']}"]
    if ccache["base_dir"]:
        lines.append(f"ENV CCACHE_BASEDIR={ccache['base_dir']}")
    if ccache["hash_dir"] == "false":
        lines.append("ENV CCACHE_NOHASHDIR=1")
    lines += [f"ENV {name}={os.environ[name]}" for name in ("LANG", "LC_ALL", "LC_CTYPE", "LC_MESSAGES") if os.environ.get(name)]
    objects, libtorch = pathlib.Path(ccache["cache_dir"]), cache_folder() / "libtorch-2.11.0"
    (context / "ccache").mkdir()
    copy_newest(objects, context / "ccache")
    shutil.copytree(libtorch, context / "libtorch", symlinks=True)
    lines += [f"COPY ccache {objects}", f"COPY libtorch {libtorch}"]
    (context / "Dockerfile").write_text("\n".join(lines) + "\n")
    daemon.docker("build", "-q", "-t", "hotlora-build-base", context)
    return "hotlora-build-base", str(source)
