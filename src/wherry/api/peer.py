"""Who is at the other end of a connection."""

import socket
import ssl
import struct
from typing import Any, NamedTuple

from aiohttp.web_request import BaseRequest

_CREDENTIALS = struct.Struct("iII")


class Peer(NamedTuple):
    """`pid`, `uid`, `gid`: of the process that connected to a unix socket, as the kernel noted them then (unix(7)).

    `user`: the common name of the certificate a TLS client has proved to hold. None and "" where it is not known.
    """

    pid: int | None = None
    uid: int | None = None
    gid: int | None = None
    address: str = ""
    user: str = ""
    certificate: bytes = b""
    """In DER form."""


def peer_of(request: BaseRequest) -> Peer:
    """The client that sent `request`."""
    transport = request.transport
    if transport is None:
        return Peer()
    raw = transport.get_extra_info("socket")
    if raw is None:
        return Peer()
    if raw.family == socket.AF_UNIX:
        pid, uid, gid = _CREDENTIALS.unpack(raw.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        return Peer(pid, uid, gid)
    user, certificate = _certificate(transport.get_extra_info("ssl_object"))
    name = transport.get_extra_info("peername")
    return Peer(address=f"{name[0]}:{name[1]}" if name else "", user=user, certificate=certificate)


def _certificate(layer: ssl.SSLObject | None) -> tuple[str, bytes]:
    if layer is None:
        return "", b""
    # Without verification the standard library gives an empty document, and nothing is proved.
    document: dict[str, Any] | None = layer.getpeercert()
    if not document:
        return "", b""
    names = [value for part in document.get("subject", ()) for name, value in part if name == "commonName"]
    return (names[-1] if names else ""), layer.getpeercert(binary_form=True) or b""
