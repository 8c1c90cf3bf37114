"""The contract of wherry.kernel.cgroups.Cgroup on pure cgroup v2, in a virtual machine."""

import json
from pathlib import Path

import pytest
from virtual_machine import Unobtainable, VirtualMachine

from daemon import CACHE, busybox_tar

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "tests/contract/cgroup_suite.py"


@pytest.fixture(scope="session")
def machine() -> VirtualMachine:
    try:
        return VirtualMachine(CACHE / "virtual-machine")
    except Unobtainable as reason:
        pytest.skip(f"no virtual machine: {reason}")


def sources(*rooms: str) -> dict[str, Path]:
    """Wherry's own modules at /wherry in the guest."""
    package = ROOT / "src"
    found = [package / "wherry/__init__.py", package / "wherry/errors.py"]
    for room in rooms:
        found += [path for path in (package / "wherry" / room).rglob("*") if path.suffix in (".py", ".json")]
    return {f"/wherry/{path.relative_to(package)}": path for path in found}


def check(output: str, least: int) -> None:
    """Every check of a suite that prints one JSON line for each."""
    results = [json.loads(line) for line in output.splitlines() if line.startswith('{"check"')]
    failures = {result["check"]: bytes.fromhex(result["failure"]).decode() for result in results if result["failure"]}
    assert not failures, "\n".join(f"{name}:\n{text}" for name, text in failures.items())
    assert len(results) >= least, output


def test_contract_on_v2(machine: VirtualMachine) -> None:
    files = {**sources("kernel"), "/suite/cgroup_suite.py": SUITE}
    check(machine.run(files, "/suite/cgroup_suite.py", timeout=120), 11)


def test_containers_on_v2(machine: VirtualMachine) -> None:
    files = {
        **sources("kernel", "spec", "ipc", "runtime"),
        "/suite/containers.py": Path(__file__).with_name("v2_containers.py"),
    }
    files["/busybox.tar"] = busybox_tar()
    check(machine.run(files, "/suite/containers.py", timeout=120), 5)
