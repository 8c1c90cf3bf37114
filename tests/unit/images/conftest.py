import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from image_fakes import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)
