"""Detach keys against a simple model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.api.detach import DetachKeys, parse_keys
from wherry.errors import InvalidArgument


@given(st.lists(st.binary(max_size=6).map(lambda b: bytes(x % 3 + 97 for x in b)), max_size=8))
def test_everything_before_the_keys_is_passed_on(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    keys = DetachKeys("a,b,a,c")
    passed, detached = b"", False
    for chunk in chunks:
        out, detached = keys.feed(chunk)
        passed += out
        if detached:
            break
    place = whole.find(b"abac")
    assert detached == (place >= 0)
    if detached:
        assert passed == whole[:place]
    else:
        # Only a start of the keys may be held back.
        assert whole.startswith(passed)
        assert b"abac".startswith(whole[len(passed) :])


def test_keys_are_parsed_as_docker_parses_them() -> None:
    assert parse_keys("ctrl-p,ctrl-q") == b"\x10\x11"
    assert parse_keys("a,ctrl-@,ctrl-[,ctrl-_") == b"a\x00\x1b\x1f"
    for bad in ("", "ctrl-1", "ab", "ctrl-P", "a,"):
        with pytest.raises(InvalidArgument):
            parse_keys(bad)
