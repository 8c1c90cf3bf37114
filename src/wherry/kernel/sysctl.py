"""Kernel parameters under /proc/sys. Those of net/ are the calling thread's network namespace's."""

import os

_ROOT = "/proc/sys"


def read(name: str) -> str:
    """The value of a parameter, named by its path ("net/ipv4/ip_forward"); OSError with the path."""
    with open(os.path.join(_ROOT, name)) as file:
        return file.read().strip()


def write(name: str, value: str) -> None:
    """Set a parameter; OSError with the path."""
    path = os.path.join(_ROOT, name)
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    except OSError as error:
        raise OSError(error.errno, f"write: {os.strerror(error.errno or 0)}", path) from None
    finally:
        os.close(fd)
