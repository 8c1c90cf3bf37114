import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from bundle import CGROUPS, Box

from wherry.kernel.cgroups import cgroup


@pytest.fixture(scope="session", autouse=True)
def _cgroups() -> Iterator[None]:
    yield
    if os.geteuid() == 0:
        cgroup(CGROUPS).delete()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    made = Box(tmp_path)
    yield made
    made.close()
