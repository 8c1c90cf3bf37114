"""Errors as BuildKit's clients read them: a status whose details show the lines of the Dockerfile it is about."""

import asyncio
import base64
import json
import logging
from typing import Any

from wherry.build.dockerfile.source import DockerfileError, Source, Span
from wherry.buildkit import grpc
from wherry.buildkit.messages.buildkit_pb2 import Status
from wherry.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    WherryError,
)

log = logging.getLogger("wherry.buildkit")

_CODES: tuple[tuple[type[WherryError], int], ...] = (
    (InvalidArgument, grpc.INVALID_ARGUMENT),
    (NotFound, grpc.NOT_FOUND),
    (PermissionDenied, grpc.PERMISSION_DENIED),
    (Unauthenticated, grpc.UNAUTHENTICATED),
    (FailedPrecondition, grpc.FAILED_PRECONDITION),
    (Unimplemented, grpc.UNIMPLEMENTED),
    (Unavailable, grpc.UNAVAILABLE),
)
_PREFIX = "github.com/moby/buildkit/"


class BuildFailed(Exception):
    """A build that failed, with all a client shows of it."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.message)
        self.status = status


def status_of(error: BaseException) -> Status:
    """What a call ends with."""
    if isinstance(error, BuildFailed | grpc.RpcError):
        return error.status
    if isinstance(error, asyncio.CancelledError):
        return Status(code=grpc.CANCELLED, message="context canceled")
    if isinstance(error, WherryError):
        code = next((code for kind, code in _CODES if isinstance(error, kind)), grpc.UNKNOWN)
        return Status(code=code, message=str(error))
    if isinstance(error, OSError):
        return Status(code=grpc.UNKNOWN, message=str(error))
    log.exception("a call failed", exc_info=error)
    return Status(code=grpc.INTERNAL, message=f"internal error: {type(error).__name__}: {error}")


def build_failed(error: BaseException, source: Source | None, vertex: str = "") -> BuildFailed:
    """`error` of a build, with the place in the Dockerfile it is about, and the vertex."""
    status = status_of(error)
    if isinstance(error, WherryError):
        # BuildKit has no kinds for what a build comes to grief by; clients would word some of them otherwise.
        status.code = grpc.UNKNOWN
    span = _span(error)
    if isinstance(error, DockerfileError):
        source = error.source
    if span is not None and source is not None:
        _add(status, "errdefs.Source+json", {"info": source_info(source), "ranges": [range_json(span)]})
    if vertex:
        _add(status, "errdefs.Vertex+json", {"digest": vertex})
    return BuildFailed(status)


def add_detail(status: Status, kind: str, document: Any) -> None:
    _add(status, kind, document)


def source_info(source: Source) -> dict[str, str]:
    data = base64.b64encode(source.text.encode("utf-8", "replace")).decode()
    return {"filename": source.name, "data": data, "language": "Dockerfile"}


def range_json(span: Span) -> dict[str, dict[str, int]]:
    return {"start": {"line": span.start}, "end": {"line": span.end}}


def _span(error: BaseException) -> Span | None:
    if isinstance(error, DockerfileError):
        return error.span
    found = getattr(getattr(error, "node", None), "span", None)
    if found is None:
        found = getattr(error, "span", None)
    return found if isinstance(found, Span) else None


def _add(status: Status, kind: str, document: Any) -> None:
    detail = status.details.add()
    detail.type_url = _PREFIX + kind
    detail.value = json.dumps(document, separators=(",", ":")).encode()
