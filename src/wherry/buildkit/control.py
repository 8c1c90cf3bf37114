"""moby.buildkit.v1.Control: builds begun, watched and ended; workers; the build cache."""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from wherry import __version__
from wherry.buildkit.exporters import Exports
from wherry.buildkit.failures import BuildFailed, build_failed
from wherry.buildkit.frontend import FRONTENDS, Built, Frontend
from wherry.buildkit.grpc import Call, Handler
from wherry.buildkit.jobs import Job, Jobs
from wherry.buildkit.messages import buildkit_pb2 as pb
from wherry.buildkit.sessions import Sessions
from wherry.errors import InvalidArgument, Unimplemented, WherryError
from wherry.spec.platform import host_platform

if TYPE_CHECKING:
    from wherry.engine import Engine

_SERVICE = "/moby.buildkit.v1.Control/"
_ENTITLEMENTS = ("network.host", "security.insecure")


class Control:
    """The calls."""

    def __init__(self, engine: "Engine", jobs: Jobs, sessions: Sessions, frontend: Frontend) -> None:
        self._engine, self._jobs, self._sessions, self._frontend = engine, jobs, sessions, frontend

    def handlers(self) -> dict[str, Handler]:
        return {
            f"{_SERVICE}Solve": self._solve,
            f"{_SERVICE}Status": self._status,
            f"{_SERVICE}ListWorkers": self._list_workers,
            f"{_SERVICE}Info": self._info,
        }

    # -- builds

    async def _solve(self, call: Call) -> None:
        request = await call.one(pb.SolveRequest)
        job = self._jobs.begin(request.ref, request.session)
        try:
            job.entitlements = _entitlements(request)
            response = await self._run(job, request)
        finally:
            self._jobs.end(job)
        call.begin()
        await call.send(pb.SolveResponse(exporter_response=response))

    async def _run(self, job: Job, request: pb.SolveRequest) -> Mapping[str, str]:
        for entry in request.cache.exports:
            raise Unimplemented(f"exporting the cache ({entry.type}) is not supported yet", object=entry.type)
        if request.source_policy:
            raise Unimplemented("source policies are not supported")
        if request.definition.operations:
            raise Unimplemented("build definitions (LLB) are not supported: there is the frontend dockerfile.v0")
        if request.frontend:
            if request.frontend not in FRONTENDS:
                raise Unimplemented(f"frontend {request.frontend!r} is not supported: there is dockerfile.v0")
            built = await self._frontend.solve(job, dict(request.frontend_attrs), request.frontend_inputs)
            if not isinstance(built, Built):
                return {name: value.decode("utf-8", "replace") for name, value in built.items()}
            job.keep(built)
            result: list[Built] = [built]
        else:
            result = await self._returned(job)
        try:
            if not result:
                # A question was asked, and its answer is with the client.
                return {}
            if len(result) > 1:
                raise Unimplemented("results for several platforms are not supported yet", object="platform")
            return await Exports(self._engine, self._sessions, job, result[0]).run(request.exporters)
        except (WherryError, OSError) as error:
            raise build_failed(error, None) from error

    async def _returned(self, job: Job) -> list[Built]:
        """What the client, which steers the build itself, says its result is."""
        answer = await job.returned
        if answer.HasField("error") and answer.error.code:
            raise BuildFailed(answer.error)
        result = answer.result
        ids = [result.ref.id] if result.ref.id else [ref.id for ref in result.refs.refs.values() if ref.id]
        found = [job.outcome(id) for id in ids]
        return [one for one in found if isinstance(one, Built)]

    async def _status(self, call: Call) -> None:
        request = await call.one(pb.StatusRequest)
        job = await self._jobs.get(request.ref)
        call.begin()
        async for report in job.reports():
            await call.send(report)

    # -- what there is

    async def _list_workers(self, call: Call) -> None:
        await call.one(pb.Empty)
        call.begin()
        await call.send(pb.ListWorkersResponse(record=[self.worker()]))

    async def _info(self, call: Call) -> None:
        await call.one(pb.Empty)
        call.begin()
        await call.send(pb.InfoResponse(version=_version()))

    def worker(self) -> pb.WorkerRecord:
        """The only one."""
        host = host_platform()
        name = hashlib.sha256(str(self._engine.config.data_root).encode()).hexdigest()[:25]
        return pb.WorkerRecord(
            id=name,
            labels={
                "org.mobyproject.buildkit.worker.executor": "wherry",
                "org.mobyproject.buildkit.worker.snapshotter": "overlayfs",
                "org.mobyproject.buildkit.worker.moby.host-gateway-ip": self._engine.networks.gateway,
            },
            platforms=[pb.Platform(architecture=host.architecture, os=host.os, variant=host.variant)],
            version=_version(),
        )


def _version() -> pb.BuildkitVersion:
    return pb.BuildkitVersion(package="wherry", version=f"v{__version__}")


def _entitlements(request: pb.SolveRequest) -> frozenset[str]:
    for name in request.entitlements:
        if name not in _ENTITLEMENTS:
            raise InvalidArgument(f"unknown entitlement {name!r}", object=name)
    return frozenset(request.entitlements)
