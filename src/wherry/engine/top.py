"""What runs in a container, as ps(1) shows it: for the usual arguments from /proc, for others by the host's ps."""

import asyncio
import os
import pwd
import re
import time
from collections.abc import Sequence
from typing import Any

from wherry.errors import Internal, InvalidArgument

_TITLES = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
_ALLOWED = re.compile(r"[A-Za-z0-9,.:=%+/_\- ]*")
_TICKS = os.sysconf("SC_CLK_TCK")


async def top(pids: Sequence[int], arguments: str) -> dict[str, Any]:
    """{"Titles": [...], "Processes": [[...]]} of these pids of the host."""
    if arguments in ("", "-ef"):
        rows = [row for pid in sorted(pids) if (row := _row(pid)) is not None]
        return {"Processes": rows, "Titles": list(_TITLES)}
    return await _by_ps(set(map(str, pids)), arguments)


def _row(pid: int) -> list[str] | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = file.read().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
        uid = os.stat(f"/proc/{pid}").st_uid
    except (FileNotFoundError, ProcessLookupError):
        return None
    name = text[text.index(b"(") + 1 : text.rindex(b")")].decode(errors="replace")
    fields = text[text.rindex(b")") + 2 :].split()
    used = (int(fields[11]) + int(fields[12])) // _TICKS
    started = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + int(fields[19]) / _TICKS
    age = max(1.0, time.time() - started)
    cpu = min(99, int(used * 100 / age))
    shown = command or f"[{name}]"
    clock = f"{used // 3600:02d}:{used // 60 % 60:02d}:{used % 60:02d}"
    return [_user(uid), str(pid), fields[1].decode(), str(cpu), _start(started), _tty(int(fields[4])), clock, shown]


def _user(uid: int) -> str:
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
    return name if len(name) <= 8 else name[:7] + "+"


def _start(started: float) -> str:
    then, now = time.localtime(started), time.localtime()
    if then[:3] == now[:3]:
        return time.strftime("%H:%M", then)
    return time.strftime("%b%d" if then[0] == now[0] else "%Y", then)


def _tty(device: int) -> str:
    major, minor = os.major(device), os.minor(device)
    if 136 <= major <= 143:
        return f"pts/{(major - 136) * 256 + minor}"
    return f"tty{minor}" if major == 4 else "?"


async def _by_ps(pids: set[str], arguments: str) -> dict[str, Any]:
    if not _ALLOWED.fullmatch(arguments):
        raise InvalidArgument(f"invalid ps arguments: {arguments!r}", object=arguments)
    try:
        process = await asyncio.create_subprocess_exec(
            "ps", *arguments.split(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except FileNotFoundError:
        raise Internal("the host has no ps", hint="leave the arguments out") from None
    out, errors = await process.communicate()
    if process.returncode:
        said = errors.decode(errors="replace").strip().partition("\n")[0]
        raise Internal(f"ps: {said or 'failed'}", object=arguments)
    lines = out.decode(errors="replace").splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise Internal("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows = [line.split(None, len(titles) - 1) for line in lines[1:]]
    return {"Processes": [row for row in rows if len(row) > column and row[column] in pids], "Titles": titles}
