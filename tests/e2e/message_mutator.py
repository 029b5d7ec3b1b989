"""Random changes of protobuf messages: of a field's value, or of the bytes on the wire. The same seed gives the same changes."""

import math

from google.protobuf import message as protobuf_message

NUMBERS = (0, 1, 2, 3, 8, 16, 63, 64, 100, 1000, 4096, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
REALS = (0.0, -0.0, 0.5, 1.0, -1.0, 10.0, 100.5, 1e308, 1e-320, math.inf, -math.inf, math.nan)
TEXTS = ("", "night", "styles/neon", "../up", "/etc/passwd", "<lora:night:0.5>", "(a:1.2)", "[[((" * 50, "é水", "<s0>",
         "\u202eb", "a\0b", "x" * 300, "x" * 17000)


class MessageMutator:
    def __init__(self, random):
        self._random = random

    def mutated(self, message):
        """The message's bytes after one to three changes."""
        changed = type(message)()
        changed.CopyFrom(message)
        wire = self._random.random() < 0.3
        if not wire:
            for _ in range(self._random.randint(1, 3)):
                self._change_field(changed)
        payload = changed.SerializeToString()
        if wire or self._random.random() < 0.1:
            payload = self.mutated_bytes(payload)
        return payload

    def mutated_bytes(self, payload):
        """The bytes with one to three of them flipped, cut off, doubled or made up."""
        changed = bytearray(payload)
        for _ in range(self._random.randint(1, 3)):
            place, count = self._random.randint(0, len(changed)), self._random.randint(1, 12)
            kind = self._random.randrange(5)
            if kind == 0 and place < len(changed):
                changed[place] ^= 1 << self._random.randrange(8)
            elif kind == 1:
                changed[place:place] = self._random.randbytes(count)
            elif kind == 2:
                del changed[place : place + count]
            elif kind == 3:
                changed[place:place] = changed[place : place + 8 * count]
            elif kind == 4 and self._random.random() < 0.2:
                del changed[place:]
        return bytes(changed)

    def _change_field(self, message):
        if not message.DESCRIPTOR.fields:
            return
        field = self._random.choice(message.DESCRIPTOR.fields)
        if self._random.random() < 0.15:
            message.ClearField(field.name)
        elif field.is_repeated:
            entries = getattr(message, field.name)  # of messages: hotlora's requests have no other lists
            for _ in range(20 if self._random.random() < 0.05 else self._random.randrange(3)):
                entries.add()
            if entries:
                self._change_field(self._random.choice(entries))
        elif field.cpp_type == field.CPPTYPE_MESSAGE:
            getattr(message, field.name).SetInParent()
            self._change_field(getattr(message, field.name))
        else:
            setattr(message, field.name, self._value(field, getattr(message, field.name)))

    def _value(self, field, old):
        if field.type == field.TYPE_BYTES:
            return self.mutated_bytes(old)
        if field.type == field.TYPE_STRING:
            text = old + self._random.choice(TEXTS) if self._random.random() < 0.3 else self._random.choice(TEXTS)
            return text[self._random.randint(0, 2) :]
        if field.type == field.TYPE_DOUBLE:
            return self._random.choice(REALS)
        if field.type == field.TYPE_BOOL:
            return self._random.random() < 0.5
        if field.type == field.TYPE_ENUM:
            return self._random.randint(-1, 20)
        low, high = {
            field.TYPE_UINT32: (0, 2**32 - 1),
            field.TYPE_UINT64: (0, 2**64 - 1),
            field.TYPE_INT32: (-(2**31), 2**31 - 1),
        }[field.type]
        return max(low, min(high, self._random.choice(NUMBERS) * self._random.choice((1, 1, -1))))


def parsed(message_class, payload):
    """The message of these bytes; None if they are not one."""
    try:
        return message_class.FromString(payload)
    except protobuf_message.DecodeError:
        return None
