"""The room's front: every operation on images, as the engine calls it."""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from wherry.content import Collected, ContentStore, collect
from wherry.errors import InvalidArgument, WherryError
from wherry.images.auth import RegistryAuth
from wherry.images.build_result import BuildResults, BuildSnapshots
from wherry.images.check import check
from wherry.images.commit import Commitment, Committer, WriteLayer
from wherry.images.endpoints import RegistryConfig
from wherry.images.history import history
from wherry.images.image import HistoryEntry, Image, InUse, Removed, unix_seconds
from wherry.images.importer import Importer
from wherry.images.layers import Layers, LayerStore
from wherry.images.load import Loader
from wherry.images.login import login
from wherry.images.packing import Packer
from wherry.images.progress import Progress
from wherry.images.pull import Puller
from wherry.images.push import Pusher
from wherry.images.records import Records
from wherry.images.registry import translate
from wherry.images.remote import distribution, search
from wherry.images.removal import Remover
from wherry.images.save import Saver
from wherry.spec.finding import Findings
from wherry.spec.platform import Platform, host_platform, parse_platform
from wherry.spec.reference import Reference, parse_reference
from wherry.state import Store

_INTERRUPTED_SECONDS = 24 * 3600.0


class Images:
    """The images of one daemon. Synchronous methods may be called from any thread; those that move data take time."""

    def __init__(
        self,
        data_root: Path,
        store: Store,
        content: ContentStore,
        snapshots: LayerStore,
        *,
        registries: RegistryConfig | None = None,
        retry_seconds: float = 1.0,
    ) -> None:
        # The leases and half-made layers of operations that died with the last process. What a pull had downloaded is
        # kept for a while: the next one goes on from there.
        self._interrupted = content.leases.recent("pull", _INTERRUPTED_SECONDS)
        content.leases.drop(lambda name: name not in self._interrupted)
        self._content = content
        self._snapshots = snapshots
        self._layers = Layers(data_root, store, content, snapshots)
        self._records = Records(store, content)
        self._importer = Importer(self._records, self._layers, content)
        self._committer = Committer(self._records, self._layers, content)
        self.registries: RegistryConfig = registries or RegistryConfig()
        self._puller = Puller(self._records, self._layers, content, self.registries, retry_seconds=retry_seconds)
        self.built = BuildResults(self._records, self._layers, content, cast(BuildSnapshots, snapshots))
        packer = Packer(self._records, content, self.built.complete)
        self._pusher = Pusher(self._records, content, packer, self.registries, retry_seconds=retry_seconds)
        self._scratch = data_root / "scratch"
        shutil.rmtree(self._scratch, ignore_errors=True)
        # Safe before the engine is up: the snapshotter itself knows on which layers containers stand.
        self.collect()

    def resolve(self, name: str) -> Image:
        """By reference, digest, id or unique id prefix; NotFound "No such image: x:latest"."""
        return self._records.find(name)

    def list(self, *, all: bool = False) -> list[Image]:
        """Newest first; without `all`, not the untagged images that others are built on."""
        images = self._records.all()
        parents = {image.parent for image in images}
        shown = [image for image in images if all or image.names or image.id not in parents]
        return sorted(shown, key=lambda image: image.created or "", reverse=True)

    def children(self, image: Image) -> Sequence[str]:
        """The ids of the images made from this one."""
        return list(self._records.children(image.id))

    def tag(self, image: Image, reference: str) -> Image:
        """Give an image one more name ("latest" where there is no tag), taking it from whichever had it."""
        parsed = parse_reference(reference)
        check_name(parsed)
        if parsed.digest:
            raise InvalidArgument("cannot import digest reference", object=reference)
        return self._records.name(image.id, parsed.tagged())

    def history(self, image: Image) -> Sequence[HistoryEntry]:
        """Newest step first."""
        return history(image, self._layers.sizes(image.layers), self._records.get)

    def remove(self, name: str, *, force: bool, in_use: InUse, prune_parents: bool = True) -> Sequence[Removed]:
        """docker's rmi: untag, and delete with the last name. Conflict when something stands on it."""
        remover = Remover(self._records, self._layers, in_use)
        remover.remove(name, force=force, prune_parents=prune_parents)
        self.collect()
        return remover.done

    def prune(
        self,
        *,
        dangling_only: bool,
        in_use: InUse,
        until: int | None = None,
        labels: Sequence[str] = (),
        without_labels: Sequence[str] = (),
    ) -> Sequence[Removed]:
        """Delete what no container uses: dangling images only, or all.

        Only those made before `until` (seconds since 1970), with all of `labels` and none of `without_labels`
        ("name" or "name=value").
        """

        def select(image: Image) -> bool:
            given = image.config.config.labels
            old_enough = until is None or unix_seconds(image.created) <= until
            return old_enough and has_labels(given, labels) and not any(has_labels(given, [x]) for x in without_labels)

        remover = Remover(self._records, self._layers, in_use)
        remover.prune(dangling_only=dangling_only, select=select)
        self.collect()
        return remover.done

    def import_(
        self,
        stream: BinaryIO,
        reference: str | None,
        changes: Sequence[str] = (),
        message: str = "",
        platform: Platform | str | None = None,
    ) -> Image:
        """A root file system's tar (compressed or not) as an image of one layer."""
        named = self._parse_new_name(reference) if reference else None
        wanted = (_platform(platform) or host_platform()).normalized()
        if wanted.os != "linux":
            raise InvalidArgument("operating system is not supported", object=wanted.os)
        with self._cleanly():
            return self._importer.import_(stream, named, changes=changes, message=message, platform=wanted)

    def commit(self, parent: Image | None, write_layer: WriteLayer, wanted: Commitment) -> Image:
        """One layer on top of `parent`, written by `write_layer` as an uncompressed tar: docker's commit."""
        named = [self._parse_new_name(wanted.reference)] if wanted.reference else []
        with self._cleanly():
            return self._committer.commit(parent, write_layer, wanted, named)

    async def pull(
        self, reference: str, platform: Platform | str | None, auth: RegistryAuth | None, progress: Progress
    ) -> Image:
        """From a registry. Without tag and digest, every tag: who means "latest" says so, as docker's CLI does."""
        parsed = parse_reference(reference)
        wanted = _platform(platform)
        try:
            image = await self._puller.pull(parsed, wanted, auth, progress)
            if self._interrupted:
                await asyncio.to_thread(self._forget_interrupted)
            return image
        except BaseException:
            await asyncio.shield(asyncio.to_thread(self.collect))
            raise

    def _forget_interrupted(self) -> None:
        """Let go of interrupted pulls all of whose blobs belong to images by now."""
        kept = set(self._records.blobs())
        for name, digests in list(self._interrupted.items()):
            if all(digest in kept or not self._content.has(digest) for digest in digests):
                self._content.leases.drop(name.__eq__)
                self._interrupted.pop(name, None)

    async def push(self, reference: str, auth: RegistryAuth | None, progress: Progress) -> Sequence[Image]:
        """To a registry. Without tag, every tag of the repository. NotFound when nothing here has that name."""
        return await self._pusher.push(parse_reference(reference), auth, progress)

    async def distribution(self, reference: str, auth: RegistryAuth | None) -> dict[str, Any]:
        """What a registry has under a name: docker's DistributionInspect document."""
        parsed = parse_reference(reference).tagged()
        async with self._puller.connect(parsed, auth) as registry:
            try:
                return await distribution(registry, parsed)
            except WherryError as error:
                raise translate(error, parsed) from None

    async def search(self, term: str, limit: int, filters: Mapping[str, Sequence[str]]) -> Sequence[dict[str, Any]]:
        """Docker's search results."""
        return await search(term, limit, filters, self.registries)

    async def login(self, auth: RegistryAuth) -> str:
        """Check credentials with `auth.server`; the identity token to keep in place of the password, or ""."""
        return await login(auth, self.registries)

    def load(self, stream: BinaryIO, progress: Progress) -> Sequence[str]:
        """Every image of a `docker save` or OCI layout archive, compressed or not; returns their names or ids."""
        with self._cleanly():
            return Loader(self._records, self._layers, self._content, host_platform()).load(stream, progress)

    def save(self, names: Sequence[str], out: BinaryIO) -> None:
        """Images as an archive `load` and `docker load` read. NotFound before anything is written."""
        Saver(self._records, self._content, self.built.complete).save(names, out)

    def save_as(self, image: Image, references: Sequence[Reference], out: BinaryIO) -> None:
        """One image as an archive, under names it need not have here."""
        Saver(self._records, self._content, self.built.complete).save_as(image, references, out)

    def bootstrap(self, reference: str, progress: Progress) -> Image:
        """Make a base image from a distribution's own packages: see wherry.images.bootstrap. Takes up to minutes."""
        named = self._parse_new_name(reference)
        # Not at the top: its module is also a program of its own (python -m).
        from wherry.images.bootstrap import plan

        base = plan(named)
        progress({"status": f"Bootstrapping {named.familiar}"})
        with self._scratch_directory("bootstrap") as scratch:
            tar = Path(scratch) / "rootfs.tar"
            with tar.open("wb") as out:
                base.make(Path(scratch), out, progress)
            with self._cleanly(), tar.open("rb") as packed:
                image = self._importer.import_(
                    packed, named, message=base.message, platform=host_platform(), config=base.config
                )
        progress({"status": f"Bootstrapped {named.familiar}", "id": image.id})
        return image

    def collect(self) -> Collected:
        """Delete blobs and layers nothing refers to."""
        self._layers.sweep(self._records.chains().__contains__)
        return collect(self._content, self._records.blobs)

    def check(self, findings: Findings, *, deep: bool = False) -> None:
        """Images, content and layers against each other; `deep`: every blob against its digest too."""
        check(self._records, self._layers, self._snapshots, self._content, findings, deep=deep)

    def container_removed(self) -> None:
        """Removes the layers of images that went before their last container did; free when there are none."""
        if self._layers.waiting:
            self.collect()

    def _parse_new_name(self, text: str) -> Reference:
        parsed = parse_reference(text)
        check_name(parsed)
        if parsed.digest:
            raise InvalidArgument("cannot import digest reference", object=text)
        return parsed.tagged()

    @contextmanager
    def _cleanly(self) -> Iterator[None]:
        """Collects what an operation that fails leaves behind."""
        try:
            yield
        except BaseException:
            self.collect()
            raise

    def _scratch_directory(self, purpose: str) -> "tempfile.TemporaryDirectory[str]":
        self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=f"{purpose}-", dir=self._scratch)


def _platform(value: Platform | str | None) -> Platform | None:
    return parse_platform(value) if isinstance(value, str) and value else value or None


def has_labels(given: Mapping[str, str], wanted: Sequence[str]) -> bool:
    """Whether every "name" or "name=value" is among the labels."""
    pairs = (label.partition("=") for label in wanted)
    return all(name in given and (not equals or given[name] == value) for name, equals, value in pairs)


def check_name(reference: Reference) -> None:
    """Refuse names that read as digests: `sha256:...` would be taken for an id."""
    if reference.familiar_name in ("sha256", "sha512", "sha384"):
        raise InvalidArgument("refusing to create an ambiguous tag using digest algorithm as name")
