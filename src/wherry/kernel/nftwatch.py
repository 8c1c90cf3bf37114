"""Word of nftables tables that are deleted, from whoever deletes them.

Source: Linux include/uapi/linux/netfilter/nf_tables.h and nfnetlink.h (group NFNLGRP_NFTABLES).
"""

import ctypes
import errno
import os
import select
import socket
import struct

_NETLINK_NETFILTER = 12
_GROUP_NFTABLES = 7
_SOL_NETLINK, _ADD_MEMBERSHIP, _NO_ENOBUFS = 270, 1, 5
_SUBSYSTEM = 10
_DELTABLE, _NEWSETELEM, _DELSETELEM, _NEWGEN = 2, 12, 14, 15
_SO_ATTACH_FILTER = 26
_LOAD_BYTE, _JUMP_EQUAL, _RETURN = 0x30, 0x15, 0x06


class TableWatch:
    """A subscription of the calling thread's network namespace. `wait` from one thread, `stop` from any.

    Every change of any table is announced; changes of mere elements, which are the frequent ones and our own, are
    left out by a filter in the kernel, so that they wake nobody.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        self._socket.setblocking(False)
        # A socket without an address of its own is passed over when the kernel announces something.
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _NO_ENOBUFS, 1)
        _attach_filter(self._socket)
        self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES)
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)

    def wait(self) -> bool:
        """Wait until a table was deleted, or something was lost on the way; False after `stop`."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        while True:
            if any(fd == self._stop for fd, _ in poll.poll()):
                return False
            if self._drain():
                return True

    def stop(self) -> None:
        """End every `wait`."""
        os.eventfd_write(self._stop, 1)

    def close(self) -> None:
        """Release the descriptors; nobody may be waiting."""
        self._socket.close()
        if self._stop >= 0:
            os.close(self._stop)
            self._stop = -1

    def _drain(self) -> bool:
        found = False
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found = True
                continue
            found |= _has_deletion(data)


def _has_deletion(data: bytes) -> bool:
    offset = 0
    while offset + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        if kind == _SUBSYSTEM << 8 | _DELTABLE:
            return True
        if length < 16:
            return False
        offset += (length + 3) & ~3
    return False


def _attach_filter(netlink: socket.socket) -> None:
    # The type of a message is in its bytes 4 and 5, in the machine's order: its low byte is the kind of change.
    low = 4 if struct.pack("=H", 1)[0] else 5
    program = [
        (_LOAD_BYTE, 0, 0, low),
        (_JUMP_EQUAL, 3, 0, _NEWSETELEM),
        (_JUMP_EQUAL, 2, 0, _DELSETELEM),
        (_JUMP_EQUAL, 1, 0, _NEWGEN),
        (_RETURN, 0, 0, 0xFFFFFFFF),
        (_RETURN, 0, 0, 0),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    header = struct.pack("@HP", len(program), ctypes.addressof(code))
    netlink.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, header)
