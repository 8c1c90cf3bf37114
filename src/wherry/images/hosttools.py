"""The host's own package tools, run as commands: apt-get, dpkg-deb, debootstrap."""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from wherry.errors import FailedPrecondition, Internal

_TIMEOUT_SECONDS = 1800


def require_tool(name: str, package: str) -> str:
    """The path of a tool; FailedPrecondition naming the package that has it."""
    # debootstrap lives in /usr/sbin, which an ordinary user's PATH lacks.
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        raise FailedPrecondition(f"{name} is not installed", object=name, hint=f"apt-get install {package}")
    return found


def run_tool(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    environ: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> str:
    """Run a tool to its end and return its output; Internal with its last lines when it fails."""
    environ = dict(environ or {}) | {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
    }
    environ |= {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    lines: list[str] = []
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.append(line.rstrip())
                if on_line is not None:
                    on_line(lines[-1])
            status = process.wait(_TIMEOUT_SECONDS)
        except BaseException:
            process.kill()
            raise
    if status != 0:
        tail = "; ".join(lines[-3:])
        raise Internal(f"{Path(command[0]).name} failed with status {status}: {tail}", object=command[0])
    return "\n".join(lines)


def download_package(name: str, scratch: Path, *, branch: str | None = None) -> Path:
    """Fetch one .deb by the host's apt configuration (and its signatures) into `scratch`; returns its path.

    Where the host's releases have no such package, `branch` of the same archive is asked.
    """
    apt = require_tool("apt-get", "apt")
    # The download runs in a directory of root's own, where apt's unprivileged user could not write.
    options = ["-q", "-o", "APT::Sandbox::User=root"]
    target = scratch / "download"
    target.mkdir(parents=True, exist_ok=True)
    try:
        run_tool([apt, *options, "download", name], cwd=target)
    except Internal:
        # No package lists on this host (a fresh image): fetch them privately, the host's stay as they are.
        private = [*options, *_private_lists(scratch, branch)]
        run_tool([apt, *private, "update"], cwd=target)
        run_tool([apt, *private, "download", name], cwd=target)
    found = sorted(target.glob(f"{name}_*.deb"))
    if not found:
        raise Internal(f"apt-get download {name} left no package", object=name)
    return found[-1]


def unpack_package(deb: Path, target: Path) -> None:
    """Extract a .deb's files (no scripts are run)."""
    target.mkdir(parents=True, exist_ok=True)
    run_tool([require_tool("dpkg-deb", "dpkg"), "-x", str(deb), str(target)])


def _private_lists(scratch: Path, branch: str | None) -> list[str]:
    """apt options for package lists of our own, of the host's releases or of one branch of its archive."""
    lists = scratch / "lists"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    options = ["-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={scratch}/cache"]
    (scratch / "cache/archives/partial").mkdir(parents=True, exist_ok=True)
    if branch is None:
        return options
    archive = _own_archive()
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (scratch / "branch.list").write_text(f"deb [signed-by={keyring}] {archive} {branch} main\n")
    return [*options, "-o", f"Dir::Etc::SourceList={scratch}/branch.list", "-o", "Dir::Etc::SourceParts=/dev/null"]


def _own_archive() -> str:
    listed = run_tool(
        [require_tool("apt-get", "apt"), "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    )
    for address in listed.splitlines():
        if address.rstrip("/").endswith("/debian"):
            return address
    raise FailedPrecondition("this host's apt configuration names no Debian archive", object="apt")
