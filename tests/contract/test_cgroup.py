"""The contract of wherry.kernel.cgroups.Cgroup on this host's own layout."""

import os

import cgroup_suite
import pytest

from wherry.kernel.cgroups import cgroup, layout


@pytest.mark.root
@pytest.mark.parametrize("title", cgroup_suite.CHECKS)
def test_contract(title: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("cgroups are root's")
    try:
        layout()
    except OSError as error:
        pytest.skip(f"no cgroups here: {error}")
    parent = f"/wherry-test-{os.getpid()}-{title[:20]}"
    try:
        cgroup_suite.run(cgroup_suite.CHECKS[title], f"{parent}/group")
    finally:
        cgroup(parent).delete()
