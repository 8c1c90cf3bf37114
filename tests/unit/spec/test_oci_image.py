"""Manifests, indexes, configurations and platforms: what is accepted, and what must not be."""

import json
from typing import Any

import pytest

from wherry.errors import InvalidArgument, Unimplemented
from wherry.spec.digest import sha256
from wherry.spec.oci_image import (
    DOCKER_MANIFEST,
    DOCUMENT_MAX,
    OCI_INDEX,
    OCI_MANIFEST,
    Index,
    Manifest,
    parse_config,
    parse_manifest,
)
from wherry.spec.platform import Platform, parse_platform, preference

BLOB = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(b""), "size": 0}


def manifest(**changes: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "config": BLOB, "layers": [BLOB]} | changes).encode()


def test_kinds_are_told_apart() -> None:
    assert isinstance(parse_manifest(manifest(), DOCKER_MANIFEST), Manifest)
    assert isinstance(parse_manifest(b'{"schemaVersion":2,"manifests":[]}', OCI_INDEX), Index)


@pytest.mark.parametrize(
    ("data", "media_type", "error"),
    [
        (manifest(manifests=[]), "", "ambiguous"),
        (manifest(), OCI_INDEX, "unsupported media type"),
        (manifest(mediaType=DOCKER_MANIFEST), OCI_MANIFEST, "says it is"),
        (manifest(mediaType="text/html"), "", "unsupported media type"),
        (manifest(schemaVersion=3), "", "schemaVersion 3"),
        (manifest(config={**BLOB, "digest": "sha256:../../etc/passwd"}), "", "invalid digest"),
        (manifest(layers=[{**BLOB, "size": -1}]), "", "negative"),
        (manifest(layers=[{**BLOB, "size": "1"}]), "", "layers.0..size must be an integer"),
        (b'{"schemaVersion":2}', "", "lacks config"),
        (b"[" * 100_000, "", "not JSON"),
        (b"[]", "", "not a JSON object"),
        (b" " * (DOCUMENT_MAX + 1), "", "larger than 4 MiB"),
    ],
)
def test_bad_manifests_are_refused(data: bytes, media_type: str, error: str) -> None:
    with pytest.raises(InvalidArgument, match=error):
        parse_manifest(data, media_type)


def test_schema_1_is_named_as_what_it_is() -> None:
    with pytest.raises(Unimplemented, match="schema 1"):
        parse_manifest(b'{"schemaVersion":1,"fsLayers":[]}')


def test_configuration_keeps_given_apart_from_empty() -> None:
    config = parse_config(b'{"os":"linux","config":{"Cmd":null,"Entrypoint":[],"OnBuild":["RUN x"]},"history":null}')
    assert (config.config.cmd, config.config.entrypoint, config.config.on_build) == (None, (), ("RUN x",))
    with pytest.raises(InvalidArgument, match="more non-empty history"):
        parse_config(b'{"history":[{}]}')
    with pytest.raises(InvalidArgument, match="invalid digest"):
        parse_config(b'{"rootfs":{"type":"layers","diff_ids":["../x"]}}')


def test_platforms_are_ranked_by_how_well_they_serve() -> None:
    arm64, amd64 = Platform(architecture="arm64"), Platform(architecture="amd64")
    offers = [Platform(architecture="arm", variant=v) for v in ("v6", "v7")] + [
        amd64,
        Platform(architecture="aarch64", variant="v8"),
    ]
    assert [preference(arm64, offer) for offer in offers] == [3, 2, None, 0]
    assert preference(amd64, Platform(architecture="386")) == 1
    assert preference(amd64, Platform(architecture="amd64", variant="v3")) is None
    assert preference(Platform(os="windows", architecture="amd64"), amd64) is None


def test_platforms_are_parsed() -> None:
    assert str(parse_platform("linux/aarch64/v8")) == "linux/arm64"
    assert str(parse_platform("linux/arm")) == "linux/arm/v7"
    assert parse_platform("x86_64").architecture == "amd64"
    for bad in ("", "a/b/c/d", "linux/a b", "nonsense"):
        with pytest.raises(InvalidArgument):
            parse_platform(bad)
