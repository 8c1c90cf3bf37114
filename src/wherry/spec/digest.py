"""Digests as OCI writes them: ``algorithm:hex`` (image-spec, descriptor.md#digests)."""

import hashlib
import re
from collections.abc import Sequence
from typing import NewType

from wherry.errors import InvalidArgument

Digest = NewType("Digest", str)
"""Of any content. Only sha256 and sha512 are registered, and only they are accepted."""
DiffID = NewType("DiffID", str)
"""Of a layer's uncompressed tar."""
ChainID = NewType("ChainID", str)
"""Of a layer applied on the layers below it (image-spec, config.md#layer-chainid)."""

_FORM = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")


def parse_digest(text: str) -> Digest:
    """`text` as a Digest; InvalidArgument when it is not a well-formed sha256 or sha512 digest."""
    if not _FORM.fullmatch(text):
        raise InvalidArgument(f"invalid digest {text!r}", object=text, hint="expected sha256:<64 hexadecimal digits>")
    return Digest(text)


def sha256(data: bytes) -> Digest:
    """The sha256 digest of `data`."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def chain_ids(diff_ids: Sequence[DiffID]) -> tuple[ChainID, ...]:
    """The ChainID of each layer, bottom first."""
    chain: list[ChainID] = []
    for diff_id in diff_ids:
        chain.append(ChainID(sha256(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id))
    return tuple(chain)
