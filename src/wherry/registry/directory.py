"""The registry's backend in a directory, on any file system that renames atomically (NFS too).

<root>/<key>                   a value
<root>/_uploads/<id>/data      an upload
<root>/_incoming/              values on their way: written aside, then renamed
"""

import asyncio
import fcntl
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from wherry.errors import InvalidArgument
from wherry.registry.backend import Busy, Entry, Missing

_CHUNK = 1 << 20


class Directory:
    """A Backend below `root`, which is made when absent."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming, self._uploads = root / "_incoming", root / "_uploads"
        for directory in (root, self._incoming, self._uploads):
            directory.mkdir(mode=0o750, parents=True, exist_ok=True)

    async def stat(self, key: str) -> Entry | None:
        return await asyncio.to_thread(self._stat, key)

    async def read(self, key: str) -> bytes:
        try:
            return await asyncio.to_thread(self._at(key).read_bytes)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise Missing(f"{key} is not there", object=key) from None

    async def write(self, key: str, data: bytes) -> None:
        await asyncio.to_thread(self._write, key, data)

    async def touch(self, key: str) -> bool:
        try:
            await asyncio.to_thread(os.utime, self._at(key))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    async def delete(self, key: str) -> None:
        await asyncio.to_thread(self._delete, key)

    async def names(self, key: str) -> list[str]:
        return await asyncio.to_thread(self._names, key)

    def path(self, key: str) -> Path | None:
        return self._at(key)

    async def stream(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        try:
            file = await asyncio.to_thread(self._at(key).open, "rb")
        except FileNotFoundError:
            raise Missing(f"{key} is not there", object=key) from None
        with file:
            file.seek(start)
            while start < end and (data := await asyncio.to_thread(file.read, min(_CHUNK, end - start))):
                start += len(data)
                yield data

    async def begin(self, id: str) -> "FileUpload":
        return await asyncio.to_thread(self._open, id, os.O_CREAT | os.O_EXCL)

    async def resume(self, id: str) -> "FileUpload":
        return await asyncio.to_thread(self._open, id, 0)

    async def uploads(self) -> list[tuple[str, float]]:
        return await asyncio.to_thread(self._list_uploads)

    async def check(self) -> None:
        await self.write(f"_incoming/check-{secrets.token_hex(8)}", b"")

    async def close(self) -> None:
        pass

    def _at(self, key: str) -> Path:
        if ".." in key.split("/") or key.startswith("/") or "\0" in key:
            raise InvalidArgument(f"{key!r} is not a key", object=key)
        return self._root / key

    def _stat(self, key: str) -> Entry | None:
        try:
            found = os.stat(self._at(key))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Entry(found.st_size, found.st_mtime)

    def _write(self, key: str, data: bytes) -> None:
        aside = self._incoming / secrets.token_hex(16)
        try:
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fdatasync(file.fileno())
            if not key.startswith("_incoming/"):
                self._place(aside, key)
        finally:
            aside.unlink(missing_ok=True)

    def _place(self, file: Path, key: str) -> None:
        """Rename it; its directories may go meanwhile, as a collection takes empty ones."""
        target = self._at(key)
        for attempt in range(5):
            target.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            try:
                os.rename(file, target)
                break
            except FileNotFoundError:
                if attempt == 4 or not file.exists():
                    raise
        directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _delete(self, key: str) -> None:
        path = self._at(key)
        try:
            path.unlink(missing_ok=True)
            # What is empty now goes too, so that names of repositories that are gone are not listed.
            for parent in list(path.parents)[: key.count("/")]:
                parent.rmdir()
        except (OSError, NotADirectoryError):
            return

    def _names(self, key: str) -> list[str]:
        try:
            names = os.listdir(self._at(key) if key else self._root)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(names)

    def _open(self, id: str, flags: int) -> "FileUpload":
        directory = self._uploads / id
        if flags:
            directory.mkdir(mode=0o750)
        try:
            fd = os.open(directory / "data", os.O_RDWR | os.O_CLOEXEC | flags, 0o440 | 0o200)
        except FileNotFoundError:
            raise Missing(f"upload {id} is not there", object=id) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise Busy(f"upload {id} is being written to", object=id) from None
        return FileUpload(self, directory, fd)

    def _list_uploads(self) -> list[tuple[str, float]]:
        found = []
        for name in os.listdir(self._uploads):
            try:
                found.append((name, os.stat(self._uploads / name / "data").st_mtime))
            except FileNotFoundError:
                found.append((name, 0.0))
        return found


class FileUpload:
    """An upload in a file, locked."""

    def __init__(self, owner: Directory, directory: Path, fd: int) -> None:
        self._owner, self._directory, self._fd = owner, directory, fd
        self.size = os.fstat(fd).st_size

    async def write(self, data: bytes) -> None:
        await asyncio.to_thread(self._write, data)

    async def chunks(self) -> AsyncIterator[bytes]:
        offset = 0
        while data := await asyncio.to_thread(os.pread, self._fd, _CHUNK, offset):
            offset += len(data)
            yield data

    async def commit(self, key: str) -> None:
        await asyncio.to_thread(self._commit, key)

    async def discard(self) -> None:
        await self.close()
        await asyncio.to_thread(shutil.rmtree, self._directory, True)

    async def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, self.size)
            self.size += written
            view = view[written:]

    def _commit(self, key: str) -> None:
        os.fdatasync(self._fd)
        self._owner._place(self._directory / "data", key)
        fd, self._fd = self._fd, -1
        os.close(fd)
        shutil.rmtree(self._directory, ignore_errors=True)
