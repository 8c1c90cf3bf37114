"""Dockerfiles that between them use all of the language, what each is built with, and what came of it on dockerd.

`dockerfiles/<name>.Dockerfile` is built on the context that `make_context` makes, with "base" for a busybox image with
a few accounts. `dockerfiles/expected.json` is what Docker Engine 28.5.2 made of it (BuildKit), written by running this
file: python tests/interop/build_cases.py COMMAND... where COMMAND is docker with its flags. BUILD_CASES="a b" does only
these.
"""

import gzip
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).with_name("dockerfiles")
EXPECTED = DIRECTORY / "expected.json"
FLAGS: dict[str, list[str]] = {
    "arg-given": ["--build-arg", "GIVEN=b", "--build-arg", "OTHER=c"],
    "arg-proxy": ["--build-arg", "HTTP_PROXY=http://p:1", "--build-arg", "NO_PROXY=x"],
    "label": ["--label", "cli=yes", "--label", "a=3"],
    "run-mount-secret": ["--secret", "id=given,src={scratch}/secret"],
    "build-context": ["--build-context", "named=docker-image://base"],
    "buildkit-args": ["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=boxed"],
    "epoch": ["--build-arg", "SOURCE_DATE_EPOCH=1700000000"],
}
NEWER = {"parents", "add-unpack-no", "run-security", "syntax", "from-scratch-empty"}
"""Docker Engine 28.5 by itself cannot: flags newer than its stable frontend, a frontend from a registry, a save of
an image without layers."""
_PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n"
_GROUP = "root:x:0:\napp:x:1001:\nextra:x:1500:app\n"


def names() -> list[str]:
    return sorted(path.stem for path in DIRECTORY.glob("*.Dockerfile"))


def make_base(busybox: Path, out: Path) -> None:
    """busybox's root file system with accounts."""
    with tarfile.open(busybox) as source, tarfile.open(out, "w") as target:
        for member in source:
            if member.name.lstrip("./") not in ("etc/passwd", "etc/group"):
                target.addfile(member, source.extractfile(member) if member.isfile() else None)
        for name, text in (("etc/passwd", _PASSWD), ("etc/group", _GROUP)):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            target.addfile(info, io.BytesIO(text.encode()))


def make_context(root: Path) -> None:
    """The files the Dockerfiles take. Times are whole seconds of the past."""
    for directory in ("tree/deep/er", "links", "skipped/in", "src"):
        (root / directory).mkdir(parents=True)
    files = {
        "notes.txt": "notes\n",
        "with space.txt": "space\n",
        "run.sh": "#!/bin/sh\n",
        "tree/a.md": "a\n",
        "tree/b.txt": "b\n",
        "tree/deep/er/g": "g\n",
        "tree/deep/h.md": "h\n",
        "skipped/in/x.log": "x\n",
        "skipped/keep.log": "k\n",
        "src/main.c": "int main;\n",
        "src/main.o": "o\n",
    }
    for name, text in files.items():
        (root / name).write_text(text)
        (root / name).chmod(0o644)
    (root / "run.sh").chmod(0o755)
    (root / "tree/deep").chmod(0o750)
    (root / "tree/deep/er/g").chmod(0o4755)
    (root / "links/file").symlink_to("../tree/deep/er/g")
    (root / "links/dir").symlink_to("../tree/deep")
    (root / "links/absolute").symlink_to("/etc/passwd")
    (root / ".dockerignore").write_text("# no\nskipped/*\n!skipped/keep.log\n**/*.o\n.docker*\n")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in ("tree/a.md", "tree/deep/er/g", "links/file", "notes.txt"):
            tar.add(root / name, name, filter=_plain)
    (root / "arc.tgz").write_bytes(gzip.compress(packed.getvalue(), mtime=0))
    for path in [*sorted(root.rglob("*"), reverse=True), root]:
        os.utime(path, (1_600_000_000, 1_600_000_000), follow_symlinks=False)


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 3
    info.mtime = 1_600_000_000
    info.uname = info.gname = ""
    return info


def describe(archive: bytes, base_layers: int) -> dict[str, Any]:
    """A saved image without what is different each time: its configuration, its history, the trees of its layers."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        (manifest,) = json.loads(_member(tar, "manifest.json"))
        config = json.loads(_member(tar, manifest["Config"]))
        layers = [_tree(_member(tar, name)) for name in manifest["Layers"]]
    history = [
        [step.get("created_by", ""), step.get("comment", ""), bool(step.get("empty_layer"))]
        for step in config.pop("history")[1 if base_layers else 0 :]
    ]
    config.pop("created", None)
    config.pop("rootfs")
    return {"config": config, "history": history, "layers": layers[base_layers:]}


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()


def _tree(data: bytes) -> dict[str, list[Any]]:
    """path: [kind, mode, uid, gid, link or content]; directories that only a mount point touched are left out."""
    found: dict[str, list[Any]] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for entry in tar:
            name = entry.name.strip("/").removeprefix("./")
            if not name or name in ("dev", "proc", "sys"):
                continue
            content: Any = entry.linkname
            if entry.isfile():
                file = tar.extractfile(entry)
                content = file.read(4096).decode("latin-1") if file else ""
            mode = 0 if ".wh." in name else stat.S_IMODE(entry.mode)
            found[name] = [entry.type.decode(), mode, entry.uid, entry.gid, content]
    # Hard links may be written in either order.
    for name, row in list(found.items()):
        if row[0] == "1":
            found[name] = [*found[row[4].strip("/")][:4], "linked"]
            found[row[4].strip("/")][4] = "linked"
    kept = {name for name in found if not (name == "etc" and found[name][0] == "5")}
    if any(name.startswith("etc/") for name in found):
        kept.add("etc")
    return {name: found[name] for name in sorted(kept)}


def build_all(docker: Sequence[str], scratch: Path, busybox: Path) -> dict[str, Any]:
    """Build every case with a docker or wherry command line; what came of each."""
    import_base(docker, scratch, busybox)
    (scratch / "secret").write_text("hush")
    (scratch / "context").mkdir()
    make_context(scratch / "context")
    wanted = os.environ.get("BUILD_CASES", "").split() or names()
    return {name: build(docker, scratch, name) for name in wanted}


def import_base(docker: Sequence[str], scratch: Path, busybox: Path) -> None:
    """The image "base"."""
    make_base(busybox, scratch / "base.tar")
    run = [*docker, "import", "-c", "ENV PATH=/bin:/usr/bin", "-c", 'CMD ["sh"]', str(scratch / "base.tar"), "base"]
    subprocess.run(run, check=True, stdout=subprocess.PIPE)


def build(docker: Sequence[str], scratch: Path, name: str) -> Any:
    """One case: what came of it, or why nothing did."""
    flags = [flag.format(scratch=scratch) for flag in FLAGS.get(name, [])]
    tag = f"build-case-{name}"
    # Inside the context: its name is no part of what is compared, and the ignore file hides it.
    dockerfile = scratch / "context" / f".dockerfile-{name}"
    dockerfile.write_bytes((DIRECTORY / f"{name}.Dockerfile").read_bytes())
    os.utime(scratch / "context", (1_600_000_000, 1_600_000_000))
    command = [*docker, "build", "-q", "-t", tag, *flags, "-f", str(dockerfile), str(scratch / "context")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    dockerfile.unlink()
    if done.returncode:
        return {"failed": done.stderr[-2000:]}
    saved = subprocess.run([*docker, "save", tag], capture_output=True, check=False)
    subprocess.run([*docker, "rmi", tag], capture_output=True, check=False)
    if saved.returncode:
        return {"unsaved": saved.stderr.decode()[-200:]}
    return describe(saved.stdout, 0 if name.startswith("from-scratch") or name == "multi-stage" else 1)


def main() -> None:
    from daemon import busybox_tar  # type: ignore[import-not-found]

    place = os.environ.get("BUILD_CASES_SCRATCH")
    with tempfile.TemporaryDirectory(dir=place) as scratch:
        found = build_all(sys.argv[1:], Path(scratch), busybox_tar())
    known = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}
    EXPECTED.write_text(json.dumps({**known, **found}, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
