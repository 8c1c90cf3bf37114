"""The assembled programs: encodings as the manuals have them, and what the init does when it is run."""

import contextlib
import fcntl
import os
import platform
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from wherry.errors import Unimplemented
from wherry.runtime.machine import elf, init
from wherry.runtime.machine.assembly import X86, Arm64, Assembler, assembler_for

# As llvm-mc prints them for "mov x19, x0" and so on.
_ENCODINGS = (
    (X86, lambda a: a.move("s2", "r"), "4989c4"),
    (X86, lambda a: a.load("s1", "s2", 24), "498bac2418000000"),
    (X86, lambda a: a.load_half("s4", "s5", 4), "458bb704000000"),
    (X86, lambda a: a.store("s3", "s0", 8), "4c89ab08000000"),
    (X86, lambda a: a.load_value("a1", -1), "48beffffffffffffffff"),
    (X86, lambda a: a.branch("s4", "lt", -1, "here"), "4981feffffffff0f8cf3ffffff"),
    (X86, lambda a: a.bits("s4", 8, 8), "49c1ee084981e6ff000000"),
    (Arm64, lambda a: a.move("s0", "r"), "f30300aa"),
    (Arm64, lambda a: a.load("s1", "s2", 24), "b40e40f9"),
    (Arm64, lambda a: a.load_half("s4", "s5", 4), "170740b9"),
    (Arm64, lambda a: a.store("s3", "s0", 8), "760600f9"),
    (Arm64, lambda a: a.load_value("n", 0x12345), "a86884d22800a0f20800c0f20800e0f2"),
    (Arm64, lambda a: a.branch("s4", "lt", -1, "here"), "ff0600b1ebffff54"),
    (Arm64, lambda a: a.bits("s4", 8, 8), "f73e48d3"),
    (Arm64, lambda a: a.shift_left("s1", 3), "94f27dd3"),
)


@pytest.mark.parametrize(("machine", "write", "code"), _ENCODINGS)
def test_encodings(machine: type[Assembler], write: object, code: str) -> None:
    assert machine(0x1000, {"here": 0x1000}).assemble(write).hex() == code  # type: ignore[arg-type]


def test_a_processor_nobody_wrote_encodings_for_is_refused() -> None:
    with pytest.raises(Unimplemented, match="riscv64"):
        assembler_for("riscv64")


def _emulator(architecture: str) -> list[str]:
    if architecture == platform.machine():
        return []
    for name in (f"qemu-{architecture}", f"qemu-{architecture}-static"):
        if found := shutil.which(name):
            return [found]
    pytest.skip(f"this machine cannot run programs for {architecture}")


@pytest.fixture(params=["x86_64", "aarch64"])
def architecture(request: pytest.FixtureRequest) -> str:
    _emulator(str(request.param))
    return str(request.param)


def start(tmp_path: Path, architecture: str, candidates: Sequence[str], *arguments: str) -> "subprocess.Popen[bytes]":
    program = tmp_path / "init"
    program.write_bytes(init.build(arguments[0], candidates, architecture))
    program.chmod(0o755)
    command = [*_emulator(architecture), str(program), *init.ARGUMENTS[1:], *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={"PATH": "/bin:/usr/bin", "KEPT": "yes"}
    )


def test_arguments_environment_and_status(tmp_path: Path, architecture: str) -> None:
    process = start(tmp_path, architecture, ["/nosuch/sh", "/bin/sh"], "sh", "-c", "echo $KEPT $1; exit 7", "x", "one")
    assert process.communicate(timeout=20) == (b"yes one\n", b"")
    assert process.returncode == 7


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 5), (signal.SIGUSR1, 128 + signal.SIGUSR1)])
def test_signals_go_to_the_child(tmp_path: Path, architecture: str, number: int, status: int) -> None:
    process = start(tmp_path, architecture, ["/bin/sh"], "sh", "-c", "trap 'exit 5' TERM; echo r; while :; do :; done")
    assert process.stdout is not None
    assert process.stdout.readline() == b"r\n"
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == status


def test_what_cannot_be_run(tmp_path: Path, architecture: str) -> None:
    missing = start(tmp_path, architecture, ["/nosuch", "/nosuch/either"], "prog")
    assert missing.communicate(timeout=20)[1] == b"[FATAL docker-init] exec prog failed: No such file or directory\n"
    assert missing.returncode == 127
    forbidden = start(tmp_path, architecture, ["/etc/passwd", "/nosuch"], "prog")
    assert b"Permission denied" in forbidden.communicate(timeout=20)[1]
    assert forbidden.returncode == 126


def test_what_is_held_in_memory_cannot_be_written() -> None:
    fd = elf.sealed("x", init.build("sh", ["/bin/sh"], "x86_64"))
    try:
        assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & elf.SEALS == elf.SEALS
        with contextlib.suppress(OSError):
            writable = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
            try:
                with pytest.raises(PermissionError):
                    os.write(writable, b"x")
            finally:
                os.close(writable)
    finally:
        os.close(fd)


def test_a_springboard_makes_the_calls_of_its_list_in_order(tmp_path: Path) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("its list is made of x86_64's numbers")
    from wherry.runtime.machine.springboard import FAILED, MAGIC, SystemCall, build

    def run(calls: Sequence[SystemCall], data: elf.Data) -> tuple[int, bytes]:
        program = tmp_path / "board"
        program.write_bytes(build(calls, data, b"m" * MAGIC))
        program.chmod(0o755)
        done = subprocess.run([str(program)], stdout=subprocess.PIPE, timeout=20, check=False)
        program.unlink()
        return done.returncode, done.stdout

    data = elf.Data()
    say = {word: SystemCall(1, (1, data.text(word), 1)) for word in "abc"}
    missing = SystemCall(59, (data.text("/nosuch"), 0, 0), may_fail=True)
    become = SystemCall(59, (data.text("/bin/echo"), data.texts(("echo", "end")), data.texts(())))
    skipping = say["a"]._replace(skip=1)
    assert run((skipping, say["b"], missing._replace(skip=1), say["c"], become), data) == (0, b"acend\n")
    status, said = run((say["a"], missing._replace(may_fail=False), say["b"]), data)
    assert (status, said[: 1 + MAGIC]) == (FAILED, b"a" + b"m" * MAGIC)
    assert int.from_bytes(said[-8:], "little", signed=True) == -2
