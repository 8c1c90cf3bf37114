"""HTTP's statuses for the errors of the tree."""

from wherry import errors
from wherry.api.call import TooLarge

STATUS: dict[type[errors.WherryError], int] = {
    errors.InvalidArgument: 400,
    errors.Unauthenticated: 401,
    errors.PermissionDenied: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.FailedPrecondition: 409,
    TooLarge: 413,
    errors.Internal: 500,
    errors.Unimplemented: 501,
    errors.Unavailable: 503,
}


def status_of(error: errors.WherryError) -> int:
    """The HTTP status of an error of the tree."""
    for kind in type(error).__mro__:
        status = STATUS.get(kind)
        if status is not None:
            return status
    return 500
