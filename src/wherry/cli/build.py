"""`wherry build`."""

from __future__ import annotations

import os
import posix
import sys

from wherry.cli.flags import Command, StatusError
from wherry.client.codec import dumps
from wherry.errors import Conflict, NotFound, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from wherry.cli.build_context import Context
    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

_READ = 1 << 18
_NOT_BY_THIS = "the engine's classic endpoint has no way for it"
FLAGS = (
    ("add-host", "", "list", None, 'Add a custom host-to-IP mapping (format: "host:ip")'),
    ("allow", "", "list", None, "Allow an entitlement (network.host, security.insecure)"),
    ("build-arg", "", "list", None, "Set build-time variables"),
    ("build-context", "", "list", None, "Additional build contexts (e.g., name=docker-image://alpine)"),
    ("cache-from", "", "list", None, "Images of this engine whose layers count as cache"),
    ("cache-to", "", "list", None, "Cache export destinations"),
    ("cgroup-parent", "", "string", "", "Set the parent cgroup for the RUN instructions during build"),
    ("check", "", "bool", False, "Check the Dockerfile, build nothing"),
    ("cpu-period", "", "int", 0, "Limit the CPU CFS (Completely Fair Scheduler) period"),
    ("cpu-quota", "", "int", 0, "Limit the CPU CFS (Completely Fair Scheduler) quota"),
    ("cpu-shares", "c", "int", 0, "CPU shares (relative weight)"),
    ("cpuset-cpus", "", "string", "", "CPUs in which to allow execution (0-3, 0,1)"),
    ("cpuset-mems", "", "string", "", "MEMs in which to allow execution (0-3, 0,1)"),
    ("explain-cache", "", "bool", False, "Say of each step that was not cached what had changed"),
    ("file", "f", "string", "", 'Name of the Dockerfile (default: "PATH/Dockerfile"), - for standard input'),
    ("force-rm", "", "bool", False, "Accepted for docker's sake: intermediate containers never stay"),
    ("iidfile", "", "string", "", "Write the image ID to a file"),
    ("label", "", "list", None, "Set metadata for an image"),
    ("load", "", "bool", False, "Accepted for docker's sake: images are always loaded"),
    ("memory", "m", "bytes", 0, "Memory limit of each RUN step"),
    ("memory-swap", "", "bytes", 0, "Limit of memory and swap of each RUN step"),
    ("metadata-file", "", "string", "", "Write build result metadata to a file"),
    ("network", "", "string", "default", "Set the networking mode for the RUN instructions during build"),
    ("no-cache", "", "bool", False, "Do not use cache when building the image"),
    ("no-cache-filter", "", "strings", None, "Do not cache specified stages"),
    ("output", "o", "list", None, 'Output destination (format: "type=local,dest=path")'),
    ("platform", "", "string", "", "Set target platform for build"),
    ("progress", "", "string", "auto", "Type of progress output (auto, plain, tty, quiet, rawjson)"),
    ("provenance", "", "string", "", 'Shorthand for "--attest=type=provenance"'),
    ("pull", "", "bool", False, "Always attempt to pull all referenced images"),
    ("push", "", "bool", False, "Push the image when it is built"),
    ("quiet", "q", "bool", False, "Suppress the build output and print image ID on success"),
    ("rm", "", "bool", True, "Accepted for docker's sake: intermediate containers never stay"),
    ("sbom", "", "string", "", 'Shorthand for "--attest=type=sbom"'),
    ("secret", "", "list", None, 'Secret to expose to the build (format: "id=mysecret[,src=/local/secret]")'),
    ("shm-size", "", "bytes", 0, "Shared memory size for build containers"),
    ("ssh", "", "list", None, "SSH agent socket or keys to expose to the build"),
    ("tag", "t", "list", None, 'Image identifier (format: "[registry/]repository[:tag]")'),
    ("target", "", "string", "", "Set the target build stage to build"),
)
_REFUSED = {
    "cache-to": _NOT_BY_THIS,
    "output": _NOT_BY_THIS,
    "push": "push the image when it is built: wherry push",
    "sbom": "attestations are not made yet",
    "provenance": "attestations are not made yet",
    "ssh": _NOT_BY_THIS,
}


def build(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    where = arguments[0] if arguments else "."
    query = _query(flags)
    headers = [("X-Wherry-Progress", "events"), *_secrets(flags), *_registries(cli)]
    show = _Show(flags, where)
    if where == "-":
        return show.run(_from_stdin(cli, flags, query, headers))
    if _is_remote(where):
        query.append(("remote", where))
        query.append(("dockerfile", flags["file"] or "Dockerfile"))
        return show.run(cli.engine.messages("POST", "/build", query, None, headers))
    if not os.path.isdir(where):
        raise StatusError(f'unable to prepare context: path "{where}" not found', 1)
    return _from_directory(cli, flags, query, headers, where, show)


# -- where the context comes from ------------------------------------------------------------------------------------


def _from_directory(
    cli: Cli, flags: Flags, query: list[tuple[str, str]], headers: list[tuple[str, str]], where: str, show: _Show
) -> int:
    from wherry.cli.build_context import Context

    root = os.path.abspath(where)
    name, text = _dockerfile(root, flags["file"])
    context = Context(root, name if text is None else "")
    if text is not None:
        name = f".dockerfile.{os.urandom(10).hex()}"
        tar = context.tar(None, {name: text})
        content = [*headers, ("Content-Type", "application/x-tar")]
        return show.run(cli.engine.messages("POST", "/build", [*query, ("dockerfile", name)], tar, content))
    query.append(("dockerfile", name))
    manifest = context.manifest()
    import _hashlib

    digest = _hashlib.openssl_sha256(manifest).hexdigest()
    id = _hashlib.openssl_sha256(f"{os.uname().nodename}\0{root}".encode("utf-8", "surrogateescape")).hexdigest()[:32]
    show.prepared(context)
    query += [("context", id), ("contextdigest", digest)]
    for attempt in range(3):
        try:
            if attempt:
                _send(cli, id, context, manifest, digest)
            return show.run(cli.engine.messages("POST", "/build", query, b"", headers))
        except Conflict:
            if not attempt:
                raise
        except NotFound as error:
            if "the build context must be sent" not in error.message:
                raise
        if attempt:
            # Another build of this directory reads the context or changes it just now: one of our own.
            id = os.urandom(16).hex()
            query[-2] = ("context", id)
    raise StatusError("the build context could not be sent", 1)


def _send(cli: Cli, id: str, context: Context, manifest: bytes, digest: str) -> None:
    """Only what the engine does not have."""
    octets = [("Content-Type", "application/octet-stream")]
    wanted = cli.engine.finish(cli.engine.open("POST", f"/wherry/buildcontexts/{id}", (), manifest, octets))["wanted"]
    tar = [("Content-Type", "application/x-tar")]
    path = f"/wherry/buildcontexts/{id}"
    cli.engine.open("PUT", path, [("digest", digest)], context.tar(wanted), tar).read()


def _dockerfile(root: str, given: str) -> tuple[str, bytes | None]:
    """(its path in the context, None), or ("", its text) when it is not in the context."""
    if given == "-":
        return "", sys.stdin.buffer.read()
    path = os.path.abspath(given) if given else f"{root}/Dockerfile"
    if not given and not os.path.exists(path) and os.path.exists(f"{root}/dockerfile"):
        path = f"{root}/dockerfile"
    if path.startswith(root.rstrip("/") + "/") and not os.path.islink(path):
        if not os.path.isfile(path):
            raise StatusError(f"failed to read dockerfile: open {given or 'Dockerfile'}: no such file or directory", 1)
        return path[len(root.rstrip("/")) + 1 :], None
    try:
        with open(path, "rb") as file:
            return "", file.read()
    except OSError as error:
        raise StatusError(f"failed to read dockerfile: open {given}: {(error.strerror or '').lower()}", 1) from None


def _from_stdin(cli: Cli, flags: Flags, query: list[tuple[str, str]], headers: list[tuple[str, str]]) -> Iterator[Any]:
    """A tar as the context, or else a Dockerfile without one."""
    head = b""
    while len(head) < 512 and (block := posix.read(0, _READ)):
        head += block
    headers = [*headers, ("Content-Type", "application/x-tar")]
    packed = head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"))
    if packed or head[257:262] == b"ustar":
        query.append(("dockerfile", flags["file"] or "Dockerfile"))
        return cli.engine.messages("POST", "/build", query, _rest(head), headers)
    if flags["file"]:
        raise StatusError("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles", 1)
    from wherry.cli.build_context import header

    text = head + b"".join(_rest(b""))
    tar = header("Dockerfile", 0o600, len(text), 0, b"0") + text + b"\0" * (-len(text) % 512 + 1024)
    return cli.engine.messages("POST", "/build", query, tar, headers)


def _rest(head: bytes) -> Iterator[bytes]:
    if head:
        yield head
    while block := posix.read(0, _READ):
        yield block


def _is_remote(text: str) -> bool:
    return text.startswith(("http://", "https://", "git://", "git@", "ssh://"))


# -- what is asked ---------------------------------------------------------------------------------------------------


def _query(flags: Flags) -> list[tuple[str, str]]:
    query = [("t", name) for name in flags["tag"]]
    for name, pairs in (("buildargs", _arguments(flags["build-arg"])), ("labels", _pairs(flags["label"]))):
        if pairs:
            query.append((name, dumps(pairs)))
    if flags["build-context"]:
        query.append(("contexts", dumps(_pairs(flags["build-context"]))))
    if flags["add-host"]:
        query.append(("extrahosts", dumps([entry.replace("=", ":", 1) for entry in flags["add-host"]])))
    if flags["cache-from"]:
        query.append(("cachefrom", dumps([_image(text) for text in flags["cache-from"]])))
    texts = {
        "target": "target",
        "platform": "platform",
        "cgroupparent": "cgroup-parent",
        "networkmode": "network",
        "memory": "memory",
        "memswap": "memory-swap",
        "shmsize": "shm-size",
        "cpushares": "cpu-shares",
        "cpuperiod": "cpu-period",
        "cpuquota": "cpu-quota",
        "cpusetcpus": "cpuset-cpus",
        "cpusetmems": "cpuset-mems",
    }
    query += [(name, str(flags[flag])) for name, flag in texts.items() if flag in flags.changed]
    query += [("allow", name) for name in flags["allow"]]
    query += [("nocachefilter", name) for name in flags["no-cache-filter"]]
    query += [("nocache", "1")] if flags["no-cache"] else []
    query += [("pull", "1")] if flags["pull"] else []
    query += [("call", "check")] if flags["check"] else []
    return query


def _image(text: str) -> str:
    """Of --cache-from: an image's name, or type=registry,ref=NAME for one that is here."""
    if "=" not in text:
        return text
    fields = _pairs(text.split(","))
    if set(fields) != {"type", "ref"} or fields["type"] != "registry":
        raise StatusError(f"--cache-from {text} is not supported: give the name of an image", 1)
    return fields["ref"]


def _pairs(values: list[str]) -> dict[str, str]:
    return {name: value for name, _, value in (text.partition("=") for text in values)}


def _arguments(values: list[str]) -> dict[str, str | None]:
    """NAME alone takes its value from the environment, and is as if not given where there is none."""
    found: dict[str, str | None] = {}
    for text in values:
        name, equals, value = text.partition("=")
        found[name] = value if equals else os.environ.get(name)
    return found


def _secrets(flags: Flags) -> list[tuple[str, str]]:
    if not flags["secret"]:
        return []
    import binascii

    values: dict[str, str] = {}
    for text in flags["secret"]:
        fields = _pairs(text.split(","))
        id = fields.get("id") or os.path.basename(fields.get("src") or fields.get("source") or "")
        if not id:
            raise StatusError(f"invalid secret {text}: an id is required", 1)
        values[id] = binascii.b2a_base64(_secret(id, fields), newline=False).decode()
    return [("X-Wherry-Secrets", binascii.b2a_base64(dumps(values).encode(), newline=False).decode())]


def _secret(id: str, fields: dict[str, str]) -> bytes:
    source = fields.get("src") or fields.get("source") or ""
    variable = fields.get("env") or ("" if source or fields.get("type") == "file" else id)
    if variable and variable in os.environ and not source:
        return os.fsencode(os.environ[variable])
    if variable and fields.get("env"):
        raise StatusError(f"secret {id}: the variable {variable} is not set", 1)
    try:
        with open(source or id, "rb") as file:
            return file.read()
    except OSError as error:
        raise StatusError(f"failed to stat {source or id}: {(error.strerror or '').lower()}", 1) from None


def _registries(cli: Cli) -> list[tuple[str, str]]:
    """Credentials of every registry: base images may come from any."""
    from wherry.client.context import config

    names = list(config(cli.config_directory).get("auths") or {})
    if not names:
        return []
    from wherry.cli.credentials import encode, find

    return [("X-Registry-Config", encode({name: find(cli.config_directory, name) for name in names}))]


# -- what is shown ---------------------------------------------------------------------------------------------------


class _Show:
    """Draws the answer and ends with its result."""

    def __init__(self, flags: Flags, where: str) -> None:
        from wherry.cli import build_progress

        self._flags, self._where = flags, where
        kind = "quiet" if flags["quiet"] or flags["check"] else flags["progress"]
        if kind not in ("auto", "plain", "tty", "quiet", "rawjson"):
            raise StatusError(f"unknown progress output type: {kind}", 1)
        terminal = kind == "tty" or (kind == "auto" and sys.stderr.isatty())
        self._raw = kind == "rawjson"
        explain = flags["explain-cache"]
        self._progress: Any
        if kind in ("quiet", "rawjson"):
            self._progress = build_progress.Quiet()
        elif terminal:
            self._progress = build_progress.Terminal(sys.stderr, explain)
        else:
            self._progress = build_progress.Plain(sys.stderr, explain)
        self._image = self._failed = ""
        self._findings: list[dict[str, Any]] = []

    def prepared(self, context: Context) -> None:
        """The context has been read."""

    def run(self, messages: Iterator[Any]) -> int:
        try:
            for message in messages:
                if message.get("error") or message.get("errorDetail"):
                    detail = message.get("errorDetail") or {}
                    place = f"{self._failed}\n" if self._failed else ""
                    raise WherryError(f"{place}ERROR: {detail.get('message') or message.get('error')}")
                event = message.get("wherry")
                if event is not None:
                    self._event(event)
        finally:
            self._progress.end()
        return self._end()

    def _event(self, event: dict[str, Any]) -> None:
        if self._raw:
            sys.stderr.write(dumps(event) + "\n")
        kind = event["kind"]
        if kind == "image":
            self._image = event["id"]
        elif kind in ("findings", "checked"):
            self._findings = event["findings"]
        elif kind == "plan":
            for warning in event["warnings"]:
                sys.stderr.write(f"{warning}\n")
        elif kind == "failed":
            self._failed = event["excerpt"]
        else:
            self._progress.event(event)

    def _end(self) -> int:
        flags = self._flags
        if flags["check"]:
            return self._checked()
        if flags["iidfile"]:
            with open(flags["iidfile"], "w") as file:
                file.write(self._image)
        if flags["metadata-file"]:
            with open(flags["metadata-file"], "w") as file:
                names = ",".join(flags["tag"])
                file.write(dumps({"containerimage.config.digest": self._image, "image.name": names}) + "\n")
        if flags["quiet"]:
            print(self._image)
            return 0
        progress = self._progress
        if progress.steps:
            shown = (
                f"built {self._image.removeprefix('sha256:')[:12]}: {progress.steps} steps, {progress.cached} cached"
            )
            sys.stderr.write(shown + (f"; named {', '.join(flags['tag'])}" if flags["tag"] else "") + "\n")
        if self._findings:
            plural = "s" if len(self._findings) > 1 else ""
            sys.stderr.write(f"\n {len(self._findings)} warning{plural} found (see them with --check):\n")
            for finding in self._findings:
                sys.stderr.write(f" - {finding['rule']}: {finding['message']} (line {finding['line']})\n")
        return 0

    def _checked(self) -> int:
        if not self._findings:
            print("Check complete, no warnings found.")
            return 0
        plural = "s have" if len(self._findings) > 1 else " has"
        print(f"Check complete, {len(self._findings)} warning{plural} been found!")
        for finding in self._findings:
            print(f"\nWARNING: {finding['rule']} - {finding['url']}\n{finding['message']}\n{finding['excerpt']}")
        return 1


COMMANDS = {"build": Command(build, FLAGS, (0, 1), refuse=_REFUSED)}
