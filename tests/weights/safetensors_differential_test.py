"""Our safetensors reader against the format's own library, on thousands of mutated files.

The verdicts are the same, or ours is stricter for a reason in STRICTER; what both accept has the same names, dtypes,
shapes and bytes.
"""

import argparse
import json
import os
import random
import re
import struct
import subprocess
import sys
import unittest

from safetensors import SafetensorError, deserialize

# What we refuse and the library takes: our message, and why.
STRICTER = {
    r"header does not begin with '\{'": "the format says that it must; the library skips blanks",
    r"(is there|the key .*) twice": "readers disagree on which of two entries counts",
    r"has unknown field": "the format has no other field, so it is a mistake or another format",
    r"has unknown dtype": "complex numbers, floats of 4, 6 and 8 bits that nothing here computes with",
    r"has more than 8 dimensions": "no tensor of any network has",
    r"has an array where none is allowed": "the library takes [dtype, shape, offsets] for an object; the format does not",
    r"has null": "the library takes null for no metadata; the format does not",
    r"has a dimension beyond 64 bits": "sizes of tensors are signed 64-bit numbers",
    r"has a (shape whose product is|size) beyond 64 bits": "no such tensor can be made, not even an empty one",
}

DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
          "U16": 2, "U32": 4, "U64": 8, "F8_E4M3": 1, "F8_E5M2": 1}
OTHER_DTYPES = ["C64", "F4", "F8_E8M0", "F6_E2M3", "F8_E4M3FNUZ", "f32", "F128", "", "F32 "]
NUMBERS = ["0", "1", "2", "8", "-1", "-0", "1.0", "1e1", "1E400", "4294967296", "9223372036854775807",
           "9223372036854775808", "18446744073709551615", "18446744073709551616", "00", "+1", "0x1", "NaN", "null",
           "true", '"2"', "[2]", "{}", ""]
NAMES = ["a", "unet.conv_in.lora_A.weight", "", "__metadata__", "\\u0000", "\\ud83d\\ude00", "\\ud800", "\u00e9", "b\\\"",
         "\\x", "\\/"]


class Header:
    """A header as parts that mutations replace, and its data."""

    def __init__(self, rng):
        self.rng = rng
        self.entries = []  # [name, fields]; a field is [key, text parts]
        size = 0
        for index in range(rng.randint(0, 4)):
            dtype = rng.choice(list(DTYPES))
            shape = [rng.choice([0, 1, 1, 2, 3, 5]) for _ in range(rng.choice([0, 1, 2, 2, 4]))]
            length = DTYPES[dtype]
            for dimension in shape:
                length *= dimension
            self.entries.append([f"tensor.{index}", [["dtype", f'"{dtype}"'], ["shape", [str(d) for d in shape]],
                                                     ["data_offsets", [str(size), str(size + length)]]]])
            size += length
        self.data = rng.randbytes(size)
        self.metadata = [["format", '"pt"'], ["a", '"b"']] if rng.random() < 0.5 else None
        rng.shuffle(self.entries)
        self.sequence = None  # the entry to write as an array of its values

    def text(self):
        parts = []
        for index, (name, fields) in enumerate(self.entries):
            values = [value if isinstance(value, str) else "[" + ",".join(value) + "]" for _, value in fields]
            if index == self.sequence:
                parts.append(f'"{name}":[{",".join(values)}]')
            else:
                inner = ",".join(f'"{key}":{value}' for (key, _), value in zip(fields, values))
                parts.append(f'"{name}":{{{inner}}}')
        if self.metadata is not None:
            parts.insert(self.rng.randint(0, len(parts)),
                         '"__metadata__":{' + ",".join(f'"{k}":{v}' for k, v in self.metadata) + "}")
        return "{" + ",".join(parts) + "}"

    # Mutations of the structure.

    def mutate(self):
        rng = self.rng
        fields = rng.choice(self.entries)[1] if self.entries else None
        lists = [value for _, value in fields or [] if isinstance(value, list)]
        choice = rng.randrange(13)
        if choice == 0 and lists:
            values = rng.choice(lists)
            if values:
                values[rng.randrange(len(values))] = rng.choice(NUMBERS)
        elif choice == 1 and lists:
            values = rng.choice(lists)
            if values:
                place = rng.randrange(len(values))
                if values[place].isdigit():
                    values[place] = str(max(0, int(values[place]) + rng.choice([-8, -1, 1, 4, 8])))
        elif choice == 2 and lists:
            rng.choice(lists).insert(0, rng.choice(["0", "1", "1", "2", "4611686018427387904"]))
        elif choice == 3 and fields:
            fields[0][1] = '"' + rng.choice(OTHER_DTYPES + list(DTYPES)) + '"'
        elif choice == 4 and fields:
            fields.pop(rng.randrange(len(fields)))
        elif choice == 5 and fields:
            fields.append(rng.choice([["extra", "1"], ["dtype", '"F32"'], ["shape", ["1"]], ["extra", "[[[]]]"]]))
        elif choice == 6 and self.entries:
            rng.choice(self.entries)[0] = rng.choice(NAMES)
        elif choice == 7 and self.entries:
            self.entries.append([rng.choice([self.entries[0][0], "copy"]), [list(f) for f in fields]])
        elif choice == 8 and self.metadata is not None:
            self.metadata.append(rng.choice([["a", '"c"'], ["n", "1"], ["n", "null"], ["n", "{}"], ["\\ud800", '"x"']]))
        elif choice == 9 and fields:
            fields[rng.randrange(len(fields))][1] = rng.choice(["null", "true", '"x"', "1", "{}", "[]", '["0","8"]'])
        elif choice == 10 and lists and self.entries:
            # An empty tensor of an impossible shape, or one of many dimensions.
            rng.choice(self.entries)[1][1:2] = [["shape", rng.choice([["0", "9223372036854775808"], ["1"] * 12,
                                                                      ["0"] + ["4611686018427387904"] * 3])]]
        elif choice == 11:
            self.data += rng.randbytes(rng.choice([1, 8])) if rng.random() < 0.5 else b""
            self.data = self.data[:len(self.data) - rng.choice([0, 1, 4])] if rng.random() < 0.5 else self.data
        elif choice == 12:
            self.sequence = 0


def mutated_text(text, rng):
    """Mutations of the text itself."""
    data = bytearray(text.encode())
    choice = rng.randrange(8)
    place = rng.randrange(len(data) + 1)
    if choice == 0 and data:
        data[place % len(data)] = rng.randrange(256)
    elif choice == 1 and data:
        del data[place % len(data)]
    elif choice == 2:
        data.insert(place, rng.choice(b' \t\n\r{}[]":,\\0123456789-.eE\x00\x1f\x7f\x80\xff'))
    elif choice == 3:
        data = bytearray(rng.choice([b" ", b"\n", b"\xef\xbb\xbf", b"[", b"\x00"])) + data
    elif choice == 4:
        data += rng.choice([b" ", b"       ", b"\n\t ", b"x", b"\x00", b"{}", b","])
    elif choice == 5:
        data = data[:place]
    elif choice == 6:
        data = bytearray(rng.choice([b"", b"{", b"[]", b"null", b'"x"', b"{}", b'{"__metadata__":null}',
                                     b'{"__metadata__":{},"__metadata__":{}}', b'{"a":["F32",[2],[0,8]]}',
                                     b'{"__metadata__":{"a":"b"}}', b"{" * 200, b'{"a":' * 200]))
    return bytes(data)


def make_file(rng):
    header = Header(rng)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        header.mutate()
    text = header.text()
    body = mutated_text(text, rng) if rng.random() < 0.35 else text.encode(errors="surrogatepass")
    length = len(body)
    if rng.random() < 0.08:
        length = rng.choice([0, 1, max(0, length - 1), length + 1, length + 8, 100_000_001, 2**32, 2**63, 2**64 - 1])
    whole = struct.pack("<Q", length) + body + header.data
    return whole[:rng.randrange(len(whole))] if rng.random() < 0.03 else whole


def has_name_twice(data):
    """Whether the header names a tensor twice; the library takes the last one."""
    twice = []

    def note(pairs):
        names = [name for name, _ in pairs]
        twice.append(len(names) != len(set(names)))
        return dict(pairs)

    try:
        json.loads(data[8:8 + int.from_bytes(data[:8], "little")], object_pairs_hook=note)
    except ValueError:
        return False
    return twice[-1]  # of the outermost object


def theirs(data):
    """What the library makes of it: None, or name to (dtype, shape, bytes)."""
    try:
        return {name: (entry["dtype"], list(entry["shape"]), bytes(entry["data"])) for name, entry in deserialize(data)}
    except SafetensorError:
        return None


class Verdicts:
    """The program that says what ours makes of it."""

    def __init__(self):
        self.process = subprocess.Popen([os.path.join(os.environ["HOTLORA_TEST_BIN"], "safetensors_verdicts")],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def of(self, data):
        self.process.stdin.write(struct.pack("<Q", len(data)) + data)
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait()


class SafetensorsDifferentialTest(unittest.TestCase):
    files = 20000
    seed = 20261125

    def test_verdicts(self):
        rng = random.Random(self.seed)
        verdicts = Verdicts()
        self.addCleanup(lambda: verdicts.process.poll() is None and verdicts.process.kill())
        counts = {"both accept": 0, "both refuse": 0}
        reasons = dict.fromkeys(STRICTER, 0)
        for number_of_file in range(self.files):
            data = make_file(rng)
            ours, library = verdicts.of(data), theirs(data)
            with self.subTest(file=number_of_file, data=data[:400]):
                if "error" not in ours:
                    self.assertIsNotNone(library, "ours accepts what the library refuses")
                    counts["both accept"] += 1
                    self.assertEqual({name: (dtype, shape, data[begin:end])
                                      for name, dtype, shape, begin, end in ours["tensors"]}, library)
                elif library is None:
                    counts["both refuse"] += 1
                else:
                    # Of three entries of one name two may overlap before they are seen to have one name.
                    error = "is there twice" if has_name_twice(data) else ours["error"]
                    matching = [reason for reason in STRICTER if re.search(reason, error)]
                    self.assertTrue(matching, f"stricter for no listed reason: {ours['error']}")
                    reasons[matching[0]] += 1
        self.assertEqual(verdicts.close(), 0)
        print(f"{self.files} files: {counts}; ours stricter: {reasons}", file=sys.stderr)
        for count in counts.values():
            self.assertGreater(count, self.files // 20, "the files are all of one kind")
        self.assertEqual([reason for reason, count in reasons.items() if count == 0], [], "never came up")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=SafetensorsDifferentialTest.files)
    parser.add_argument("--seed", type=int, default=SafetensorsDifferentialTest.seed)
    options, rest = parser.parse_known_args()
    SafetensorsDifferentialTest.files, SafetensorsDifferentialTest.seed = options.files, options.seed
    unittest.main(argv=[sys.argv[0]] + rest)
