import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from networld import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    made = World(tmp_path)
    try:
        try:
            made.build()
        except PermissionError as error:
            pytest.skip(f"network namespaces cannot be made here: {error}")
        yield made
    finally:
        made.tear_down()
