"""Archives to images and back; and archives made to harm."""

import gzip
import io
import json
import tarfile
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_fakes import NOTHING, Bench, hex_of, make_config, make_tar

from wherry.errors import InvalidArgument, WherryError
from wherry.images.members import normalize
from wherry.spec.digest import sha256
from wherry.spec.oci_image import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from wherry.spec.platform import host_platform

ONE, TWO = make_tar({"one": b"1" * 10}), make_tar({"two": b"2" * 20})
CONFIG = make_config(ONE, TWO)
ID = sha256(CONFIG)
HOST = host_platform()


def archive(*members: tuple[str, bytes | str]) -> bytes:
    """A tar of files, and of symbolic links where the content is text."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                tar.addfile(entry)
            else:
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def docker_manifest(*layers: str, config: str = "x.json", tags: Any = ("me/app:1",)) -> tuple[str, bytes]:
    return "manifest.json", json.dumps(
        [{"Config": config, "RepoTags": tags and list(tags), "Layers": list(layers)}]
    ).encode()


def blob(data: bytes) -> tuple[str, bytes]:
    return f"blobs/sha256/{hex_of(data)}", data


def descriptor(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data)} | more


def manifest(config: bytes, *layers: bytes, layer_type: str = OCI_LAYER) -> bytes:
    parts = [descriptor(layer, layer_type) for layer in layers]
    return json.dumps({"schemaVersion": 2, "config": descriptor(config, OCI_CONFIG), "layers": parts}).encode()


def index(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()


def load(bench: Bench, data: bytes) -> tuple[list[str], list[dict[str, Any]]]:
    messages: list[dict[str, Any]] = []
    return list(bench.images.load(io.BytesIO(data), messages.append)), messages


LEGACY = archive(
    ("x.json", CONFIG), ("a/layer.tar", ONE), ("b/layer.tar", TWO), docker_manifest("a/layer.tar", "b/layer.tar")
)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_a_docker_archive(bench: Bench, pack: Any) -> None:
    names, messages = load(bench, pack(LEGACY))
    image = bench.images.resolve("me/app:1")
    assert (names, image.id, image.size, image.digests) == (["me/app:1"], ID, 30, ())
    assert messages[-1] == {"stream": "Loaded image: me/app:1\n"}
    # Several at once: in no order.
    assert {(m["status"], m["id"]) for m in messages[:-1]} == {
        ("Loading layer", hex_of(layer)[:12]) for layer in (ONE, TWO)
    }
    again, messages = load(bench, LEGACY)
    assert (again, len(messages)) == (names, 1)
    assert bench.images.remove("me/app:1", force=False, in_use=lambda id: [])
    assert bench.leftovers() == NOTHING


def test_links_between_layers_and_images_without_names(bench: Bench) -> None:
    config = make_config(ONE, ONE)
    members: list[tuple[str, bytes | str]] = [
        ("x.json", config),
        ("a/layer.tar", ONE),
        ("b/layer.tar", "../a/layer.tar"),
    ]
    members.append(docker_manifest("a/layer.tar", "b/layer.tar", tags=None))
    names, messages = load(bench, archive(*members))
    assert names == [sha256(config)]
    assert messages[-1] == {"stream": f"Loaded image ID: {sha256(config)}\n"}


def test_a_name_is_taken_over(bench: Bench) -> None:
    load(bench, LEGACY)
    config = make_config(ONE)
    _, messages = load(bench, archive(("x.json", config), ("l", ONE), docker_manifest("l")))
    assert (
        messages[0]["stream"]
        == f"The image me/app:1 already exists, renaming the old one with ID {ID} to empty string\n"
    )
    assert bench.images.resolve("me/app:1").id == sha256(config)
    assert bench.images.resolve(ID).references == ()


def test_an_oci_layout_takes_the_platform_that_fits(bench: Bench) -> None:
    packed = gzip.compress(ONE, mtime=0)
    config, other = make_config(ONE), make_config(TWO, architecture="s390x")
    ours, theirs = manifest(config, packed, layer_type=f"{OCI_LAYER}+gzip"), manifest(other, TWO)
    inner = index(
        descriptor(theirs, OCI_MANIFEST, platform={"os": "linux", "architecture": "s390x"}),
        descriptor(ours, OCI_MANIFEST, platform={"os": HOST.os, "architecture": HOST.architecture}),
    )
    outer = index(descriptor(inner, OCI_INDEX, annotations={"org.opencontainers.image.ref.name": "me/app:2"}))
    data = archive(
        ("oci-layout", b"{}"), ("index.json", outer), *map(blob, (inner, ours, theirs, config, other, packed))
    )
    assert load(bench, data)[0] == ["me/app:2"]
    image = bench.images.resolve("me/app:2")
    assert (image.id, image.manifest, image.sources[0].blob.media_type) == (
        sha256(config),
        sha256(ours),
        f"{OCI_LAYER}+gzip",
    )


def test_what_is_saved_is_loaded(bench: Bench, tmp_path: Any) -> None:
    load(bench, LEGACY)
    bench.images.tag(bench.images.resolve(ID), "other")
    out = io.BytesIO()
    bench.images.save(["me/app:1", "other", ID], out)
    fresh = Bench(tmp_path / "fresh")
    assert load(fresh, out.getvalue())[0] == ["me/app:1", "other:latest"]
    assert (
        fresh.images.resolve(ID) == bench.images.resolve(ID)
        or fresh.images.resolve(ID).layers == bench.images.resolve(ID).layers
    )
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        # Without manifest.json it is still an OCI layout.
        members = [(entry.name, tar.extractfile(entry).read()) for entry in tar if entry.isreg()]  # type: ignore[union-attr]
    layout = Bench(tmp_path / "layout")
    assert load(layout, archive(*(member for member in members if member[0] != "manifest.json")))[0] == [
        "me/app:1",
        "other:latest",
    ]


def nested(depth: int) -> bytes:
    found, members = index(), []
    for _ in range(depth):
        members.append(blob(found))
        found = index(descriptor(found, OCI_INDEX, platform={"os": HOST.os, "architecture": HOST.architecture}))
    return archive(("index.json", found), *members)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "neither manifest.json nor index.json"),
        (b"junk" * 1000, "invalid tar"),
        (bytes(20000), "neither manifest.json nor index.json"),
        (LEGACY[:3000], "unexpected end"),
        (gzip.compress(LEGACY, mtime=0)[:-9], "damaged"),
        (archive(("manifest.json", b"[" * 100_000)), "not JSON"),
        (archive(("manifest.json", b"{}")), "must be a list"),
        (archive(("manifest.json", b'["x"]')), "list of objects"),
        (archive(("manifest.json", b'[{"Config":1}]')), "must be strings"),
        (archive(("manifest.json", b" " * (5 << 20))), "too large"),
        (archive(docker_manifest("l")), "no member 'x.json'"),
        (archive(("x.json", b"{}"), ("l", ONE), docker_manifest("l")), "layers length mismatch: expected 1, got 0"),
        (archive(("x.json", CONFIG), ("l", ONE), docker_manifest("l")), "layers length mismatch: expected 1, got 2"),
        (archive(("x.json", CONFIG), ("l", ONE), docker_manifest("l", "l")), "layer is not"),
        (archive(("x.json", CONFIG), ("l", ONE), docker_manifest("l", "l", tags=["UP"])), "must be lowercase"),
        (archive(("../../x", b"")), "leads out of the archive"),
        (archive(("/etc/x", b"")), "leads out of the archive"),
        (archive(("l", "/etc/passwd"), docker_manifest("l")), "leads out of the archive"),
        (archive(("a/l", "../../../etc/passwd"), docker_manifest("a/l")), "leads out of the archive"),
        (archive(("x.json", "l"), ("l", "x.json"), docker_manifest("l")), "loop of links"),
        (archive(("x.json", CONFIG), ("./x.json", b"{}"), docker_manifest("l")), "two members called 'x.json'"),
        (archive(docker_manifest("/etc/passwd", config="/etc/passwd")), "leads out of the archive"),
        (archive((f"blobs/sha256/{'0' * 64}", b"not that")), "has the digest"),
        (archive(("index.json", index(descriptor(b"absent", OCI_MANIFEST)))), "has no blob"),
        (archive(("index.json", index(descriptor(b"{}", OCI_MANIFEST, size=9))), blob(b"{}")), "has 2 bytes, not 9"),
        (nested(9), "nested"),
        (archive(("repositories", b"{}")), "before 1.10"),
    ],
)
def test_a_bad_archive_leaves_nothing(bench: Bench, data: bytes, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        load(bench, data)
    assert bench.leftovers() == NOTHING


def test_devices_are_refused(bench: Bench) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("manifest.json")
        entry.type = tarfile.FIFOTYPE
        tar.addfile(entry)
    with pytest.raises(InvalidArgument, match="neither file nor link"):
        load(bench, out.getvalue())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(position=st.integers(0, len(LEGACY) - 1), value=st.binary(min_size=1, max_size=40))
def test_damage_anywhere_loads_the_image_or_nothing(bench: Bench, position: int, value: bytes) -> None:
    try:
        load(bench, LEGACY[:position] + value + LEGACY[position + len(value) :])
    except WherryError:
        pass
    for image in bench.images.list():
        bench.images.remove(image.id, force=True, in_use=lambda id: [])
    assert bench.leftovers() == NOTHING


@given(st.text("./a\0", max_size=12))
def test_a_name_never_leads_out(name: str) -> None:
    try:
        parts = normalize(name).split("/")
    except InvalidArgument:
        return
    assert parts[0] != ""
    assert ".." not in parts
