"""Builds by the name their client gave them (its `ref`): what they report, what they made, how they end."""

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Protocol

from wherry.buildkit.messages import buildkit_pb2 as pb
from wherry.errors import Conflict, InvalidArgument, NotFound

_FINISHED_KEPT = 16
_JOBS_MAX = 1000
_REPORT_MAX = 200_000


class Outcome(Protocol):
    """What a frontend made, held until its job ends."""

    def close(self) -> None: ...


class Job:
    """One call of Control.Solve. Its reports are kept for clients that ask late."""

    def __init__(self, ref: str, session: str) -> None:
        self.ref, self.session = ref, session
        self.began_ns = time.time_ns()
        self.outcomes: dict[str, Outcome] = {}
        self.returned: asyncio.Future[pb.ReturnRequest] = asyncio.get_running_loop().create_future()
        self.entitlements: frozenset[str] = frozenset()
        self.inputs: dict[str, pb.Definition] = {}
        self.solved = 0
        self.finished = False
        self._reports: list[pb.StatusResponse] = []
        self._news = asyncio.Event()

    def send(self, report: pb.StatusResponse) -> None:
        """Report progress. What is given may be changed afterwards."""
        if len(self._reports) < _REPORT_MAX:
            kept = pb.StatusResponse()
            kept.CopyFrom(report)
            self._reports.append(kept)
            self._news.set()

    async def reports(self) -> AsyncIterator[pb.StatusResponse]:
        """All reports, from the first; ends with the job. What came together is sent together."""
        position = 0
        while True:
            if position == len(self._reports):
                if self.finished:
                    return
                self._news.clear()
                await self._news.wait()
                continue
            together, size = pb.StatusResponse(), 0
            while position < len(self._reports) and size < 1 << 20:
                together.MergeFrom(self._reports[position])
                size += self._reports[position].ByteSize()
                position += 1
            yield together

    def keep(self, outcome: Outcome) -> str:
        """Hold what was made; its name for the client."""
        id = secrets.token_hex(13)
        self.outcomes[id] = outcome
        return id

    def outcome(self, id: str) -> Outcome:
        found = self.outcomes.get(id)
        if found is None:
            raise NotFound(f"no such ref: {id}", object=id)
        return found

    def finish(self) -> None:
        """It is over, one way or another."""
        self.finished = True
        self._news.set()
        for outcome in self.outcomes.values():
            outcome.close()
        self.outcomes.clear()
        if not self.returned.done():
            self.returned.cancel()


class Jobs:
    """The jobs of one daemon. The loop's thread."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._waiting: dict[str, asyncio.Future[Job]] = {}

    def begin(self, ref: str, session: str) -> Job:
        if not ref or len(ref) > 128:
            raise InvalidArgument("a build has a ref of at most 128 characters")
        known = self._jobs.get(ref)
        if known is not None and not known.finished:
            raise Conflict(f"build {ref} exists", object=ref)
        if len(self._jobs) >= _JOBS_MAX:
            raise InvalidArgument(f"there are {_JOBS_MAX} builds already")
        job = self._jobs[ref] = Job(ref, session)
        waiting = self._waiting.pop(ref, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(job)
        return job

    def end(self, job: Job) -> None:
        job.finish()
        finished = [ref for ref, one in self._jobs.items() if one.finished]
        for ref in finished[:-_FINISHED_KEPT]:
            del self._jobs[ref]

    async def get(self, ref: str, patience: float = 3.0) -> Job:
        """The job, which may be about to begin: a client asks for its status before or after."""
        job = self._jobs.get(ref)
        if job is not None:
            return job
        waiting = self._waiting.get(ref)
        if waiting is None:
            waiting = self._waiting[ref] = asyncio.get_running_loop().create_future()
        try:
            return await asyncio.wait_for(asyncio.shield(waiting), patience)
        except TimeoutError:
            raise NotFound(f"no such job {ref}", object=ref) from None
        finally:
            if self._waiting.get(ref) is waiting and not waiting.done():
                del self._waiting[ref]
