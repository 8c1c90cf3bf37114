"""The contract of wherry.state.Store, run on every implementation."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wherry.state import Delete, MemoryStore, Put, SQLiteStore, Store


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store = MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "state" / "state.db")
    yield made
    made.close()


def test_absent_key_is_none(store: Store) -> None:
    assert store.get("containers/none") is None


def test_put_replaces_and_delete_removes(store: Store) -> None:
    store.write(Put("a", b"1"))
    store.write(Put("a", b"2"), Put("b", b"3"))
    assert store.get("a") == b"2"
    store.write(Delete("a"), Delete("never-there"))
    assert store.get("a") is None
    assert store.get("b") == b"3"


def test_last_change_of_a_key_wins(store: Store) -> None:
    store.write(Put("a", b"1"), Delete("a"))
    assert store.get("a") is None
    store.write(Delete("a"), Put("a", b"2"))
    assert store.get("a") == b"2"


def test_a_batch_that_fails_changes_nothing(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "state.db")
    with pytest.raises(Exception, match="NOT NULL"):
        store.write(Put("a", b"1"), Put("b", None))  # type: ignore[arg-type]
    assert store.scan("") == []
    store.close()


def test_closed_store_refuses(store: Store) -> None:
    store.close()
    store.close()
    with pytest.raises(ValueError, match="closed"):
        store.get("a")


def test_survives_reopening_without_close(tmp_path: Path) -> None:
    first = SQLiteStore(tmp_path / "state.db")
    first.write(Put("a", b"1"))
    second = SQLiteStore(tmp_path / "state.db")
    assert second.get("a") == b"1"
    second.close()
    first.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(keys=st.sets(st.text(alphabet="ab/é", min_size=1, max_size=4), max_size=8), prefix=st.text("ab/é", max_size=3))
def test_scan_is_ordered_and_complete(store: Store, keys: set[str], prefix: str) -> None:
    store.write(*(Delete(key) for key, _ in store.scan("")), *(Put(key, key.encode()) for key in keys))
    assert store.scan(prefix) == [(key, key.encode()) for key in sorted(keys) if key.startswith(prefix)]
