"""nft(8) commands, performed in this process by libnftables (libnftables(3)).

A text of any number of commands is one transaction: all of it or none. No nft executable is needed.
"""

import ctypes
import errno
import os
from threading import Lock

_CTX_DEFAULT = 0
_KNOWN = (errno.ENOENT, errno.EEXIST, errno.EBUSY, errno.EPERM, errno.EOPNOTSUPP)


class Nftables:
    """A connection to the nf_tables of the calling thread's network namespace. Usable from any thread, one at a time.

    nft.run("add element ip filter blocked { 10.0.0.1 }")
    """

    def __init__(self) -> None:
        """Raises OSError ENOSYS when libnftables is not installed."""
        self._library = _load()
        self._lock = Lock()
        self._context = self._library.nft_ctx_new(_CTX_DEFAULT)
        if not self._context:
            raise OSError(errno.ENOMEM, "nft_ctx_new: out of memory")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    def run(self, commands: str) -> str:
        """Perform `commands` (nft's own language) and return what they print ("" for most).

        Raises OSError with nft's own message. ENOENT, EEXIST, EBUSY, EPERM and EOPNOTSUPP are told apart, everything
        else is EINVAL.
        """
        with self._lock:
            if not self._context:
                raise OSError(errno.EBADF, "nftables: the connection is closed")
            failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
            output = _text(self._library.nft_ctx_get_output_buffer(self._context))
            message = _text(self._library.nft_ctx_get_error_buffer(self._context)).strip()
        if failed:
            number = next((n for n in _KNOWN if os.strerror(n) in message), errno.EINVAL)
            raise OSError(number, f"nftables: {message or 'the commands were refused'}")
        return output

    def close(self) -> None:
        """Release the library's memory and its socket; twice is harmless."""
        with self._lock:
            context, self._context = self._context, None
            if context:
                self._library.nft_ctx_free(context)


def _load() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libnftables.so.1")
    except OSError as error:
        raise OSError(
            errno.ENOSYS, f"libnftables.so.1 cannot be loaded; install the package libnftables1 ({error})"
        ) from None
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    for name, result, arguments in (
        ("nft_ctx_new", pointer, [ctypes.c_uint32]),
        ("nft_ctx_free", None, [pointer]),
        ("nft_ctx_buffer_output", ctypes.c_int, [pointer]),
        ("nft_ctx_buffer_error", ctypes.c_int, [pointer]),
        ("nft_ctx_get_output_buffer", text, [pointer]),
        ("nft_ctx_get_error_buffer", text, [pointer]),
        ("nft_run_cmd_from_buffer", ctypes.c_int, [pointer, text]),
    ):
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")
