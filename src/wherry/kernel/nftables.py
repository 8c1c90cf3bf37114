"""nft(8) commands, performed in this process by libnftables (libnftables(3)).

A text of any number of commands is one transaction: all of it or none. No nft executable is needed.
"""

import ctypes
import os
from threading import Lock

_CTX_DEFAULT = 0
_lock = Lock()
_context: tuple[ctypes.CDLL, int] | None = None


def run(commands: str) -> str:
    """Perform `commands` (nft's own language) and return what they print ("" for most).

    Raises OSError with nft's own message. ENOENT, EEXIST and EBUSY are told apart, everything else is EINVAL; ENOSYS
    means libnftables is not installed.
    """
    with _lock:
        library, context = _open()
        failed = library.nft_run_cmd_from_buffer(context, commands.encode())
        output = _text(library.nft_ctx_get_output_buffer(context))
        message = _text(library.nft_ctx_get_error_buffer(context)).strip()
    if failed:
        number = next((n for n in _NUMBERS if os.strerror(n) in message), 22)
        raise OSError(number, f"nftables: {message or 'the commands were refused'}")
    return output


_NUMBERS = (2, 17, 16, 1)


def _open() -> tuple[ctypes.CDLL, int]:
    """The library and the one context of this process, made at first use. Call with the lock held."""
    global _context
    if _context is None:
        library = _load()
        context = library.nft_ctx_new(_CTX_DEFAULT)
        if not context:
            raise OSError(12, "nft_ctx_new: out of memory")
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_buffer_error(context)
        _context = (library, context)
    return _context


def _load() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libnftables.so.1")
    except OSError as error:
        raise OSError(38, f"libnftables.so.1 cannot be loaded; install the package libnftables1 ({error})") from None
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    for name, result, arguments in (
        ("nft_ctx_new", pointer, [ctypes.c_uint32]),
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
