"""`wherry update`: docker's limits and restart policy; beyond it, everything else about an existing container."""

from __future__ import annotations

from wherry.cli.create import CONVERT
from wherry.cli.flags import Command, StatusError
from wherry.cli.many import each
from wherry.cli.update_flags import ALIASES, DOCKERS, FLAGS, REFUSE
from wherry.client.engine import segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli
    from wherry.client.engine import Pending


def update(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    if not flags.changed:
        raise StatusError("you must provide one or more flags when using this command", 1)
    if flags.changed <= DOCKERS:
        body, verb = _limits(flags), "update"
        body["RestartPolicy"] = _restart(flags)
    else:
        from wherry.cli.update_body import body as alteration

        body, verb = alteration(flags, _limits(flags), _restart(flags)), "alter"
    engine = cli.engine
    warnings: list[str] = []

    def done(name: str, pending: Pending) -> None:
        warnings.extend(pending.value().get("Warnings") or ())
        print(name)

    try:
        each(arguments, lambda name: engine.send("POST", f"/containers/{segment(name)}/{verb}", (), (), body), done)
    finally:
        for warning in warnings:
            print(warning)
    return 0


def _limits(flags: Flags) -> dict[str, Any]:
    return {
        "BlkioWeight": flags["blkio-weight"],
        "CpusetCpus": flags["cpuset-cpus"],
        "CpusetMems": flags["cpuset-mems"],
        "CpuShares": flags["cpu-shares"],
        "Memory": flags["memory"],
        "MemoryReservation": flags["memory-reservation"],
        "MemorySwap": flags["memory-swap"] or 0,
        "CpuPeriod": flags["cpu-period"],
        "CpuQuota": flags["cpu-quota"],
        "CpuRealtimePeriod": flags["cpu-rt-period"],
        "CpuRealtimeRuntime": flags["cpu-rt-runtime"],
        "NanoCpus": flags["cpus"] or 0,
        "PidsLimit": flags["pids-limit"] or None,
    }


def _restart(flags: Flags) -> dict[str, Any]:
    from wherry.cli.create_body import restart_policy

    return restart_policy(flags["restart"]) if "restart" in flags else {"Name": "", "MaximumRetryCount": 0}


COMMANDS = {"update": Command(update, FLAGS, (1, None), True, CONVERT, ALIASES, REFUSE)}
