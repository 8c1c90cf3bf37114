"""Compressing rotated logs, in one thread for all of them, at the lowest priority and only when they have come to rest.

A file that was rotated away is left alone until its log has not rotated for some seconds: of a log that rotates faster
than that, most files are dropped before anyone reads them, and compressing those would cost more than all the rest of
logging. The bound on disk holds either way, it is on what is not compressed yet.

The result is gzip that any tool reads, made of members of a quarter of a megabyte, each of which carries its own
length in an extra field (RFC 1952, 2.3.1.1), so that a reader gets to any place without inflating what is before it.

A thread and not a process: zlib works without the interpreter's lock. `lock` is held while files change their names.
"""

import _thread
import os
import time
import zlib

MEMBER = 256 * 1024
"""Bytes of plain text in one member, but the last."""
_REST_SECONDS = 10.0
_LEVEL = 3
_NICE = 19
# gzip, deflate, FEXTRA, no time, no flags, unknown system; then the extra field: subfield "WL", twice 32 bits.
_HEADER = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x0c\0WL\x08\0"
HEADER_SIZE = len(_HEADER) + 8

lock = _thread.allocate_lock()
_due: dict[str, tuple[float, int]] = {}
_working = False


def later(path: str, max_file: int) -> None:
    """Compress what has been rotated away of the log at `path`, some seconds from the last time this is said."""
    global _working
    if not os.path.exists(f"{path}.1"):
        return
    with lock:
        _due[path] = (time.monotonic() + _REST_SECONDS, max_file)
        if not _working:
            _working = True
            _thread.start_new_thread(_work, ())


def compress(path: str, max_file: int) -> None:
    """Compress what has been rotated away of the log at `path` now."""
    for number in range(max_file - 1, 0, -1):
        try:
            _compress_one(path, number, max_file)
        except FileNotFoundError:
            continue


def parse_header(header: bytes) -> tuple[int, int] | None:
    """Of a member: how long it is, and how long what it holds; None when it was not made here."""
    if len(header) < HEADER_SIZE or not header.startswith(_HEADER):
        return None
    return int.from_bytes(header[16:20], "little"), int.from_bytes(header[20:24], "little")


def _work() -> None:
    global _working
    os.setpriority(os.PRIO_PROCESS, _thread.get_native_id(), _NICE)
    while True:
        with lock:
            if not _due:
                _working = False
                return
            path, (at, max_file) = min(_due.items(), key=lambda item: item[1])
            rest = at - time.monotonic()
            if rest <= 0:
                del _due[path]
        if rest > 0:
            time.sleep(rest)
            continue
        try:
            compress(path, max_file)
        except OSError:
            continue  # a full disk: it stays as it is


def _compress_one(path: str, number: int, max_file: int) -> None:
    temporary = f"{path}.squeeze"
    plain = os.open(f"{path}.{number}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        out = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        try:
            offset = 0
            while data := os.pread(plain, MEMBER, offset):
                offset += len(data)
                _write_all(out, _member(data))
        finally:
            os.close(out)
        _put_in_place(path, temporary, os.fstat(plain).st_ino, max_file)
    except OSError:
        try:
            os.unlink(temporary)
        except FileNotFoundError:
            pass
        raise
    finally:
        os.close(plain)


def _put_in_place(path: str, temporary: str, inode: int, max_file: int) -> None:
    # It may have another number by now, or be gone.
    with lock:
        for number in range(1, max_file):
            name = f"{path}.{number}"
            try:
                found = os.stat(name, follow_symlinks=False).st_ino
            except FileNotFoundError:
                continue
            if found == inode:
                os.rename(temporary, f"{name}.gz")
                os.unlink(name)
                return
    os.unlink(temporary)


def _member(data: bytes) -> bytes:
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -15)
    body = packer.compress(data) + packer.flush()
    size = HEADER_SIZE + len(body) + 8
    return b"".join(
        (
            _HEADER,
            size.to_bytes(4, "little"),
            len(data).to_bytes(4, "little"),
            body,
            zlib.crc32(data).to_bytes(4, "little"),
            len(data).to_bytes(4, "little"),
        )
    )


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
