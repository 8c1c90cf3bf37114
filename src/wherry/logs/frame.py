"""Docker's multiplexed stream: an 8-byte header (stream, three zero bytes, big-endian length), then the bytes.

Engine API, ContainerAttach, "Stream format".
"""

STDIN, STDOUT, STDERR = 0, 1, 2


def frame(stream: int, data: bytes) -> bytes:
    """`data` as one frame of `stream`."""
    return stream.to_bytes(1, "big") + b"\0\0\0" + len(data).to_bytes(4, "big") + data
