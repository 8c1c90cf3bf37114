"""Names and passwords in an htpasswd file (`htpasswd -B`): one `name:hash` a line, bcrypt hashes only.

Checking one takes some 50 ms by design, so what was found right is remembered for a while, as a keyed digest.
"""

import asyncio
import hashlib
import os
import secrets
import time
from pathlib import Path

from wherry.errors import InvalidArgument

_REMEMBERED_SECONDS = 300.0
_REMEMBERED_MAX = 4096
# Of no password: who does not exist is refused as slowly as who mistypes.
_NOBODY = b"$2b$10$" + b"." * 53


class Passwords:
    """The file at `path`, read again when it changes. InvalidArgument when it is unusable at the start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._hashes: dict[str, bytes] = {}
        self._key = secrets.token_bytes(32)
        self._known: dict[bytes, float] = {}
        try:
            import bcrypt
        except ImportError:
            raise InvalidArgument(
                "checking passwords needs the package bcrypt", hint="install wherry with the extra `registry`"
            ) from None
        self._bcrypt = bcrypt
        try:
            self._read()
        except OSError as error:
            raise InvalidArgument(f"cannot read {path}: {error.strerror}", object=str(path)) from None

    async def check(self, user: str, password: str) -> bool:
        """Whether they belong together."""
        try:
            await asyncio.to_thread(self._read)
        except (OSError, InvalidArgument):
            pass  # being rewritten: what was read last counts
        hashed = self._hashes.get(user)
        proof = hashlib.blake2b(b"\0".join((user.encode(), hashed or b"", password.encode())), key=self._key).digest()
        now = time.monotonic()
        if self._known.get(proof, 0.0) > now:
            return True
        right = await asyncio.to_thread(self._matches, password.encode(), hashed or _NOBODY)
        if right and hashed is not None:
            if len(self._known) >= _REMEMBERED_MAX:
                self._known.clear()
            self._known[proof] = now + _REMEMBERED_SECONDS
        return right and hashed is not None

    def _matches(self, password: bytes, hashed: bytes) -> bool:
        try:
            return self._bcrypt.checkpw(password[:72], hashed)
        except ValueError:
            return False

    def _read(self) -> None:
        found = os.stat(self._path)
        stamp = (found.st_mtime_ns, found.st_ino)
        if stamp == self._stamp:
            return
        hashes: dict[str, bytes] = {}
        for number, line in enumerate(self._path.read_text().splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            user, colon, hashed = line.strip().partition(":")
            if not colon or not hashed.startswith(("$2a$", "$2b$", "$2y$")):
                raise InvalidArgument(
                    f"{self._path}, line {number}: not a name with a bcrypt hash",
                    object=str(self._path),
                    hint="make it with htpasswd -B",
                )
            hashes[user] = hashed.encode()
        self._hashes, self._stamp = hashes, stamp
