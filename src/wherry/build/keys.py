"""What a step's key is the digest of: its operation, the tree below it, and what it takes from other trees."""

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import Any

from wherry.build.execution import BuildSnapshotter, Solved
from wherry.build.graph import Copy, MakeDirectory, Node, Run
from wherry.build.ignore import Ignore
from wherry.build.selection import excluding, select
from wherry.build.trees import Digests, SourceTree, digest_entries

_VERSION = "1"
_MEMO = 4096
_REASONS = {
    "below": "what is below it changed",
    "step": "the instruction or its variables changed",
    "files": "the files it copies changed",
    "mounted": "what it mounts changed",
    "newest": "SOURCE_DATE_EPOCH changed",
    "version": "another version of the cache",
}


class Memo:
    """Digests of selections from trees whose content has a name."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], list[str]] = OrderedDict()

    def remembered(self, key: str, what: str, work: Callable[[], list[str]]) -> list[str]:
        """The result of `work` for a tree of this key; computed anew where the tree has none."""
        if not key:
            return work()
        found = self._known.get((key, what))
        if found is None:
            found = self._known[key, what] = work()
            if len(self._known) > _MEMO:
                self._known.popitem(last=False)
        return found


class StepKeys:
    """The keys of one build's steps."""

    def __init__(self, memo: Memo, snapshots: BuildSnapshotter, digests: Digests, newest: int | None) -> None:
        self._memo, self._snapshots, self._digests, self._newest = memo, snapshots, digests, newest

    def detail(self, node: Node, inputs: list[Solved], copied: list[str]) -> str:
        """What the key is the digest of, as a JSON object. In a thread when it has mounts: contents are read."""
        operation = node.operation
        fields: dict[str, Any] = {"version": _VERSION, "below": inputs[0].chain}
        if self._newest is not None:
            fields["newest"] = self._newest
        if isinstance(operation, Run):
            description = asdict(operation)
            for ignored in ("proxies", "hostname", "cgroup_parent", "resources"):
                del description[ignored]
            fields["step"] = description
            fields["mounted"] = self._mounted(operation, inputs)
        elif isinstance(operation, Copy):
            description = asdict(operation)
            description["files"] = [[file.name, hashlib.sha256(file.data).hexdigest()] for file in operation.files]
            fields["step"] = description
            fields["files"] = copied
        else:
            assert isinstance(operation, MakeDirectory)
            fields["step"] = asdict(operation)
        return json.dumps(fields, sort_keys=True)

    def _mounted(self, operation: Run, inputs: list[Solved]) -> list[str]:
        found = []
        for mount in operation.mounts:
            if mount.input is None:
                continue
            solved = inputs[mount.input]
            if solved.chain is not None:
                found.append(f"{solved.chain} {mount.mount.source}")
                continue
            source = mount.mount.source or "/"
            key = solved.tree.key if solved.tree is not None else ""
            what = f"mount {source} {_rules(solved.ignore)}"
            found += self._memo.remembered(key, what, partial(self._mounted_digest, solved, source))
        return found

    def _mounted_digest(self, solved: Solved, source: str) -> list[str]:
        with ExitStack() as stack:
            tree = self.open(solved, stack)
            return [digest_entries(tree, tree.entries(tree.resolve(source)), top=True)]

    def copied(self, operation: Copy, inputs: list[Solved]) -> list[str]:
        found = []
        for index, text in operation.sources:
            solved = inputs[index]
            # A layer's ChainID says all of its content; of files from outside only a kept context has a name.
            key = solved.tree.key if solved.tree is not None else str(solved.chain)
            what = f"copy {text} {operation.parents} {operation.excludes} {_rules(solved.ignore)}"
            found += self._memo.remembered(key, what, partial(self._copied_digest, operation, solved, text))
        return found

    def _copied_digest(self, operation: Copy, solved: Solved, text: str) -> list[str]:
        found = []
        excludes = excluding(operation.excludes)
        with ExitStack() as stack:
            tree = self.open(solved, stack)
            for one in select(tree, text, parents=operation.parents):
                digest = digest_entries(tree, tree.entries(one.real, excludes=excludes), top=operation.parents)
                name = os.fsdecode(one.below if one.directory else one.name)
                found.append(f"{digest} {one.directory} {name}")
        return found

    def open(self, solved: Solved, stack: ExitStack) -> SourceTree:
        if solved.tree is not None:
            root = os.open(solved.tree.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, root)
            digests = self._digests
            return SourceTree(
                root, "the build context", solved.ignore, foreign_owners=True, remote=solved.remote, digests=digests
            )
        root = self._snapshots.open_tree(solved.chain)
        stack.callback(os.close, root)
        return SourceTree(root, "the stage or image", digests=self._digests)


def changes(before: str, now: str) -> str:
    """What differs between two details, in words; "" for nothing."""
    old, new = json.loads(before or "{}"), json.loads(now)
    return ", ".join(_REASONS.get(name, name) for name in new if new[name] != old.get(name))


def _rules(ignore: Ignore | None) -> str:
    return "" if ignore is None else repr([(rule.text, rule.exception) for rule in ignore.rules])
