"""ADD of URLs and git repositories: brought into directories of the builder's own, removed after the build."""

import asyncio
import email.utils
import hashlib
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from wherry.build.graph import Git, Remote
from wherry.build.progress import BuildOutput
from wherry.build.remote import file_name
from wherry.build.request import Tree
from wherry.errors import InvalidArgument, NotFound, Unavailable

_CHUNK = 1 << 18
_CONNECT_SECONDS = 30
_GIT_SECONDS = 1800
_REFERENCE = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_./@^~+-]*\Z")
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")


@dataclass(frozen=True, slots=True)
class FetchedTree:
    """A directory of ours. `key` is "": what is in it is read."""

    path: str
    key: str = ""


class Fetches:
    """Fetches into directories below `root`, which is emptied first."""

    def __init__(self, root: Path) -> None:
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(mode=0o700, parents=True)
        self._root = root

    def release(self, tree: Tree) -> None:
        shutil.rmtree(os.path.dirname(tree.path), ignore_errors=True)

    async def remote(self, operation: Remote, status: Callable[[int, int], None]) -> FetchedTree:
        """One file, named as in the URL, mode 0600, with the server's time. InvalidArgument when its digest differs."""
        tree = self._new()
        try:
            await self._download(operation, Path(tree.path) / file_name(operation.url), status)
        except BaseException:
            self.release(tree)
            raise
        return tree

    async def git(self, operation: Git, output: BuildOutput) -> FetchedTree:
        """A repository's files at a commit, without .git unless asked for."""
        if operation.reference and not _REFERENCE.match(operation.reference):
            raise InvalidArgument(f"invalid git reference {operation.reference!r}", object=operation.remote)
        if operation.remote.startswith("-"):
            raise InvalidArgument(f"invalid git repository {operation.remote!r}", object=operation.remote)
        tree = self._new()
        try:
            await self._clone(operation, tree.path, output)
            return self._below(tree, operation.subdirectory)
        except BaseException:
            self.release(tree)
            raise

    def _new(self) -> FetchedTree:
        path = self._root / os.urandom(8).hex() / "tree"
        path.mkdir(mode=0o755, parents=True)
        return FetchedTree(str(path))

    def _below(self, tree: FetchedTree, subdirectory: str) -> FetchedTree:
        if not subdirectory.strip("/"):
            return tree
        from wherry.build.trees import resolve_directory

        wanted = resolve_directory(tree.path, subdirectory)
        if not os.path.isdir(wanted):
            raise NotFound(f"{subdirectory} is no directory of the repository", object=subdirectory)
        # Moved up, so that releasing the tree finds all of it.
        moved = os.path.join(os.path.dirname(tree.path), "below")
        os.rename(wanted, moved)
        return FetchedTree(moved)

    async def _download(self, operation: Remote, path: Path, status: Callable[[int, int], None]) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=300)
        hasher = hashlib.sha256()
        try:
            async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False, trust_env=True) as session:
                async with session.get(operation.url, headers={"Accept-Encoding": "identity"}) as answer:
                    if answer.status >= 400:
                        raise NotFound(
                            f"invalid response status {answer.status} of {operation.url}", object=operation.url
                        )
                    total, current = answer.content_length or 0, 0
                    with path.open("wb") as file:
                        os.fchmod(file.fileno(), 0o600)
                        async for chunk in answer.content.iter_chunked(_CHUNK):
                            await asyncio.to_thread(_store, file.write, hasher.update, chunk)
                            current += len(chunk)
                            status(current, total)
                    modified = answer.headers.get("Last-Modified", "")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"failed to fetch {operation.url}: {error}", object=operation.url) from None
        digest = f"sha256:{hasher.hexdigest()}"
        if operation.checksum and operation.checksum != digest:
            raise InvalidArgument(f"digest mismatch {digest}: {operation.checksum}", object=operation.url)
        parsed = email.utils.parsedate_to_datetime(modified).timestamp() if _is_date(modified) else 0
        os.utime(path, (parsed, parsed))

    async def _clone(self, operation: Git, path: str, output: BuildOutput) -> None:
        reference = operation.reference or "HEAD"
        await self._run(["git", "init", "-q", "."], path, output)
        await self._run(["git", "remote", "add", "origin", operation.remote], path, output)
        fetch = ["git", "fetch", "-q", "--no-tags", "--depth=1", "origin", reference]
        if _COMMIT.match(reference) or operation.checksum:
            fetch = ["git", "fetch", "-q", "origin", reference]
        await self._run(fetch, path, output)
        await self._run(["git", "checkout", "-q", "--detach", "FETCH_HEAD"], path, output)
        commit = (await self._run(["git", "rev-parse", "HEAD"], path, output)).strip()
        if operation.checksum and not commit.startswith(operation.checksum):
            message = f"expected checksum to match {operation.checksum}, got {commit}"
            raise InvalidArgument(message, object=operation.remote)
        await self._run(["git", "submodule", "-q", "update", "--init", "--recursive", "--depth=1"], path, output)
        if not operation.keep_git_dir:
            await asyncio.to_thread(shutil.rmtree, os.path.join(path, ".git"), True)

    async def _run(self, command: list[str], path: str, output: BuildOutput) -> str:
        env = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": path,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            # A repository must not make us read files of this machine, or run what it brings.
            "GIT_ALLOW_PROTOCOL": "http:https:git:ssh",
            "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
        }
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=path,
                env=env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except FileNotFoundError:
            raise Unavailable("git is not installed on the daemon's machine", hint="install git there") from None
        try:
            async with asyncio.timeout(_GIT_SECONDS):
                out, err = await process.communicate()
        except BaseException:
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise
        if err:
            output.write(err, 2)
        if process.returncode:
            said = err.decode("utf-8", "replace").strip().splitlines()
            raise InvalidArgument(f"{' '.join(command[:2])} failed: {said[-1] if said else process.returncode}")
        return out.decode("utf-8", "replace")


def _store(write: Callable[[bytes], object], update: Callable[[bytes], object], chunk: bytes) -> None:
    write(chunk)
    update(chunk)


def _is_date(text: str) -> bool:
    try:
        email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return False
    return True
