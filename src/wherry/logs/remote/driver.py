"""The contract of a remote driver."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from wherry.logs.backlog import Message
from wherry.logs.info import DEFAULT_TAG, Info, attributes
from wherry.logs.tag import render

TIMEOUT = 10.0


class Context(NamedTuple):
    """What a driver is made from. `scratch`: a directory for its files (FIFOs)."""

    name: str
    info: Info
    options: Mapping[str, str]
    scratch: Path

    @property
    def tag(self) -> str:
        """Its tag."""
        return render(self.options.get("tag") or DEFAULT_TAG, self.info, self.options)

    @property
    def extra(self) -> dict[str, str]:
        """The labels and variables chosen by its options."""
        return attributes(self.info, self.options)


class Driver(Protocol):
    """One container's way to one place. Used by one thread; nothing here needs to be quick, all of it may block.

    `connect` says at a container's start whether it can be reached at all: what it raises fails the start. `send`
    returns when all messages are delivered as far as the protocol can tell; when it raises OSError or WherryError it is
    called again with the same, after `disconnect` and a pause of `retry_seconds`, at most `max_retries` times (None:
    for ever).
    """

    retry_seconds: float
    max_retries: int | None

    def connect(self) -> None: ...
    def send(self, messages: Sequence[Message]) -> None: ...
    def disconnect(self) -> None: ...
    def finish(self) -> None:
        """Everything has been sent: tell the other side, wait for what it still owes."""


MODULES = ("awslogs", "fluentd", "gcplogs", "gelf", "journald", "splunk", "syslog")


def make(context: Context) -> Driver:
    """The driver of a container."""
    module: Any = import_module(f"wherry.logs.remote.{context.name if context.name in MODULES else 'plugin'}")
    create: Callable[[Context], Driver] = module.create
    return create(context)
