"""What every answer with a blob carries."""

from wherry.spec.digest import Digest

BLOB_TYPE = "application/octet-stream"


def blob_headers(digest: Digest) -> dict[str, str]:
    """A blob never changes: it may be cached for ever."""
    return {
        "Content-Type": BLOB_TYPE,
        "Docker-Content-Digest": digest,
        "Cache-Control": "max-age=31536000",
        "Accept-Ranges": "bytes",
    }
