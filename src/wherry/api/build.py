"""Building by the classic endpoint: POST /build with the context as a tar, progress as JSON lines; the build cache.

Besides docker's query parameters: `allow` (an entitlement, may be repeated), `nocachefilter` (a stage), `call=check`.
With the header `X-Wherry-Progress: events` the answer's lines are {"wherry": event} instead of docker's text, and with
`X-Wherry-Secrets` (base64 of a JSON object of base64 values) RUN steps may mount secrets.
"""

import asyncio
import base64
import binascii
import json
import os
import shutil
from collections.abc import Mapping
from typing import Any, BinaryIO

from wherry.api.bodies import upload
from wherry.api.build_text import ClassicText, EventText
from wherry.api.call import Call
from wherry.api.connection import cancelled_when_gone
from wherry.api.images import parse_until
from wherry.api.progress import ProgressStream, run_with_progress
from wherry.api.reply import Answer, Reply, reply_json
from wherry.api.router import Route
from wherry.archive import UnpackOptions, read_file, unpack
from wherry.build.cache import CacheRecord
from wherry.build.checks import BaseImage, check
from wherry.build.dockerfile import DockerfileError, Source, parse
from wherry.build.dockerfile.source import excerpt
from wherry.build.fetch import FetchedTree
from wherry.build.graph import Remote
from wherry.build.ignore import Ignore, read_ignore_file
from wherry.build.progress import BuildOutput
from wherry.build.remote import git_remote, is_url
from wherry.build.request import BuildRequest, NamedContext
from wherry.build.solver import Sources
from wherry.build.trees import Digests
from wherry.engine.builds import BuildResult
from wherry.engine.threads import in_own_thread
from wherry.errors import Conflict, InvalidArgument, NotFound, Unimplemented, WherryError
from wherry.images import RegistryAuth
from wherry.images.compression import decompressed
from wherry.spec.platform import parse_platform
from wherry.spec.reference import Reference

_DOCKERFILE_MAX = 16 << 20
_SECRET_MAX = 500 << 10


class DirectoryContext:
    """A context that is here already: the build context, and named ones below it."""

    def __init__(self, trees: Mapping[str, FetchedTree]) -> None:
        self._trees = trees

    async def tree(self, name: str, wanted: tuple[str, ...]) -> FetchedTree:
        """NotFound for one that was not sent."""
        if name not in self._trees:
            raise NotFound(f"there is no context {name!r}" if name else "there is no build context", object=name)
        return self._trees[name]

    async def close(self) -> None:
        """Its owner removes it."""


class GivenSecrets:
    """Secrets that came with the request."""

    def __init__(self, values: Mapping[str, bytes]) -> None:
        self._values = values

    async def secret(self, id: str) -> bytes | None:
        return self._values.get(id)


async def build(call: Call) -> Answer:
    """POST /build."""
    query = call.query
    if query.flag("squash"):
        raise Unimplemented("squash is only supported with experimental mode", object="squash")
    if query.get("outputs"):
        raise Unimplemented("outputs are not supported by the classic endpoint", object="outputs")
    if query.get("remote") == "client-session":
        raise Unimplemented("builds by session are not supported by the classic endpoint", object="remote")

    async def work(progress: ProgressStream) -> dict[str, Any] | None:
        with cancelled_when_gone(call.request):
            return await _build(call, progress)

    return await run_with_progress(call, work)


async def _build(call: Call, progress: ProgressStream) -> dict[str, Any] | None:
    builds = call.engine.builds
    if call.query.get("context"):
        return await _build_kept(call, progress)
    directory = builds.contexts / os.urandom(8).hex()
    identity = call.query.get("buildid")
    task = asyncio.current_task()
    assert task is not None
    if identity:
        if identity in builds.running:
            raise Conflict(f"build ID {identity} exists", object=identity)
        builds.running[identity] = task
    try:
        await asyncio.to_thread(directory.mkdir, 0o700, True)
        tree, source = await _receive(call, str(directory))
        return await _run(call, progress, tree, source)
    finally:
        if identity:
            builds.running.pop(identity, None)
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, directory, True))


async def _build_kept(call: Call, progress: ProgressStream) -> dict[str, Any] | None:
    """With `context` and `contextdigest`: on files that were sent before."""
    kept, query = call.engine.builds.kept, call.query
    context = kept.use(query.get("context"), query.get("contextdigest"))
    try:
        name = query.get("dockerfile") or "Dockerfile"
        source = await asyncio.to_thread(_read_dockerfile, context.path, name)
        tree = FetchedTree(context.path, context.key)
        return await _run(call, progress, tree, source, context.digests)
    finally:
        kept.done(context)


async def begin_context(call: Call) -> Answer:
    """POST /wherry/buildcontexts/{id}: a manifest; the numbers of the lines whose files are wanted."""
    manifest = await _manifest(call)
    return reply_json({"wanted": await call.engine.builds.kept.begin(call.name, manifest)})


async def _manifest(call: Call) -> bytes:
    async with upload(call) as body:
        return await in_own_thread(body.read)


async def finish_context(call: Call) -> Answer:
    """PUT /wherry/buildcontexts/{id}?digest=...: the wanted files as a tar."""
    async with upload(call) as body:
        await call.engine.builds.kept.finish(call.name, call.query.get("digest"), body, in_own_thread)
    return Reply(204)


async def _run(
    call: Call, progress: ProgressStream, tree: FetchedTree, source: Source, digests: Digests | None = None
) -> dict[str, Any] | None:
    try:
        return await _plan_and_build(call, progress, tree, source, digests)
    except WherryError as error:
        place = _place(error, source)
        if place and call.request.headers.get("X-Wherry-Progress") == "events":
            progress({"wherry": {"kind": "failed", "excerpt": place}})
        raise


def _place(error: WherryError, source: Source) -> str:
    """The lines an error is about, as text."""
    if isinstance(error, DockerfileError):
        return error.excerpt()
    span = getattr(getattr(error, "node", None), "span", None)
    return excerpt(source, span) if span is not None else ""


async def _plan_and_build(
    call: Call, progress: ProgressStream, tree: FetchedTree, source: Source, digests: Digests | None
) -> dict[str, Any] | None:
    builds, query = call.engine.builds, call.query
    ignore = await asyncio.to_thread(_read_ignore, tree.path, source.name)
    dockerfile = await asyncio.to_thread(parse, source)
    findings = check(dockerfile, ignore=ignore)
    if query.get("call") == "check":
        bases = _local_bases(call, dockerfile)
        findings = check(dockerfile, ignore=ignore, bases=bases)
        return {"wherry": {"kind": "checked", "findings": [_finding(source, one) for one in findings]}}
    if findings and dockerfile.directives.check.error:
        raise InvalidArgument(f"lint violation found for rules: {', '.join(sorted({one.rule for one in findings}))}")
    events = call.request.headers.get("X-Wherry-Progress") == "events"
    quiet = query.flag("q")
    text = EventText(progress) if events else ClassicText(progress, quiet=quiet)
    text.findings([_finding(source, one) for one in findings])
    request = _request(call, source)
    sources = Sources(
        context=DirectoryContext({"": tree}), ignore=ignore, secrets=_secrets(call), digests=digests or Digests()
    )
    images = builds.base_images(_registry_config(call), progress if not quiet and not events else None)
    result: BuildResult = await builds.build(
        request,
        sources,
        text.event,
        names=query.all("t"),
        base_images=images,
        dockerfile=dockerfile,
        on_plan=text.planned,
    )
    text.finish(result.image.id, query.all("t"))
    return None


def _request(call: Call, source: Source) -> BuildRequest:
    query = call.query
    limits: list[tuple[str, int | str]] = []
    for name, field in _LIMITS.items():
        if query.get(name):
            limits.append((field, query.integer(name) or 0))
    if query.get("cpusetcpus"):
        limits.append(("cpuset_cpus", query.get("cpusetcpus")))
    if query.get("cpusetmems"):
        limits.append(("cpuset_mems", query.get("cpusetmems")))
    args = {name: value for name, value in _object(call, "buildargs").items() if value is not None}
    contexts = {}
    for name, value in _object(call, "contexts").items():
        contexts[name.lower()] = named_context(value)
    return BuildRequest(
        dockerfile=source,
        target=query.get("target"),
        build_args=args,
        labels={name: value or "" for name, value in _object(call, "labels").items()},
        contexts=contexts,
        platform=parse_platform(query.get("platform")).normalized() if query.get("platform") else None,
        no_cache=query.flag("nocache"),
        no_cache_stages=frozenset(name.lower() for name in query.all("nocachefilter")),
        pull=query.get("pull").lower() in ("1", "true"),
        network=query.get("networkmode") or "default",
        extra_hosts=_extra_hosts(query.get("extrahosts")),
        shm_size=query.integer("shmsize") or 0,
        cgroup_parent=query.get("cgroupparent"),
        entitlements=frozenset(query.all("allow")),
        resources=tuple(limits),
    )


_LIMITS = {
    "memory": "memory",
    "memswap": "memory_swap",
    "cpushares": "cpu_shares",
    "cpuperiod": "cpu_period",
    "cpuquota": "cpu_quota",
}


def named_context(value: str) -> NamedContext:
    """The right side of --build-context."""
    if value.startswith("docker-image://"):
        return NamedContext("image", value.removeprefix("docker-image://"))
    if git_remote(value) is not None:
        return NamedContext("git", value)
    if is_url(value):
        return NamedContext("url", value)
    raise Unimplemented(f"named context {value!r} is not supported by the classic endpoint", object=value)


def _object(call: Call, name: str) -> dict[str, Any]:
    text = call.query.get(name)
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InvalidArgument(f"error reading {name}: {error}", object=name) from None
    if not isinstance(found, dict) or not all(value is None or isinstance(value, str) for value in found.values()):
        raise InvalidArgument(f"error reading {name}: an object of strings is expected", object=name)
    return found


def _extra_hosts(text: str) -> tuple[str, ...]:
    if not text:
        return ()
    try:
        found = json.loads(text)
    except ValueError:
        # docker's CLI sends a list; the specification says comma-separated.
        found = text.split(",")
    return tuple(str(entry) for entry in found)


def _secrets(call: Call) -> GivenSecrets | None:
    text = call.request.headers.get("X-Wherry-Secrets")
    if not text:
        return None
    try:
        found = json.loads(base64.b64decode(text))
        values = {str(name): base64.b64decode(value) for name, value in found.items()}
    except (ValueError, TypeError, AttributeError, binascii.Error):
        raise InvalidArgument("X-Wherry-Secrets is not what it should be") from None
    if any(len(value) > _SECRET_MAX for value in values.values()):
        raise InvalidArgument(f"a secret is larger than {_SECRET_MAX >> 10} KiB")
    return GivenSecrets(values)


def _registry_config(call: Call) -> Any:
    """X-Registry-Config: from a reference to the credentials of its registry."""
    text = call.request.headers.get("X-Registry-Config")
    if not text:
        return None
    try:
        found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, binascii.Error):
        return None

    def auth(reference: Reference) -> RegistryAuth | None:
        domain = reference.name.partition("/")[0]
        for server in (domain, "https://index.docker.io/v1/" if domain == "docker.io" else domain):
            entry = found.get(server) if isinstance(found, dict) else None
            if isinstance(entry, dict):
                return RegistryAuth(
                    username=str(entry.get("username") or ""),
                    password=str(entry.get("password") or ""),
                    identity_token=str(entry.get("identitytoken") or ""),
                    registry_token=str(entry.get("registrytoken") or ""),
                    server=str(entry.get("serveraddress") or server),
                )
        return None

    return auth


# -- the context -----------------------------------------------------------------------------------------------------


async def _receive(call: Call, directory: str) -> tuple[FetchedTree, Source]:
    """The context as a directory, and the Dockerfile in it."""
    remote = call.query.get("remote")
    name = call.query.get("dockerfile") or "Dockerfile"
    if remote:
        return await _fetch(call, remote, directory, name)
    root = f"{directory}/tree"
    async with upload(call) as body:
        await in_own_thread(_unpack, body, root)
    return FetchedTree(root), await asyncio.to_thread(_read_dockerfile, root, name)


async def _fetch(call: Call, remote: str, directory: str, name: str) -> tuple[FetchedTree, Source]:
    fetcher = call.engine.builds.solver.fetcher
    git = git_remote(remote)
    if git is not None:
        fetched = await fetcher.git(git, BuildOutput(lambda data, stream: None))
        await asyncio.to_thread(shutil.move, fetched.path, f"{directory}/tree")
        fetcher.release(fetched)
        root = f"{directory}/tree"
        return FetchedTree(root), await asyncio.to_thread(_read_dockerfile, root, name)
    if not is_url(remote):
        raise InvalidArgument(f"remote URL {remote!r} could not be processed as either Git, tar or Dockerfile")
    fetched = await fetcher.remote(Remote(remote), lambda current, total: None)
    try:
        return await asyncio.to_thread(_open_download, fetched.path, directory, name)
    finally:
        fetcher.release(fetched)


def _open_download(path: str, directory: str, name: str) -> tuple[FetchedTree, Source]:
    from wherry.build.copying import is_archive

    (downloaded,) = os.listdir(path)
    root = f"{directory}/tree"
    with open(f"{path}/{downloaded}", "rb") as file:
        if is_archive(file):
            file.seek(0)
            _unpack(file, root)
            return FetchedTree(root), _read_dockerfile(root, name)
        file.seek(0)
        text = file.read(_DOCKERFILE_MAX)
    os.mkdir(root, 0o755)
    return FetchedTree(root), Source("Dockerfile", text.decode("utf-8", "replace"))


def _unpack(body: BinaryIO, root: str) -> None:
    """In a thread: a context may hold anything; what leaves the root is refused by the unpacker."""
    os.mkdir(root, 0o755)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with decompressed(body, name="the build context") as tar:
            unpack(tar, fd, UnpackOptions(owner=(0, 0)))
        # What follows the archive's end belongs to the request all the same.
        while body.read(1 << 16):
            pass
    finally:
        os.close(fd)


def _read_dockerfile(root: str, name: str) -> Source:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for candidate in dict.fromkeys((name, name.lower() if name == "Dockerfile" else name)):
            try:
                data = read_file(fd, candidate, limit=_DOCKERFILE_MAX)
            except NotFound:
                continue
            return Source(candidate, data.decode("utf-8", "replace"))
    finally:
        os.close(fd)
    raise InvalidArgument(f"Cannot locate specified Dockerfile: {name}", object=name)


def _read_ignore(root: str, dockerfile: str) -> Ignore | None:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
            try:
                text = read_file(fd, name, limit=1 << 20).decode("utf-8", "replace")
            except WherryError:
                continue
            rules = Ignore(read_ignore_file(text))
            return rules if rules.rules else None
    finally:
        os.close(fd)
    return None


def _finding(source: Source, finding: Any) -> dict[str, Any]:
    return {
        "rule": finding.rule,
        "message": finding.message,
        "url": finding.url,
        "line": finding.span.start,
        "excerpt": excerpt(source, finding.span),
    }


def _local_bases(call: Call, dockerfile: Any) -> Any:
    def base(stage: Any) -> BaseImage | None:
        try:
            image = call.engine.images.resolve(stage.base.image)
        except WherryError:
            return None
        env = dict(item.partition("=")[::2] for item in image.config.config.env)
        return BaseImage(env)

    return base


# -- the cache -------------------------------------------------------------------------------------------------------


async def cancel(call: Call) -> Answer:
    """POST /build/cancel."""
    task = call.engine.builds.running.get(call.query.get("id"))
    if task is not None:
        task.cancel()
    return Reply(204)


async def prune(call: Call) -> Answer:
    """POST /build/prune."""
    builds, query = call.engine.builds, call.query
    filters = query.filters()
    keep = query.get("reserved-space") or query.get("keep-storage") or query.get("max-used-space")
    until = [parse_until(text) for text in filters.get("until") or ()]

    def select(record: CacheRecord) -> bool:
        return all(_matches(builds.cache, record, name, values) for name, values in filters.items() if name != "until")

    def work() -> tuple[list[str], int]:
        gone, freed = builds.cache.prune(
            unused_since_ns=min(until) * 10**9 if until else None,
            keep_bytes=int(keep) if keep else 0,
            select=select,
        )
        names = [one.record.key[:25] for one in gone]
        kinds = filters.get("type") or ()
        if (query.flag("all") or "exec.cachemount" in kinds) and not keep:
            for found in builds.caches.list():
                if not found.in_use and (not until or found.used_ns < min(until) * 10**9):
                    builds.caches.remove(found.name)
                    names.append(found.name[:25])
                    freed += found.size
        if query.flag("all") and not keep and not until:
            builds.kept.prune(0)
        return names, freed

    names, freed = await asyncio.to_thread(work)
    call.engine.events.emit("builder", "prune", "", {"reclaimed": str(freed)})
    return reply_json({"CachesDeleted": names or None, "SpaceReclaimed": freed})


def _matches(cache: Any, record: CacheRecord, name: str, values: list[str]) -> bool:
    if name == "id":
        return any(record.key.startswith(value.rstrip("*")) for value in values)
    if name in ("type", "description"):
        shown = record.kind if name == "type" else record.title
        return any(value.lstrip("~") in shown for value in values)
    if name in ("inuse", "shared", "private"):
        return (name == "private") == (not cache.in_use(record))
    raise InvalidArgument(f"invalid filter '{name}'", object=name)


ROUTES = [
    Route("POST", "/build", build),
    Route("POST", "/build/cancel", cancel),
    Route("POST", "/build/prune", prune),
    Route("POST", "/wherry/buildcontexts/{id}", begin_context),
    Route("PUT", "/wherry/buildcontexts/{id}", finish_context),
]
