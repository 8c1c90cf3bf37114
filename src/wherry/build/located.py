"""Errors of a build at their place in the Dockerfile."""

from collections.abc import Callable
from typing import TypeVar

from wherry.build.dockerfile.source import DockerfileError, Source, Span
from wherry.build.dockerfile.words import ExpansionError
from wherry.errors import WherryError

T = TypeVar("T")


class Located(DockerfileError):
    """The failure of a part, with the line that needs it."""

    def __init__(self, error: WherryError, source: Source, span: Span) -> None:
        super().__init__(error.message, source, span, hint=error.hint)
        self.message = error.message
        self.args = (error.message,)
        self.cause = error


def located(work: Callable[[], T], source: Source, span: Span) -> T:
    """Run `work`; what is wrong with an instruction's words becomes an error at its place."""
    try:
        return work()
    except (ExpansionError, ValueError) as error:
        raise DockerfileError(str(error), source, span) from None
