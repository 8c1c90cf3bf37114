"""The frontend's door (LLBBridge) of a build that its client steers: buildx asks for dockerfile.v0 here."""

from wherry.buildkit.control import Control
from wherry.buildkit.frontend import FRONTENDS, Built, Frontend
from wherry.buildkit.grpc import Call, Handler
from wherry.buildkit.jobs import Job, Jobs
from wherry.buildkit.links import definition_of
from wherry.buildkit.messages import buildkit_pb2 as pb
from wherry.buildkit.sessions import first
from wherry.errors import InvalidArgument, Unimplemented

_SERVICE = "/moby.buildkit.v1.frontend.LLBBridge/"
_CAPABILITIES = (
    "frontend.caps",
    "frontend.inputs",
    "gateway.evaluate",
    "gateway.solve.evaluate",
    "gateway.solve.metadata",
    "gateway.warnings",
    "importcaches",
    "proto.refarray",
    "reference.output",
    "return",
    "returnmap",
    "solve.base",
)
_OPERATIONS = (
    "constraints",
    "meta.description",
    "meta.ignorecache",
    "platform",
    "source.git",
    "source.http",
    "source.image",
    "source.local",
    "source.local.excludepatterns",
    "source.local.followpaths",
    "source.local.includepatterns",
    "source.local.sessionid",
    "source.local.sharedkeyhint",
    "source.local.unique",
    "exporter.multiple",
    "exporter.sourcedateepoch",
    "meta.exportcache",
)


class Bridge:
    """The calls. Each names its build in the metadata."""

    def __init__(self, jobs: Jobs, frontend: Frontend, control: Control) -> None:
        self._jobs, self._frontend, self._control = jobs, frontend, control

    def handlers(self) -> dict[str, Handler]:
        return {
            f"{_SERVICE}Ping": self._ping,
            f"{_SERVICE}Solve": self._solve,
            f"{_SERVICE}Return": self._return,
            f"{_SERVICE}Inputs": self._inputs,
            f"{_SERVICE}Evaluate": self._evaluate,
        }

    async def _job(self, call: Call) -> Job:
        ref = first(call.metadata, "buildkit-controlapi-buildid")
        if not ref:
            raise InvalidArgument("no build is named (buildkit-controlapi-buildid)")
        return await self._jobs.get(ref)

    async def _ping(self, call: Call) -> None:
        await self._job(call)
        await call.one(pb.Empty)
        call.begin()
        await call.send(
            pb.PongResponse(
                frontend=[pb.Capability(id=name, enabled=True) for name in _CAPABILITIES],
                operations=[pb.Capability(id=name, enabled=True) for name in _OPERATIONS],
                workers=[self._control.worker()],
            )
        )

    async def _solve(self, call: Call) -> None:
        job = await self._job(call)
        request = await call.one(pb.BridgeSolveRequest)
        if request.frontend not in FRONTENDS:
            what = f"frontend {request.frontend!r}" if request.frontend else "a build definition (LLB)"
            raise Unimplemented(f"{what} is not supported: there is dockerfile.v0", object=request.frontend)
        built = await self._frontend.solve(job, dict(request.frontend_opt), request.frontend_inputs)
        result = pb.Result()
        result.ref.SetInParent()
        if isinstance(built, Built):
            id = result.ref.id = job.keep(built)
            result.ref.definition.CopyFrom(definition_of(id))
            self._frontend.link(id, built)
        else:
            for name, value in built.items():
                result.metadata[name] = value
        call.begin()
        await call.send(pb.BridgeSolveResponse(result=result))

    async def _return(self, call: Call) -> None:
        job = await self._job(call)
        request = await call.one(pb.ReturnRequest)
        if not job.returned.done():
            job.returned.set_result(request)
        call.begin()
        await call.send(pb.Empty())

    async def _inputs(self, call: Call) -> None:
        job = await self._job(call)
        await call.one(pb.Empty)
        call.begin()
        await call.send(pb.InputsResponse(definitions=job.inputs))

    async def _evaluate(self, call: Call) -> None:
        """What a ref stands for was made before the client heard of it."""
        job = await self._job(call)
        job.outcome((await call.one(pb.EvaluateRequest)).ref)
        call.begin()
        await call.send(pb.Empty())
