"""Manifests and indexes (image-spec manifest.md, image-index.md) as far as a registry looks into them.

A registry keeps the very bytes. It reads them so that what they refer to is there when they are accepted, is not
collected while they are, and is found by `subject`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wherry.errors import InvalidArgument
from wherry.registry.errors import Refused
from wherry.spec.digest import Digest, parse_digest, sha256
from wherry.spec.oci_image import DOCKER_SCHEMA1, INDEX_TYPES, MANIFEST_TYPES, OCI_INDEX, OCI_MANIFEST

_NOT_KEPT = ("nondistributable", "foreign")


@dataclass(frozen=True, slots=True)
class Manifest:
    """`blobs` and `manifests`: what must be there with it. `artifact_type`: as the list of referrers shows it."""

    data: bytes
    digest: Digest
    media_type: str
    blobs: tuple[Digest, ...]
    manifests: tuple[Digest, ...]
    subject: Digest | None
    artifact_type: str
    annotations: Mapping[str, str]

    def descriptor(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.data)}

    def referrer(self) -> dict[str, Any]:
        """Its descriptor in the list of referrers (distribution-spec, "Listing Referrers")."""
        shown = self.descriptor()
        if self.artifact_type:
            shown["artifactType"] = self.artifact_type
        if self.annotations:
            shown["annotations"] = dict(self.annotations)
        return shown


def parse_manifest(data: bytes, media_type: str = "", digest: Digest | None = None) -> Manifest:
    """`data` as a manifest or index of `media_type` (what it says itself when that is not given).

    Refused(MANIFEST_INVALID).
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise _invalid("it is not JSON") from None
    if not isinstance(document, dict):
        raise _invalid("it is not a JSON object")
    media_type = _media_type(document, media_type)
    if "config" in document and "manifests" in document:
        # CVE-2021-41190: what is both a manifest and an index means different things to different readers.
        raise _invalid("it is a manifest and an index at once")
    index = media_type in INDEX_TYPES
    config = None if index else _descriptor(document.get("config"), "config")
    layers = [] if index else [_descriptor(item, "layers") for item in _list(document, "layers")]
    blobs = [each["digest"] for each in layers if not any(word in each["mediaType"] for word in _NOT_KEPT)]
    subject = document.get("subject")
    artifact = document.get("artifactType") or ("" if config is None else config["mediaType"])
    return Manifest(
        data=data,
        digest=digest or sha256(data),
        media_type=media_type,
        blobs=tuple(dict.fromkeys([config["digest"], *blobs] if config is not None else [])),
        manifests=tuple(
            dict.fromkeys(_descriptor(item, "manifests")["digest"] for item in _list(document, "manifests"))
            if index
            else ()
        ),
        subject=_descriptor(subject, "subject")["digest"] if subject is not None else None,
        artifact_type=artifact if isinstance(artifact, str) else "",
        annotations=_annotations(document),
    )


def _media_type(document: dict[str, Any], given: str) -> str:
    own = document.get("mediaType")
    if own is not None and not isinstance(own, str):
        raise _invalid("mediaType is not a string")
    found = given or own or (OCI_INDEX if "manifests" in document else OCI_MANIFEST)
    if found in DOCKER_SCHEMA1 or document.get("schemaVersion") == 1:
        raise _invalid("schema 1 is not supported")
    if found not in INDEX_TYPES and found not in MANIFEST_TYPES:
        raise _invalid(f"media type {found[:100]!r} is not one of a manifest")
    if own and own != found:
        raise _invalid(f"mediaType is {own[:100]!r}, and the request says {found!r}")
    if document.get("schemaVersion") != 2:
        raise _invalid("schemaVersion must be 2")
    return found


def _list(document: dict[str, Any], name: str) -> list[Any]:
    value = document.get(name)
    if not isinstance(value, list):
        raise _invalid(f"{name} is not a list")
    return value


def _descriptor(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not isinstance(value.get("mediaType"), str):
        raise _invalid(f"{where} is not a descriptor")
    try:
        parse_digest(str(value.get("digest")))
    except InvalidArgument as error:
        raise _invalid(f"{where}: {error}") from None
    size = value.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise _invalid(f"{where}: size is not a number of bytes")
    return value


def _annotations(document: dict[str, Any]) -> dict[str, str]:
    found = document.get("annotations") or {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise _invalid("annotations is not a map of strings")
    return found


def _invalid(reason: str) -> Refused:
    return Refused("MANIFEST_INVALID", f"manifest invalid: {reason}")
