"""Who asked what of a scoped socket, when, and what came of it: JSON, one line per record.

A request is written down before it is done, its answer after; both bear the same number. When the first cannot be
written, nothing is done. The file is renamed when it is full, and a few older ones are kept.
"""

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from wherry.errors import Unavailable

log = logging.getLogger("wherry.api")
_FILE_BYTES = 8 << 20
_FILES = 4
_dump = json.JSONEncoder(separators=(",", ":")).encode


class AuditLog:
    """One socket's. Records are short and go to the page cache, so they are written on the loop."""

    def __init__(self, path: Path, *, file_bytes: int = _FILE_BYTES) -> None:
        self.path = path
        self._file_bytes = file_bytes
        self._descriptor = -1
        self._size = 0
        self._number = 0

    def request(self, **fields: Any) -> int:
        """Write down what is asked for; its number. Unavailable when that fails."""
        self._number += 1
        try:
            self._write({"event": "request", "number": self._number, **fields})
        except OSError as error:
            raise Unavailable(
                f"cannot write the audit log {self.path}: {error.strerror}", object=str(self.path)
            ) from None
        return self._number

    def answer(self, number: int, **fields: Any) -> None:
        """Write down what came of request `number`. What is done is done: failing, it is only logged."""
        try:
            self._write({"event": "answer", "number": number, **fields})
        except OSError as error:
            log.error("cannot write the audit log %s: %s", self.path, error.strerror)

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, fields: dict[str, Any]) -> None:
        now = time.time()
        moment = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1e6):06d}Z"
        # JSON escapes line ends, so nothing a client sends can look like a record of its own.
        line = (_dump({"time": moment, **fields}) + "\n").encode()
        if self._descriptor >= 0 and self._size + len(line) > self._file_bytes:
            self._rotate()
        if self._descriptor < 0:
            self._open()
        os.write(self._descriptor, line)
        self._size += len(line)

    def _open(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self.path, flags, 0o600)
        self._size = os.fstat(self._descriptor).st_size

    def _rotate(self) -> None:
        self.close()
        for index in range(_FILES - 1, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{index}")
            newer = self.path.with_name(f"{self.path.name}.{index - 1}") if index > 1 else self.path
            try:
                newer.rename(older)
            except FileNotFoundError:
                pass
