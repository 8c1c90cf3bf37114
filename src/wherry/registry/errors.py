"""Refusals as the distribution specification writes them (distribution-spec, "Error Codes")."""

from typing import Any

from wherry.errors import WherryError

_STATUS = {
    "BLOB_UNKNOWN": 404,
    "BLOB_UPLOAD_INVALID": 400,
    "BLOB_UPLOAD_UNKNOWN": 404,
    "DIGEST_INVALID": 400,
    "MANIFEST_BLOB_UNKNOWN": 404,
    "MANIFEST_INVALID": 400,
    "MANIFEST_UNKNOWN": 404,
    "NAME_INVALID": 400,
    "NAME_UNKNOWN": 404,
    "SIZE_INVALID": 400,
    "UNAUTHORIZED": 401,
    "DENIED": 403,
    "UNSUPPORTED": 405,
    "TOOMANYREQUESTS": 429,
    "RANGE_INVALID": 416,
    "UNAVAILABLE": 503,
    "PAGINATION_NUMBER_INVALID": 400,
}


class Refused(WherryError):
    """A request that is answered with an error: `code` is the specification's, `status` HTTP's."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        detail: Any = None,
        status: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status or _STATUS[code]
        self.detail = detail
        self.headers = headers or {}

    def document(self) -> dict[str, Any]:
        """The body of the answer."""
        error = {"code": self.code, "message": self.message, "detail": self.detail}
        return {"errors": [{name: value for name, value in error.items() if value is not None}]}
