"""A tar from elsewhere, for POST /images/create?fromSrc=URL."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, BinaryIO, cast

from wherry.engine.threads import in_own_thread
from wherry.errors import InvalidArgument, Unavailable

_TIMEOUT = 60.0


@asynccontextmanager
async def downloaded(url: str, progress: Callable[[dict[str, Any]], None]) -> AsyncIterator[BinaryIO]:
    """The answer's body, to be read in a thread. Unavailable when it is not had; only http and https."""
    if "://" not in url:
        url = f"http://{url}"
    if not url.startswith(("http://", "https://")):
        raise InvalidArgument(f"cannot import from {url}: only http and https are supported", object=url)
    response = await in_own_thread(_open, url)
    try:
        progress({"status": f"Downloading from {url}"})
        yield response
    finally:
        response.close()


def _open(url: str) -> BinaryIO:
    # Not at the top: it brings the email package with it, for what is rarely asked.
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    try:
        return cast(BinaryIO, urlopen(Request(url, headers={"User-Agent": "wherry"}), timeout=_TIMEOUT))
    except HTTPError as error:
        error.close()
        raise Unavailable(f"failed to get {url}: the server answered {error.code}", object=url) from None
    except (URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Unavailable(f'Get "{url}": {reason}', object=url) from None
