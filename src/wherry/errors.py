"""The error tree of Wherry.

    WherryError
    ├── InvalidArgument      the caller's input is wrong, whatever the state           HTTP 400
    ├── Unauthenticated      who is asking is not known                                HTTP 401
    ├── PermissionDenied     known, but may not                                        HTTP 403
    ├── NotFound             the named thing does not exist                            HTTP 404
    ├── Conflict             the named thing exists or is in use                       HTTP 409
    ├── FailedPrecondition   the thing is in a state in which this cannot be done      HTTP 409
    ├── Unimplemented        asked for something Wherry does not do (yet)              HTTP 501
    ├── Unavailable          a part this depends on does not answer; try again         HTTP 503
    └── Internal             a fault of ours or of the machine                         HTTP 500

Adapters map a kind once (HTTP status, exit code). `wherry.kernel` does not use this tree: it raises OSError
with the call and the path, and the room that called it says what that means.
"""


class WherryError(Exception):
    """A message for the user, the object it is about, and what to do next.

    `str(error)` is the message followed by the hint, as shown to users.
    """

    def __init__(self, message: str, *, object: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.object = object
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InvalidArgument(WherryError):
    """The caller's input is wrong, whatever the state."""


class Unauthenticated(WherryError):
    """Who is asking is not known."""


class PermissionDenied(WherryError):
    """The caller is known, but may not do this."""


class NotFound(WherryError):
    """The named thing does not exist."""


class Conflict(WherryError):
    """The named thing exists already, or is in use."""


class FailedPrecondition(WherryError):
    """The thing is in a state in which this cannot be done."""


class Unimplemented(WherryError):
    """Wherry does not do this (yet)."""


class Unavailable(WherryError):
    """A part this depends on does not answer; the same call may succeed later."""


class Internal(WherryError):
    """A fault of ours or of the machine."""
