"""Programs that take turns in one run, and the statistics of what they measured. Standard library only."""
import os
import random
import statistics
import subprocess
import sys

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../gpu"))
from stage_line import interval

ENVIRONMENT = dict(HF_HUB_OFFLINE="1", DIFFUSERS_VERBOSITY="error")
# As hotlora-server sets them for itself (server/main.cc). Other programs wait as their users have it: by their default.
SERVER = dict(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="100000")


class Arm:
    """A program that says "ready" and then answers each line by one."""

    def __init__(self, command, environment=None):
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True,
                                        env={**inherited, **ENVIRONMENT, **(environment or {})})
        self._await("ready")

    def _await(self, word):
        for line in self.process.stdout:  # libraries may print lines of their own before it
            if line.strip() == word:
                return
        sys.exit(f"{self.process.args} did not start")

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"{self.process.args} ended at {line!r}")
        return answer.strip()

    def numbers(self, line):
        return [float(word) for word in self.ask(line).split()]

    def peak_bytes(self):
        """The most memory that was resident."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def words(values, digits=1):
    """The median and its 95 % interval."""
    low, high = interval(values)
    return f"{statistics.median(values):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def cpu_name():
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        fields = dict([part.strip() for part in line.split(":", 1)] for line in info if ":" in line)
    units = [unit for unit in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "sha_ni") if unit in fields["flags"].split()]
    return (f"{fields['model name']}, family {fields['cpu family']} model {fields['model']}, {os.cpu_count()} CPUs, "
            f"{' '.join(units)}")
