"""The keys by which a client leaves a container's terminal without ending it (--detach-keys)."""

from wherry.errors import InvalidArgument

DEFAULT = "ctrl-p,ctrl-q"


class DetachKeys:
    """Looks for the sequence in what a client types, over the borders of reads.

    What could be the start of the sequence is held back until it is known not to be.
    """

    def __init__(self, keys: str = DEFAULT) -> None:
        self._sequence = parse_keys(keys or DEFAULT)
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What is to be passed on of `data`, and whether the sequence is complete; nothing after it is passed on."""
        sequence = self._sequence
        if self._matched == 0 and sequence[0] not in data:
            return data, False
        out = bytearray()
        for byte in data:
            while self._matched and byte != sequence[self._matched]:
                out += self._fall_back()
            if byte == sequence[self._matched]:
                self._matched += 1
                if self._matched == len(sequence):
                    self._matched = 0
                    return bytes(out), True
            else:
                out.append(byte)
        return bytes(out), False

    def _fall_back(self) -> bytes:
        """Give up the shortest start of what is held back that leaves a shorter start of the sequence."""
        held = self._sequence[: self._matched]
        for drop in range(1, self._matched + 1):
            if self._sequence.startswith(held[drop:]):
                self._matched -= drop
                return held[:drop]
        raise AssertionError("the empty string is a start of every sequence")


def parse_keys(keys: str) -> bytes:
    """The bytes of a sequence such as "ctrl-p,ctrl-q" or "a,b"; InvalidArgument for what is not one."""
    return bytes(_parse_key(key) for key in keys.split(","))


def _parse_key(key: str) -> int:
    if len(key) == 1 and key.isascii():
        return ord(key)
    name = key[5:]
    if key.startswith("ctrl-") and len(name) == 1 and (name in "@[\\]^_" or "a" <= name <= "z"):
        return ord(name.upper()) & 0x1F
    raise InvalidArgument(
        f"Invalid detach keys ({key}) provided", hint="one character, or ctrl- and one of a-z @ [ \\ ] ^ _"
    )
