"""Times of a layer's files held down: the same build gives the same bytes on another day (SOURCE_DATE_EPOCH)."""

import os

from wherry.archive import walk


def clamp(path: str, newest: int) -> None:
    """In a thread: nothing at or below `path` is younger than `newest`, nanoseconds since 1970. No link is followed.

    On disk, not only in what is packed: a layer's bytes are made again from its files whenever somebody asks for them.
    """
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for directory in walk(root, b""):
            for name, status in directory.entries:
                if status.st_mtime_ns > newest:
                    entry = os.path.join(directory.path, name)
                    os.utime(entry, ns=(newest, newest), dir_fd=root, follow_symlinks=False)
        if os.fstat(root).st_mtime_ns > newest:
            os.utime(root, ns=(newest, newest))
    finally:
        os.close(root)
