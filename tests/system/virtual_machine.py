"""A virtual machine for tests: a Debian cloud kernel, an initramfs of chosen files, a Python program as init.

    machine = VirtualMachine(cache)                  # Unobtainable when this machine cannot have one
    output = machine.run(files={"/suite.py": Path(...)}, program="/suite.py", timeout=60)

The kernel and QEMU come from the distribution's packages, downloaded and unpacked into `cache`, never installed. QEMU
translates (no KVM is needed): a boot takes about two seconds.
"""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

_KERNEL_PACKAGE, _QEMU_PACKAGE = "linux-image-cloud-amd64", "qemu-system-x86"
# Run first in the guest: what an init system would mount.
_INIT = b"""
import ctypes, os, runpy, sys, traceback
libc = ctypes.CDLL(None)
def mount(source, target, kind=None, flags=0, options=None):
    os.makedirs(target, exist_ok=True)
    if libc.mount(source.encode(), target.encode(), kind and kind.encode(), flags, options):
        raise OSError(target)
# The initial ramdisk cannot be pivoted away from: a root of another kind over it, with the same directories.
mount("tmpfs", "/root-mount", "tmpfs")
for name in os.listdir("/"):
    if os.path.isdir("/" + name) and name not in ("root-mount", "dev", "proc", "sys", "tmp", "run"):
        mount("/" + name, "/root-mount/" + name, None, 4096)
    elif os.path.isfile("/" + name):
        with open("/" + name, "rb") as source, open("/root-mount/" + name, "wb") as copy:
            copy.write(source.read())
os.chdir("/root-mount")
mount(".", "/", None, 8192)
os.chroot(".")
os.chdir("/")
for kind, target in (("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/tmp"), ("tmpfs", "/run")):
    mount(kind, target, kind)
mount("devpts", "/dev/pts", "devpts", 0, b"newinstance,ptmxmode=0666,mode=0620")
mount("tmpfs", "/dev/shm", "tmpfs")
mount("cgroup2", "/sys/fs/cgroup", "cgroup2")
os.environ.update(PATH=os.path.dirname(sys.executable) + ":/bin:/usr/bin:/sbin", HOME="/root")
console = os.open("/dev/console", os.O_RDWR)
for fd in (0, 1, 2):
    os.dup2(console, fd)
program = sys.argv[-1]
try:
    sys.path[:0] = [os.path.dirname(program), "/wherry"]
    sys.argv = [program]
    runpy.run_path(program, run_name="__main__")
except SystemExit:
    pass
except BaseException:
    traceback.print_exc()
sys.stdout.flush()
print("END OF PROGRAM", flush=True)
open("/proc/sysrq-trigger", "w").write("o")
os.sync()
while True:
    try:
        os.wait()
    except ChildProcessError:
        import time
        time.sleep(1)
"""


class Unobtainable(Exception):
    """Why there is no virtual machine here."""


class VirtualMachine:
    """One kernel and one QEMU, ready to boot."""

    def __init__(self, cache: Path) -> None:
        if os.uname().machine != "x86_64":
            raise Unobtainable("the kernel package is for x86_64")
        for tool in ("apt-get", "dpkg-deb"):
            if shutil.which(tool) is None:
                raise Unobtainable(f"{tool} is not there to get packages with")
        self._kernel = _kernel(cache / "kernel")
        self._qemu = _qemu(cache / "qemu")

    def run(self, files: Mapping[str, Path | bytes], program: str, *, timeout: float, memory: int = 256) -> str:
        """Boot with `files` (host path or content by guest path) and Python, run `program`; all it printed."""
        everything = dict(_python())
        everything.update(files)
        everything["/init.py"] = _INIT
        image = Path(self._scratch(), f"initramfs-{os.getpid()}.cpio")
        image.write_bytes(archive(everything))
        python = f"{sys.base_prefix}/bin/python3"
        command = [
            *self._qemu,
            *(
                "-accel",
                "tcg",
                "-cpu",
                "max",
                "-m",
                str(memory),
                "-smp",
                "1",
                "-nographic",
                "-no-reboot",
                "-nodefaults",
            ),
            *("-serial", "stdio", "-kernel", str(self._kernel), "-initrd", str(image), "-append"),
            f"console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off rdinit={python} -- -ISu /init.py {program}",
        ]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False)
        finally:
            image.unlink()
        output = done.stdout.decode(errors="replace").replace("\r\n", "\n")
        if "END OF PROGRAM" not in output:
            raise AssertionError(f"the machine died: {output[-4000:]}\n{done.stderr.decode()[-2000:]}")
        return output

    def _scratch(self) -> Path:
        return self._kernel.parent


def _run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode != 0:
        raise Unobtainable(f"{' '.join(command[:3])}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    return done.stdout


def _unpacked(packages: Iterable[str], directory: Path) -> Path:
    """Download and unpack packages; a directory that is there is complete."""
    if not directory.exists():
        partial = directory.with_name(f"{directory.name}.{os.getpid()}")
        (partial / "packages").mkdir(parents=True)
        try:
            _run("apt-get", "download", "-q", *packages, cwd=partial / "packages")
            for package in (partial / "packages").glob("*.deb"):
                _run("dpkg-deb", "--extract", str(package), str(partial / "root"))
                package.unlink()
            if not directory.exists():  # another test process may have been faster
                partial.rename(directory)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return directory / "root"


def _kernel(cache: Path) -> Path:
    names = [
        line.split()[-1]
        for line in _run("apt-cache", "depends", _KERNEL_PACKAGE).splitlines()
        if "Depends: linux-image" in line
    ]
    if not names:
        raise Unobtainable(f"no package {_KERNEL_PACKAGE}")
    found = sorted(_unpacked(names, cache / names[0]).glob("boot/vmlinuz-*"))
    if not found:
        raise Unobtainable(f"{names[0]} holds no kernel")
    return found[-1]


def _qemu(cache: Path) -> list[str]:
    installed = shutil.which("qemu-system-x86_64")
    if installed:
        return [installed]
    # What an installation would bring, without installing: "Inst NAME (VERSION ...)".
    plan = _run("apt-get", "install", "--no-install-recommends", "--simulate", "-qq", _QEMU_PACKAGE)
    packages = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    root = _unpacked(packages, cache)
    libraries = [str(path) for path in (root / "usr/lib/x86_64-linux-gnu", root / "lib/x86_64-linux-gnu")]
    environment = ["env", "LD_LIBRARY_PATH=" + ":".join(libraries)]
    data = [option for name in ("seabios", "qemu") for option in ("-L", str(root / "usr/share" / name))]
    return [*environment, str(root / "usr/bin/qemu-system-x86_64"), *data]


_NEEDLESS = {
    "test",
    "idlelib",
    "tkinter",
    "lib2to3",
    "ensurepip",
    "site-packages",
    "turtledemo",
    "pydoc_data",
    "asyncio",
}
# Every byte is copied by a translated processor: only the extension modules that system programs use.
_EXTENSIONS = (
    "_ctypes",
    "_struct",
    "_posixsubprocess",
    "_random",
    "_sha",
    "_socket",
    "array",
    "binascii",
    "fcntl",
    "grp",
)
_EXTENSIONS += (
    "math",
    "mmap",
    "resource",
    "select",
    "termios",
    "zlib",
    "_json",
    "_blake2",
    "_md5",
    "_bisect",
    "_heapq",
)


def _python() -> dict[str, Path]:
    """This Python: interpreter, standard library, some extension modules, and the shared libraries they need."""
    prefix = Path(sys.base_prefix)
    library = prefix / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    binaries = {f"{prefix}/bin/python3": Path(os.path.realpath(prefix / "bin/python3"))}
    for path in (library / "lib-dynload").glob("*.so"):
        if path.name.startswith(_EXTENSIONS):
            binaries[str(path)] = path
    modules = {
        str(path): path
        for path in library.rglob("*.py")
        if not _NEEDLESS.intersection(path.relative_to(library).parts) and not path.name.startswith("_sysconfig")
    }
    return binaries | modules | shared_libraries(binaries.values())


def shared_libraries(binaries: Iterable[Path]) -> dict[str, Path]:
    """The shared libraries of ELF files, at their own paths."""
    found = {}
    for line in subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=False).stdout.splitlines():
        path = next((word for word in line.split() if word.startswith("/") and not word.endswith(":")), None)
        if path:
            found[path] = Path(os.path.realpath(path))
    return found


def archive(files: Mapping[str, Path | bytes]) -> bytes:
    """A cpio archive (newc, as the kernel unpacks it) of `files` by absolute path, with their directories."""
    parts: list[bytes] = []
    known: set[str] = set()

    def add(name: str, mode: int, content: bytes) -> None:
        fields = (len(parts) + 1, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        parts.extend(piece + b"\0" * (-len(piece) % 4) for piece in (header + name.encode() + b"\0", content))

    def add_parents(name: str) -> None:
        parent = os.path.dirname(name)
        if parent and parent not in known:
            add_parents(parent)
            known.add(parent)
            add(parent, stat.S_IFDIR | 0o755, b"")

    for path, source in sorted(files.items()):
        name = path.lstrip("/")
        add_parents(name)
        executable = isinstance(source, Path) and os.access(source, os.X_OK)
        content = source if isinstance(source, bytes) else source.read_bytes()
        add(name, stat.S_IFREG | (0o755 if executable else 0o644), content)
    add("TRAILER!!!", 0, b"")
    return b"".join(parts)
