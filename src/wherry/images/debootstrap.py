"""A Debian or Ubuntu root file system by debootstrap, from the mirror the host itself uses, cleaned and packed.

debootstrap mounts and chroots. It runs in mount and pid namespaces of its own and dies with this process, so that
an interruption leaves a scratch directory and nothing else.
"""

import os
import shutil
import stat
import tarfile
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO

from wherry.errors import FailedPrecondition, WherryError
from wherry.images.hosttools import download_package, require_tool, run_tool, unpack_package
from wherry.images.suites import Suite

_SCRIPTS = Path("/usr/share/debootstrap")
_KEYRINGS = {"debian": "debian-archive-keyring.gpg", "ubuntu": "ubuntu-archive-keyring.gpg"}
_KEYRING_PACKAGES = {"debian": "debian-archive-keyring", "ubuntu": "ubuntu-keyring"}
# debootstrap knows a release by a script of its name; newer releases are linked to these.
_SCRIPT_OF = {"debian": "sid", "ubuntu": "gutsy"}

# Emptied: the host's identity, what apt and ldconfig can make again, what a run left behind.
_EMPTIED_DIRECTORIES = ("dev", "run", "tmp", "var/tmp", "var/lib/apt/lists", "var/cache/apt", "var/cache/ldconfig")
_EMPTIED_FILES = ("etc/machine-id", "etc/hostname", "etc/resolv.conf")
_REMOVED_FILES = ("var/cache/debconf/config.dat-old", "var/cache/debconf/templates.dat-old", "var/lib/dpkg/status-old")
_SLIM_DIRECTORIES = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/groff")
_APT_CLEAN = "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"
_APT_SETTINGS = f"""\
// A container image: nothing downloaded is kept, package lists stay packed, no translations.
DPkg::Post-Invoke {{ "{_APT_CLEAN}"; }};
APT::Update::Post-Invoke {{ "{_APT_CLEAN}"; }};
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Acquire::Languages "none";
Acquire::GzipIndexes "true";
"""
_DPKG_SLIM = "".join(f"path-exclude /{directory}/*\n" for directory in _SLIM_DIRECTORIES)


def make_debian(suite: Suite, scratch: Path, out: BinaryIO, progress: Callable[[dict[str, Any]], None]) -> None:
    """Write the root file system as a tar. Takes minutes and network; `scratch` is a directory of the caller's."""
    if os.geteuid() != 0:
        raise FailedPrecondition("debootstrap needs root", object=suite.codename, hint="run the daemon as root")
    debootstrap = require_tool("debootstrap", "debootstrap")
    tree = scratch / "root"
    command = [
        require_tool("setpriv", "util-linux"),
        "--pdeathsig=KILL",
        require_tool("unshare", "util-linux"),
        "--mount",
        "--propagation=private",
        "--pid",
        "--fork",
        "--kill-child=KILL",
        debootstrap,
        "--variant=minbase",
        "--merged-usr",
        f"--keyring={_find_keyring(suite, scratch)}",
        suite.codename,
        str(tree),
    ]
    sources = find_sources(suite)
    if sources:
        command.append(sources[0][0])
    scripts = _copy_scripts(suite, scratch)
    run_tool(command, environ={"DEBOOTSTRAP_DIR": str(scripts)}, on_line=lambda line: _report(line, progress))
    epoch = _release_time(tree)
    _configure(tree, suite, sources)
    _clean(tree, slim=suite.slim)
    progress({"status": "Packing"})
    _pack(tree, out, epoch)


def find_sources(suite: Suite) -> list[tuple[str, str]]:
    """(address, release) of this host's own sources for a release: the main archive first, then updates and security.

    Empty when the host uses another distribution's: debootstrap knows its distribution's default.
    """
    format = "$(REPO_URI)|$(RELEASE)|$(ORIGIN)|$(LABEL)|$(COMPONENT)"
    try:
        listed = run_tool([require_tool("apt-get", "apt"), "indextargets", "--format", format, "Created-By: Packages"])
    except WherryError:
        return []
    main: list[str] = []
    extra: list[tuple[str, str]] = []
    for line in listed.splitlines():
        address, release, origin, label, component = (line.split("|") + [""] * 5)[:5]
        name = suite.distribution
        # Origin and label come from the signed release file, and are empty before the first `apt-get update`.
        if component != "main" or (origin or address.rstrip("/").rpartition("/")[2]).lower() != name:
            continue
        if release.startswith(f"{suite.codename}-") and (address, release) not in extra:
            extra.append((address, release))
        elif (label or origin or name).lower() == name and address not in main and "-security" not in release:
            main.append(address)
    return [(main[0], suite.codename), *extra] if main else []


def _find_keyring(suite: Suite, scratch: Path) -> Path:
    name = _KEYRINGS[suite.distribution]
    host = Path("/usr/share/keyrings") / name
    if host.exists():
        return host
    # Another distribution's keys, from this one's own signed archive; its newest branch has what its stable lacks.
    package = _KEYRING_PACKAGES[suite.distribution]
    target = scratch / "keyring"
    unpack_package(download_package(package, scratch, branch="unstable"), target)
    found = target / "usr/share/keyrings" / name
    if not found.exists():
        raise FailedPrecondition(f"no keys to verify {suite.distribution} with", hint=f"install the package {package}")
    return found


def _copy_scripts(suite: Suite, scratch: Path) -> Path:
    copy = scratch / "debootstrap"
    shutil.copytree(_SCRIPTS, copy, symlinks=True)
    script = copy / "scripts" / suite.codename
    if not script.exists():
        script.symlink_to(_SCRIPT_OF[suite.distribution])
    return copy


def _report(line: str, progress: Callable[[dict[str, Any]], None]) -> None:
    kind, _, text = line.partition(": ")
    if kind == "I":
        progress({"status": text})


def _release_time(tree: Path) -> int:
    """When the release's index was made (seconds since 1970): the same archive gives the same times in the image."""
    for index in sorted((tree / "var/lib/apt/lists").glob("*Release")):
        for line in index.read_text(errors="replace").splitlines():
            if line.startswith("Date: "):
                return int(parsedate_to_datetime(line.removeprefix("Date: ")).timestamp())
    return 0


def _configure(tree: Path, suite: Suite, sources: list[tuple[str, str]]) -> None:
    # The tree is a distribution's own, just made by its own tool: no link in it leads out on purpose of an attacker.
    (tree / "etc/apt/apt.conf.d/90container-image").write_text(_APT_SETTINGS)
    (tree / "etc/dpkg/dpkg.cfg.d").mkdir(exist_ok=True)
    (tree / "etc/dpkg/dpkg.cfg.d/90container-image").write_text(
        "force-unsafe-io\n" + (_DPKG_SLIM if suite.slim else "")
    )
    policy = tree / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\n# No init in a container: packages must not start services.\nexit 101\n")
    policy.chmod(0o755)
    if sources:
        components = "main" if suite.distribution == "debian" else "main universe"
        lines = [f"deb {address} {release} {components}\n" for address, release in sources]
        (tree / "etc/apt/sources.list").write_text("".join(lines))


def _clean(tree: Path, *, slim: bool) -> None:
    for directory in (*_EMPTIED_DIRECTORIES, *(_SLIM_DIRECTORIES if slim else ())):
        for entry in (tree / directory).glob("*"):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    for name in _REMOVED_FILES:
        (tree / name).unlink(missing_ok=True)
    for name in _EMPTIED_FILES:
        (tree / name).unlink(missing_ok=True)
        (tree / name).touch(0o644)
    # apt wants this one to be there.
    (tree / "var/cache/apt/archives/partial").mkdir(parents=True, exist_ok=True)
    for log in (tree / "var/log").rglob("*"):
        if log.is_file() and not log.is_symlink():
            os.truncate(log, 0)


def _pack(tree: Path, out: BinaryIO, epoch: int) -> None:
    def settle(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        entry.mtime = min(entry.mtime, epoch) if epoch else int(entry.mtime)
        entry.uname = entry.gname = ""
        return None if stat.S_ISSOCK(entry.mode) else entry

    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(os.listdir(tree)):
            # tarfile goes through directories in sorted order and recognises hard links by inode.
            tar.add(tree / name, name, filter=settle)
