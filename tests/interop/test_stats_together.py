"""One sample of many containers, Wherry's own, against docker's documents of each."""

import subprocess
import sys
from typing import Any

import pytest

from daemon import PEER
from engine_client import Api

pytestmark = [pytest.mark.root, pytest.mark.skipif(bool(PEER), reason="Wherry's own")]


def used(document: dict[str, Any]) -> float:
    now, before = document["cpu_stats"], document["precpu_stats"]
    own = now["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    return float(own / (now["system_cpu_usage"] - before["system_cpu_usage"]) * now["online_cpus"])


def test_one_sample_of_all(api: Api, image: str, name: str) -> None:
    busy = api.run(f"{name}-busy", Image=image, Cmd=["sh", "-c", "while :; do :; done"])
    host = {"Memory": 64 << 20, "NetworkMode": "none"}
    idle = api.run(f"{name}-idle", Image=image, Cmd=["sleep", "600"], HostConfig=host)
    made = api.create(f"{name}-made", Image=image)
    found = {row["id"]: row for row in api.get("/wherry/containers/stats?all=1").json}
    assert {busy, idle, made} <= found.keys()
    assert made not in {row["id"] for row in api.get("/wherry/containers/stats").json}
    # A processor shared with others may be had in part only.
    assert used(found[idle]) < 0.05 < used(found[busy]) < 1.5
    alone = api.get(f"/containers/{idle}/stats?stream=0&one-shot=1").json
    assert found[idle]["memory_stats"]["limit"] == alone["memory_stats"]["limit"] == 64 << 20
    assert found[idle]["pids_stats"]["current"] == alone["pids_stats"]["current"] == 1
    assert abs(found[idle]["memory_stats"]["usage"] - alone["memory_stats"]["usage"]) < 1 << 20
    assert found[busy]["networks"].keys() == {"eth0"}
    assert "cpu_stats" not in found[made]
    assert [row["id"] for row in api.get(f"/wherry/containers/stats?name={name}-idle").json] == [idle]
    assert api.get(f"/wherry/containers/stats?name={name}-nobody").status == 404


def test_the_table_has_one_line_of_each(api: Api, image: str, name: str, host: str) -> None:
    for end in ("a", "b", "c"):
        api.run(f"{name}-{end}", Image=image, Cmd=["sleep", "600"], HostConfig={"NetworkMode": "none"})
    names = [f"{name}-{end}" for end in ("b", "a", "c")]
    command = [sys.executable, "-m", "wherry.cli.main", "-H", host, "stats", "--no-stream", *names]
    lines = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.splitlines()
    assert lines[0].split()[:2] == ["CONTAINER", "ID"]
    assert [line.split()[1] for line in lines[1:]] == names
