"""Root file systems to images, and the instructions given with --change. Refusals are worded as dockerd 28.5 does."""

import bz2
import gzip
import io
import lzma
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from image_fakes import NOTHING, Bench, hex_of, make_tar

from wherry.errors import InvalidArgument
from wherry.images.changes import apply_changes
from wherry.images.compression import decompressed
from wherry.images.zstdframes import CompleteFrames
from wherry.spec.decode import encode
from wherry.spec.oci_image import RunConfig

TAR = make_tar({"bin/sh": b"#!" * 1000})


def two_members(data: bytes) -> bytes:
    return gzip.compress(data[:99], mtime=0) + gzip.compress(data[99:], mtime=0)


def two_frames(data: bytes) -> bytes:
    skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc"
    checked = zstandard.ZstdCompressor(write_checksum=True, write_content_size=False).compress(data[99:])
    return zstandard.compress(data[:99]) + skippable + checked


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, zstandard.compress, lzma.compress, bz2.compress, two_members, two_frames]
)
def test_any_compression_gives_the_same_layer(bench: Bench, pack: Any) -> None:
    image = bench.images.import_(io.BytesIO(pack(TAR)), "me/app", ['CMD ["x"]', "ENV A=1"], "made")
    assert image.layers == (f"sha256:{hex_of(TAR)}",)
    assert (image.references, image.size, image.config.config.cmd) == (("me/app:latest",), 2000, ("x",))
    assert bench.images.history(image)[0][2:] == ("", ("me/app:latest",), 2000, "made")
    assert image.tagged_ns > 0
    bench.restart()
    assert bench.images.resolve("me/app") == image


@pytest.mark.parametrize(
    ("data", "changes", "reference"),
    [
        (gzip.compress(TAR, mtime=0)[:-20], (), "x"),
        (gzip.compress(TAR, mtime=0)[:-6] + b"\0\0\0\0\0\0", (), "x"),
        (zstandard.compress(TAR)[:-5], (), "x"),
        (TAR, ("FOO x",), "x"),
        (TAR, (), "UPPER"),
        (TAR, (), "sha256:latest"),
    ],
)
def test_nothing_is_left_of_a_refused_import(bench: Bench, data: bytes, changes: Any, reference: str) -> None:
    with pytest.raises(InvalidArgument):
        bench.images.import_(io.BytesIO(data), reference, changes)
    bench.images.collect()
    assert bench.leftovers() == NOTHING


def read_all(packed: bytes, limit: int) -> None:
    with decompressed(io.BytesIO(packed), limit=limit, name="layer") as stream:
        while stream.read(1 << 20):
            pass


def test_a_bomb_is_stopped() -> None:
    with pytest.raises(InvalidArgument, match="20000 times"):
        read_all(zstandard.compress(bytes(300 << 20), 1), 1 << 40)
    with pytest.raises(InvalidArgument, match="more than 4095"):
        read_all(gzip.compress(bytes(4096), mtime=0), 4095)
    # A window of 1 GiB is 1 GiB of the reader's memory.
    greedy = zstandard.ZstdCompressionParameters(window_log=30)
    packed = zstandard.ZstdCompressor(compression_params=greedy).compressobj()
    with pytest.raises(InvalidArgument, match="damaged"):
        read_all(packed.compress(b"x" * 100) + packed.flush(), 1 << 20)


def frames_to_end(frames: CompleteFrames, step: int) -> None:
    while frames.read(step):
        pass


@given(st.binary(max_size=400), st.integers(0, 500), st.integers(1, 7))
def test_a_zstd_stream_cut_anywhere_is_noticed(data: bytes, cut: int, step: int) -> None:
    packed = two_frames(data)
    ends = {0, len(zstandard.compress(data[:99])), len(zstandard.compress(data[:99])) + 11, len(packed)}
    frames = CompleteFrames(io.BytesIO(packed[:cut]))
    if min(cut, len(packed)) in ends:
        frames_to_end(frames, step)
    else:
        with pytest.raises(zstandard.ZstdError):
            frames_to_end(frames, step)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("CMD []", {"Cmd": []}),
        ("CMD  a   b", {"Cmd": ["/bin/sh", "-c", "a   b"]}),
        ('cmd ["a"', {"Cmd": ["/bin/sh", "-c", '["a"']}),
        ("ENTRYPOINT []", {}),
        ('ENTRYPOINT "a" b', {"Entrypoint": ["/bin/sh", "-c", '"a" b']}),
        ("ENV A $X b  c", {"Env": ["A= b  c"]}),
        ("ENV A=$X B=\\$Y C=a\\ b", {"Env": ["A=", "B=$Y", "C=a b"]}),
        ('ENV A=\'x y\' B="q\\"z"', {"Env": ["A=x y", 'B=q"z']}),
        (
            "EXPOSE 80-81 53/UDP 5000-5001:70",
            {"ExposedPorts": {port: {} for port in ("53/udp", "70/tcp", "80/tcp", "81/tcp")}},
        ),
        ('VOLUME ["/a","/b"]', {"Volumes": {"/a": {}, "/b": {}}}),
        ("VOLUME /a /b", {"Volumes": {"/a": {}, "/b": {}}}),
        ("WORKDIR /a/../b/", {"WorkingDir": "/b"}),
        ("LABEL a b c", {"Labels": {"a": "b c"}}),
        ('LABEL q=1 "z y"="w"', {"Labels": {"q": "1", "z y": "w"}}),
        ("HEALTHCHECK NONE", {"Test": ["NONE"]}),
        (
            'HEALTHCHECK --interval=1m30s --timeout=1.5s --retries=3 CMD ["a","b"]',
            {"Test": ["CMD", "a", "b"], "Interval": 90 * 10**9, "Timeout": 15 * 10**8, "Retries": 3},
        ),
        ("STOPSIGNAL RTMIN+3", {"StopSignal": "RTMIN+3"}),
        ("ONBUILD  copy  a b", {"OnBuild": ["copy  a b"]}),
        ("USER  a:b ", {"User": "a:b"}),
    ],
)
def test_a_change(change: str, expected: dict[str, Any]) -> None:
    document = encode(apply_changes(RunConfig(), [change]))
    document |= document.pop("Healthcheck") or {}
    empty = {
        **encode(RunConfig()),
        "Interval": 0,
        "Timeout": 0,
        "StartPeriod": 0,
        "StartInterval": 0,
        "Retries": 0,
        "Test": [],
    }
    assert {name: value for name, value in document.items() if value != empty.get(name)} == expected


def test_changes_build_on_each_other() -> None:
    config = apply_changes(RunConfig(), ["WORKDIR /a", "WORKDIR b", "ENV X=1", "ENV Y=$X X=2", "USER ${X:-0}${Q:+no}"])
    assert (config.working_dir, config.env, config.user) == ("/a/b", ("X=2", "Y=1"), "2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("", "file with no instructions"),
        ("RUN x", "RUN is not a valid change command"),
        ("ENV A", "ENV must have two arguments"),
        ("ENV A=b C", 'Syntax error - can\'t find = in "C". Must be of the form: name=value'),
        ("ENV =x", "ENV names can not be blank"),
        ('ENV A="x', 'failed to process "\\"x": unexpected end of statement while looking for matching double-quote'),
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("EXPOSE abc", "Invalid containerPort: abc"),
        ("EXPOSE 80/foo", "Invalid proto: foo"),
        ("USER", "USER requires exactly one argument"),
        ("VOLUME", "VOLUME requires at least one argument"),
        ('VOLUME ["/a",""]', "VOLUME specified can not be an empty string"),
        ("LABEL a", "LABEL must have two arguments"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK FOO x", 'Unknown type "FOO" in HEALTHCHECK (try CMD)'),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK --interval=x CMD a", 'time: invalid duration "x"'),
        ("HEALTHCHECK --interval=1us CMD a", 'Interval "interval" cannot be less than 1ms'),
        ("HEALTHCHECK --retries=-1 CMD a", "--retries cannot be negative (-1)"),
        ("HEALTHCHECK --foo=x CMD a", "unknown flag: --foo"),
        ("STOPSIGNAL foo", "invalid signal: foo"),
        ("CMD --x=y a", "unknown flag: --x"),
    ],
)
def test_a_bad_change_is_refused_in_dockers_words(change: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        apply_changes(RunConfig(), [change])
    assert caught.value.message == message
