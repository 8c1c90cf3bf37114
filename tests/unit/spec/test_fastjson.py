import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import wherry
from wherry.spec import fastjson

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(_VALUES)
def test_agrees_with_the_standard_library(value: Any) -> None:
    assert fastjson.loads(json.dumps(value, indent=2)) == value
    assert json.loads(fastjson.dumps(value)) == value
    assert fastjson.loads(fastjson.dumps(value).encode()) == value


@pytest.mark.parametrize("text", ["", " ", "{", '{"a" 1}', "[1,]", "1 2", '"\n"', "nul", "NaN", '{"a":1}x', b"\xff"])
def test_refuses_what_is_not_json(text: str) -> None:
    with pytest.raises(ValueError):
        fastjson.loads(text)


def test_does_not_import_regular_expressions() -> None:
    source = str(Path(wherry.__file__).parent.parent)
    program = f"import sys; sys.path.insert(0, {source!r}); import wherry.spec.fastjson; print('re' in sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
