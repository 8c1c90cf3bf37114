"""Directories of clients, kept between builds so that only what changed travels.

    <root>/<slot>/tree/       the files
    <root>/<slot>/listing     how the client described them; absent while they are being changed

A slot belongs to what the client calls the directory (the shared key of its session, and the name). Builds that use the
same directory at the same time have slots of their own.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from wherry.build.trees import Digests
from wherry.buildkit.messages.buildkit_pb2 import Packet

_IDLE_SECONDS = 48 * 3600.0
"""As long as BuildKit keeps them."""


class Slot:
    """One directory, of one build at a time. A Tree for the builder."""

    def __init__(self, directory: Path, selection: str) -> None:
        self._directory = directory
        self.selection = selection
        self.in_use = False
        self.digests = Digests()
        self._generation = 0
        self._listing: Sequence[bytes] | None = None

    @property
    def path(self) -> str:
        return str(self._directory / "tree")

    @property
    def name(self) -> str:
        return self._directory.name

    def size(self) -> int:
        """In a thread: the bytes of its files, as the client gave them."""
        try:
            listing = _unpack((self._directory / "listing").read_bytes())
        except (OSError, ValueError):
            return 0
        return sum(Packet.FromString(one).stat.size for one in listing)

    @property
    def key(self) -> str:
        """Names the content as long as nobody changes it."""
        return f"{self._directory.name}.{self._generation}"

    def begin(self) -> Sequence[bytes]:
        """In a thread: what is here, as it was described; () when nothing is known."""
        tree = self._directory / "tree"
        if self._listing is None:
            try:
                self._listing = _unpack((self._directory / "listing").read_bytes())
            except (OSError, ValueError):
                self._listing = ()
        if not self._listing:
            shutil.rmtree(self._directory, ignore_errors=True)
            tree.mkdir(mode=0o755, parents=True)
        return self._listing

    def changing(self) -> None:
        """In a thread: from now on the files are neither the old nor the new ones."""
        self._listing = ()
        self._generation += 1
        with suppress(FileNotFoundError):
            (self._directory / "listing").unlink()

    def complete(self, listing: Sequence[bytes]) -> None:
        """In a thread: now they are the new ones."""
        self._listing = listing
        (self._directory / "listing").write_bytes(_pack(listing))

    def used(self) -> None:
        """For who prunes."""
        with suppress(OSError):
            os.utime(self._directory)

    def idle_since(self) -> float:
        try:
            return self._directory.stat().st_mtime
        except OSError:
            return 0.0

    def remove(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)


class SyncedDirectories:
    """All of them. The loop's thread, but for `prune`."""

    def __init__(self, root: Path) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._root = root
        self._slots: dict[str, list[Slot]] = {}
        for directory in sorted(root.iterdir()):
            name, _, number = directory.name.partition("-")
            if (directory / "listing").is_file() and number.isdigit():
                self._slots.setdefault(name, []).append(Slot(directory, ""))
            else:
                shutil.rmtree(directory, ignore_errors=True)

    def acquire(self, shared_key: str, name: str, selection: str) -> Slot:
        """A slot for the directory; best one that was used for the same selection of files. To be given back."""
        key = hashlib.sha256(f"{shared_key}\0{name}".encode()).hexdigest()[:32]
        slots = self._slots.setdefault(key, [])
        free = [slot for slot in slots if not slot.in_use]
        slot = next((slot for slot in free if slot.selection == selection), free[0] if free else None)
        if slot is None:
            taken = {slot.path for slot in slots}
            number = next(n for n in range(len(slots) + 1) if str(self._root / f"{key}-{n}" / "tree") not in taken)
            slot = Slot(self._root / f"{key}-{number}", selection)
            slots.append(slot)
        slot.in_use = True
        slot.selection = selection
        return slot

    def release(self, slot: Slot) -> None:
        slot.used()
        slot.in_use = False

    def take_out(self, slot: Slot) -> list[Slot]:
        """Forget one; the caller removes it."""
        for key, slots in list(self._slots.items()):
            if slot in slots:
                slots.remove(slot)
                if not slots:
                    del self._slots[key]
                return [slot]
        return []

    def slots(self) -> list[Slot]:
        """All there are."""
        return [slot for slots in list(self._slots.values()) for slot in list(slots)]

    def forget(self, idle_seconds: float = _IDLE_SECONDS) -> list[Slot]:
        """Take out those that no build used for so long; the caller removes them, in a thread."""
        limit = time.time() - idle_seconds
        gone = []
        for key, slots in list(self._slots.items()):
            for slot in list(slots):
                if not slot.in_use and slot.idle_since() <= limit:
                    slots.remove(slot)
                    gone.append(slot)
            if not slots:
                del self._slots[key]
        return gone


def _pack(listing: Sequence[bytes]) -> bytes:
    return b"".join(part for one in listing for part in (len(one).to_bytes(4, "big"), one))


def _unpack(data: bytes) -> list[bytes]:
    found, start = [], 0
    while start < len(data):
        length = int.from_bytes(data[start : start + 4], "big")
        if start + 4 + length > len(data):
            raise ValueError("a listing that is cut off")
        found.append(data[start + 4 : start + 4 + length])
        start += 4 + length
    return found
