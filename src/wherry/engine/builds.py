"""Builds: from a request to an image, with the engine's own store, runtime and networks."""

import asyncio
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from wherry.build.cache import BuildCache
from wherry.build.cache_mounts import CacheMounts
from wherry.build.contexts import ContextStore
from wherry.build.dockerfile.parse import Dockerfile, parse
from wherry.build.execution import Solved, Sources
from wherry.build.export import describe
from wherry.build.fetch import Fetches
from wherry.build.graph import ImageTree, Plan, walk
from wherry.build.image_cache import ImageCache
from wherry.build.plan import Planner
from wherry.build.progress import OnEvent
from wherry.build.request import BuildRequest, ImageSource
from wherry.build.sharing import Busy
from wherry.build.solver import Solve, Solver
from wherry.engine.build_steps import StepRunner
from wherry.engine.core import Core
from wherry.errors import InvalidArgument, NotFound
from wherry.images.image import Image
from wherry.spec.digest import sha256
from wherry.spec.oci_image import write_config
from wherry.spec.platform import Platform, preference
from wherry.spec.reference import Reference, parse_reference

_CONTEXT_SECONDS = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A finished build: its image, and what was planned for it."""

    image: Image
    plan: Plan
    cached: bool
    new: bool = True
    """Whether there was no such image before."""


class BaseImages:
    """The builder's ImageSource: what is here, else what can be pulled."""

    def __init__(self, core: Core, auth: Any = None, progress: Any = None) -> None:
        self._core, self._auth, self._progress = core, auth, progress or (lambda message: None)

    async def image(self, reference: str, platform: Platform, *, pull: bool) -> Image:
        images: Any = self._core.parts.images
        if not pull:
            try:
                found: Image = images.resolve(reference)
            except NotFound:
                pass
            else:
                if preference(platform, found.platform) is not None:
                    return found
        parsed = parse_reference(reference)
        auth = self._auth(parsed) if self._auth is not None else None
        pulled: Image = await images.pull(str(parsed.tagged()), platform, auth, self._progress)
        return pulled


class Builds:
    """Every build of the daemon."""

    def __init__(self, core: Core) -> None:
        self._core = core
        root = core.config.data_root / "build"
        parts: Any = core.parts
        self.caches = CacheMounts(root / "caches")
        self.cache = BuildCache(parts.store, parts.images.built, parts.snapshots)
        busy = Busy(core.transient)
        runner = StepRunner(core, self.caches, root / "scratch", busy)
        self.on_exit = runner.on_exit
        self.solver = Solver(parts.snapshots, parts.images.built, self.cache, runner, Fetches(root / "fetched"), busy)
        self.contexts = root / "incoming"
        shutil.rmtree(self.contexts, ignore_errors=True)
        self.contexts.mkdir(mode=0o700, parents=True)
        self.kept = ContextStore(root / "contexts")
        self.kept.prune(_CONTEXT_SECONDS)
        self.running: dict[str, asyncio.Task[Any]] = {}

    def base_images(self, auth: Any = None, progress: Any = None) -> BaseImages:
        """Where FROM finds images. `auth`: from a Reference to credentials or None; `progress`: of pulls."""
        return BaseImages(self._core, auth, progress)

    def cache_images(self, names: Sequence[str]) -> tuple[tuple[Image, ...], tuple[str, ...]]:
        """The images of these names that are here, and the names of those that are not."""
        images: Any = self._core.parts.images
        found: list[Image] = []
        absent: list[str] = []
        for name in names:
            try:
                found.append(images.resolve(name))
            except NotFound:
                absent.append(name)
        return tuple(found), tuple(absent)

    async def build(
        self,
        request: BuildRequest,
        sources: Sources,
        emit: OnEvent,
        *,
        names: Sequence[str] = (),
        base_images: ImageSource | None = None,
        dockerfile: Dockerfile | None = None,
        on_plan: Callable[[Plan], None] | None = None,
    ) -> BuildResult:
        """Build and record an image with `names`. Whatever fails leaves finished steps in the cache, and no more."""
        references = [_name(name) for name in names]
        run = await self.solve(request, sources, emit, base_images=base_images, dockerfile=dockerfile, on_plan=on_plan)
        try:
            return await run.image(references)
        finally:
            run.close()

    async def solve(
        self,
        request: BuildRequest,
        sources: Sources,
        emit: OnEvent,
        *,
        base_images: ImageSource | None = None,
        dockerfile: Dockerfile | None = None,
        on_plan: Callable[[Plan], None] | None = None,
    ) -> "BuildRun":
        """Make every step; what becomes of them is asked of the result, which must be closed."""
        parsed = dockerfile if dockerfile is not None else parse(request.dockerfile)
        plan = await Planner(request, parsed, base_images or BaseImages(self._core)).plan()
        if on_plan is not None:
            on_plan(plan)
        solve = Solve(self.solver, sources, emit, ImageCache(plan, sources.cache_from), _epoch_ns(request))
        try:
            return BuildRun(self, plan, solve, request, await solve.run(plan.result))
        except BaseException:
            solve.__exit__()
            raise

    def export(self, plan: Plan, solve: Solve, names: Sequence[Reference], request: BuildRequest) -> BuildResult:
        """In a thread: a solved plan as an image."""
        images: Any = self._core.parts.images
        base = next((node.operation for node in walk(plan.result) if _is_base(plan, node)), None)
        below: Image | None = None
        if isinstance(base, ImageTree) and base.chain is not None:
            below = images.resolve(base.image) if base.image else None
        layers = below.sources if below is not None else ()
        records = [solve.record_of(step.node) for step in plan.steps if step.node is not None]
        epoch = _epoch_ns(request)
        below_ids = [layer.diff_id for layer in layers]
        now = time.time_ns() if epoch is None else epoch
        config = describe(plan, below_ids, solve.record_of, now, fixed=epoch is not None)
        built = [record.built for record in records if record is not None]
        try:
            images.resolve(sha256(write_config(config)))
            new = False
        except NotFound:
            new = True
        image = images.built.put(config, layers, built, names)
        self._core.events.emit(
            "image", "build" if not names else "tag", image.id, {"name": str(names[0]) if names else image.id}
        )
        return BuildResult(image, plan, all(record is None or record.uses > 0 for record in records), new)


class BuildRun:
    """A build whose steps are done. Their layers are held until it is closed."""

    def __init__(self, builds: Builds, plan: Plan, solve: Solve, request: BuildRequest, solved: Solved) -> None:
        self._builds, self._solve = builds, solve
        self.plan, self.request, self.solved = plan, request, solved

    async def image(self, names: Sequence[Reference]) -> BuildResult:
        """Record the image, with `names`."""
        return await asyncio.to_thread(self._builds.export, self.plan, self._solve, names, self.request)

    def close(self) -> None:
        """Let go of the layers."""
        self._solve.__exit__()


def _is_base(plan: Plan, node: Any) -> bool:
    """Whether a node is what the target's chain of steps stands on."""
    current = plan.result
    while current.inputs:
        current = current.inputs[0]
    return node is current


def _epoch_ns(request: BuildRequest) -> int | None:
    """SOURCE_DATE_EPOCH in nanoseconds; None where it is not given."""
    text = request.build_args.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise InvalidArgument(f"SOURCE_DATE_EPOCH {text!r} is not a number of seconds since 1970", object=text)
    return int(text) * 10**9


def _name(text: str) -> Reference:
    parsed = parse_reference(text)
    if parsed.digest:
        raise InvalidArgument("invalid tag: a digest cannot be given to what is built", object=text)
    return parsed.tagged()
