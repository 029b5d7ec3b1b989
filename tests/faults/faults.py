"""The faults of hotlora-faulty-server, as a test arms them. The other side, and what each action does, is fault_points.h."""

import errno
import mmap
import pathlib
import struct
import tempfile

KINDS = ["tensor", "buffer", "map", "kernel", "open", "read", "write", "sync", "rename", "unlink", "stat"]
SETTINGS = ["clock_nanoseconds", "leaked_tensor_bytes_a_swap", "leaked_heap_bytes_a_swap", "slower_nanoseconds_each_swap"]

_WORD = struct.Struct("<q")
_PASSED, _FIRST, _COUNT, _ACTION, _HAPPENED = range(5)
_WORDS_OF_A_KIND = 5

_BESIDE = {"stuck": -7, "leak": -8, "hour on": -9, "hour back": -10}


def _errnos(*names):
    return {name: getattr(errno, name) for name in names}


# By kind, what can happen at its points.
ACTIONS = {
    "tensor": _errnos("ENOMEM"),
    "buffer": _errnos("ENOMEM"),
    "map": _errnos("ENOMEM"),
    "kernel": {"c10::Error": -3, "runtime_error": -4, "bad_alloc": -5, "NaN": -6},
    "open": _errnos("EMFILE", "EIO", "EACCES"),
    "read": {**_errnos("EIO", "EINTR"), "short": -1, "end": -2},
    "write": {**_errnos("ENOSPC", "EIO", "EINTR"), "short": -1},
    "sync": _errnos("EIO"),
    "rename": _errnos("EIO", "ENOSPC"),
    "unlink": _errnos("EIO"),
    "stat": _errnos("EIO"),
}


def code_of(kind, action):
    return {**ACTIONS[kind], **_BESIDE}[action]


class Faults:
    """The file that a server maps; `environment` is what the server needs to find it."""

    def __init__(self, **settings):
        self._file = tempfile.NamedTemporaryFile(prefix="hotlora-faults-")
        size = _WORD.size * (_WORDS_OF_A_KIND * len(KINDS) + len(SETTINGS))
        self._file.truncate(size)
        self._memory = mmap.mmap(self._file.fileno(), size)
        self.environment = {"HOTLORA_TEST_FAULTS": str(pathlib.Path(self._file.name))}
        for name, value in settings.items():
            self.set(name, value)

    def _read(self, word):
        return _WORD.unpack_from(self._memory, _WORD.size * word)[0]

    def _write(self, word, value):
        _WORD.pack_into(self._memory, _WORD.size * word, value)

    def _word(self, kind, field):
        return _WORDS_OF_A_KIND * KINDS.index(kind) + field

    def passed(self):
        """By kind, the points that the server has passed."""
        return {kind: self._read(self._word(kind, _PASSED)) for kind in KINDS}

    def arm(self, kind, n, action, count=1):
        """The n-th point of that kind from now, from 1, and the count - 1 that follow it."""
        self.disarm(kind)
        self._write(self._word(kind, _HAPPENED), 0)
        self._write(self._word(kind, _ACTION), code_of(kind, action))
        self._write(self._word(kind, _COUNT), count)
        self._write(self._word(kind, _FIRST), self._read(self._word(kind, _PASSED)) + n)

    def disarm(self, kind):
        self._write(self._word(kind, _FIRST), 0)

    def happened(self, kind):
        """How often it has happened since it was armed."""
        return self._read(self._word(kind, _HAPPENED))

    def set(self, setting, value):
        self._write(_WORDS_OF_A_KIND * len(KINDS) + SETTINGS.index(setting), value)
