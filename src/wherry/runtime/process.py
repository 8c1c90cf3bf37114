"""The process itself: limits, identity, capabilities, and the executable (runtime-spec config.md#process)."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import errno
import fcntl
import os
import resource
import stat
import termios

from wherry.kernel import capabilities, processes, syscalls
from wherry.kernel.processes import PR_SET_KEEPCAPS, PR_SET_NO_NEW_PRIVS, prctl
from wherry.runtime.scene import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    from wherry.runtime.scene import Scene
else:
    from wherry.kernel.tuples import NamedTuple

_KEYCTL_JOIN_SESSION_KEYRING = 1


class Streams(NamedTuple):
    """A session of its own, standard streams, and with a terminal its control."""

    uid: int
    terminal: bool

    def describe(self) -> str:
        return "set up the standard streams"

    def apply(self, scene: Scene) -> None:
        os.setsid()
        if self.terminal:
            fcntl.ioctl(scene.console, termios.TIOCSCTTY, 0)
            sources = (scene.console,) * 3
        else:
            sources = tuple([scene.null if fd < 0 else fd for fd in scene.stdio])  # type: ignore[assignment]
        # Out of the way of 0..2 first, or one dup2 could overwrite the source of the next.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in sources]
        for number, fd in enumerate(high):
            os.dup2(fd, number)
            if self.uid and not self.terminal and fd not in (-1, scene.null):
                self._own(number)
        for fd in high:
            os.close(fd)

    def _own(self, fd: int) -> None:
        """/dev/stdout of an unprivileged user can be opened again only by its owner."""
        info = os.fstat(fd)
        if stat.S_ISFIFO(info.st_mode) and info.st_uid != self.uid:
            try:
                os.fchown(fd, self.uid, -1)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EINVAL, errno.EROFS):
                    raise


class Keyring(NamedTuple):
    """A session keyring of its own, so that the caller's keys are out of reach."""

    name: str

    def describe(self) -> str:
        return "join a session keyring"

    def apply(self, scene: Scene) -> None:
        try:
            syscalls.syscall(syscalls.NR_KEYCTL, "keyctl", None, _KEYCTL_JOIN_SESSION_KEYRING, self.name.encode())
        except OSError as error:
            # ENOSYS: built without keys. EDQUOT: the owner's quota; running with the caller's keyring would be worse
            # than failing, and a new session already has none of a login's.
            if error.errno != errno.ENOSYS:
                raise


class Rlimits(NamedTuple):
    """(resource number, name, soft, hard). Hard limits that cannot be raised are clamped, with a warning."""

    limits: tuple[tuple[int, str, int, int], ...]

    def describe(self) -> str:
        return "set resource limits"

    def apply(self, scene: Scene) -> None:
        for number, name, soft, hard in self.limits:
            try:
                resource.setrlimit(number, (soft, hard))
            except (ValueError, PermissionError):
                top = resource.getrlimit(number)[1]
                wanted = soft if soft != resource.RLIM_INFINITY and soft < top else top
                resource.setrlimit(number, (wanted, top))
                scene.warn(f"{name} {soft}:{hard} needs CAP_SYS_RESOURCE; limited to {wanted}:{top}")


class Schedule(NamedTuple):
    """I/O priority (class, level) or None; personality or -1."""

    io: tuple[int, int] | None
    personality: int

    def describe(self) -> str:
        return "set I/O priority and execution domain"

    def apply(self, scene: Scene) -> None:
        if self.io is not None:
            nr = 30 if syscalls.ARCH != "x86_64" else 251  # ioprio_set
            syscalls.syscall(nr, "ioprio_set", None, 1, 0, self.io[0] << 13 | self.io[1])
        if self.personality >= 0:
            syscalls.syscall(syscalls.NR_PERSONALITY, "personality", None, self.personality)


class CapabilitySets(NamedTuple):
    """Bit masks; None in a configuration means none of them (runtime-spec: empty)."""

    bounding: int = 0
    effective: int = 0
    inheritable: int = 0
    permitted: int = 0
    ambient: int = 0


class WorkingDirectory(NamedTuple):
    """Go to the working directory before a filter is installed, which may deny what that takes; see Identity."""

    cwd: str

    def describe(self) -> str:
        return "go to the working directory"

    def apply(self, scene: Scene) -> None:
        scene.inside = _try_chdir(self.cwd)
        if scene.inside:
            _require_inside(self.cwd)


def _try_chdir(cwd: str) -> bool:
    """As root, who may reach what the user may not; a network file system may say the opposite, see _chdir."""
    try:
        os.chdir(cwd)
    except OSError:
        return False
    return True


def _chdir(cwd: str) -> None:
    try:
        os.chdir(cwd)
    except OSError as error:
        text = f'chdir to cwd ("{cwd}") set in config.json failed: {os.strerror(error.errno or 0).lower()}'
        raise Refused("InvalidArgument", text)


def _require_inside(cwd: str) -> None:
    """A working directory outside of the root, through a leaked descriptor, has no path (CVE-2024-21626)."""
    try:
        inside = os.getcwd().startswith("/")
    except FileNotFoundError:
        inside = False
    if not inside:
        raise Refused("InvalidArgument", f"working directory {cwd!r} is outside of the container's root")


class Confine(NamedTuple):
    """Enter an AppArmor profile at exec."""

    profile: str

    def describe(self) -> str:
        return f"apply the AppArmor profile {self.profile}"

    def apply(self, scene: Scene) -> None:
        try:
            os.write(scene.confinement, f"exec {self.profile}".encode())
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            raise Refused("FailedPrecondition", f"the AppArmor profile {self.profile!r} is not loaded")
        os.close(scene.confinement)


class Identity(NamedTuple):
    """User, groups, umask, working directory, capabilities; in the order in which each is still allowed."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    umask: int
    cwd: str
    sets: CapabilitySets
    present: int  # bounding set of the runtime itself
    drops: tuple[int, ...]  # what of it goes
    no_new_privs: bool
    set_groups: bool = True

    def describe(self) -> str:
        return "take on the process's identity"

    def apply(self, scene: Scene) -> None:
        os.umask(self.umask)
        capabilities.drop_bounding(self.drops)
        if self.uid:
            prctl(PR_SET_KEEPCAPS, 1)
        if self.set_groups:
            os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, self.gid)
        early = scene.inside or _try_chdir(self.cwd)
        os.setresuid(self.uid, self.uid, self.uid)
        # setresuid from 0 makes a process dumpable state as /proc/sys/fs/suid_dumpable says: not traceable, please.
        prctl(processes.PR_SET_DUMPABLE, 0)
        capabilities.put(self.sets.permitted & self.present, self.sets.permitted & self.present, self._inheritable())
        if self.sets.ambient:
            capabilities.set_ambient(self.sets.ambient & self.sets.permitted & self.sets.inheritable & self.present)
        if not early:
            _chdir(self.cwd)
        if not scene.inside:
            _require_inside(self.cwd)
        if self.no_new_privs:
            prctl(PR_SET_NO_NEW_PRIVS, 1)
        # Effective last: what is above may need what the process itself shall not have.
        if self.sets.effective != self.sets.permitted:
            allowed = self.sets.permitted & self.present
            capabilities.put(self.sets.effective & allowed, allowed, self._inheritable())

    def _inheritable(self) -> int:
        return self.sets.inheritable & self.present


class Seccomp(NamedTuple):
    """Install a compiled filter."""

    program: bytes
    flags: int

    def describe(self) -> str:
        return "install the seccomp filter"

    def apply(self, scene: Scene) -> None:
        from wherry.kernel import seccomp

        seccomp.install(self.program, self.flags)


class AwaitStart(NamedTuple):
    """Created, and waiting: whoever connects to the start socket lets the process run and learns how that went.

    A program that is not there is an error of create, as with other runtimes: their callers look for it there.
    """

    program: str
    path: str

    def describe(self) -> str:
        return "wait for start"

    def apply(self, scene: Scene) -> None:
        import _socket

        if "/" not in self.program or self.program[0] == "/":  # else it depends on the working directory, set later
            find_executable(self.program, self.path)
        scene.tell({"created": True})
        listener = _socket.socket(fileno=scene.start_socket)
        fd, _ = listener._accept()  # type: ignore[attr-defined]
        scene.channel.close()
        scene.channel = _socket.socket(fileno=fd)
        listener.close()


def inherit_signals() -> None:
    """Python ignores some, a caller may have blocked others, and both would outlast exec."""
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(number, _signal.SIG_DFL)


class SealDescriptors(NamedTuple):
    """Whatever descriptor was inherited from whoever started us ends at exec (CVE-2024-21626)."""

    def describe(self) -> str:
        return "close inherited descriptors"

    def apply(self, scene: Scene) -> None:
        processes.close_range(3 + scene.preserve, flags=processes.CLOSE_RANGE_CLOEXEC)


class Execute(NamedTuple):
    """Become the container's program."""

    args: tuple[str, ...]
    env: dict[str, str]

    def describe(self) -> str:
        return f"exec: {_quote(self.args[0])}"

    def apply(self, scene: Scene) -> None:
        inherit_signals()
        program = find_executable(self.args[0], self.env.get("PATH", ""))
        try:
            os.execve(program, self.args, self.env)
        except OSError as error:
            raise _explain(self.args[0], error)


def _quote(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _explain(name: str, error: OSError) -> Refused:
    text = os.strerror(error.errno or 0).lower()
    kind = {
        errno.ENOENT: "NotFound",
        errno.ENOTDIR: "NotFound",
        errno.EACCES: "PermissionDenied",
        errno.ENOEXEC: "PermissionDenied",
        errno.EISDIR: "PermissionDenied",
        errno.EPERM: "PermissionDenied",
    }.get(error.errno or 0, "Internal")
    return Refused(kind, f"exec: {_quote(name)}: {text}")


def find_executable(name: str, path: str) -> str:
    """Where `name` is, by the container's own PATH; Refused in the words of other runtimes, which clients look for."""
    if "/" in name:
        try:
            info = os.stat(name)
        except OSError as error:
            text = os.strerror(error.errno or 0).lower()
            kind = "PermissionDenied" if error.errno == errno.EACCES else "NotFound"
            raise Refused(kind, f"exec: {_quote(name)}: stat {name}: {text}")
        if stat.S_ISDIR(info.st_mode):
            raise Refused("PermissionDenied", f"exec: {_quote(name)}: is a directory: permission denied")
        if not info.st_mode & 0o111:
            raise Refused("PermissionDenied", f"exec: {_quote(name)}: permission denied")
        return name
    for directory in path.split(":"):
        candidate = f"{directory or '.'}/{name}"
        try:
            info = os.stat(candidate)
        except OSError:
            continue
        if stat.S_ISREG(info.st_mode) and info.st_mode & 0o111:
            return candidate
    raise Refused("NotFound", f"exec: {_quote(name)}: executable file not found in $PATH")
