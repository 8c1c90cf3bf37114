from pathlib import Path

import pytest

from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.runtime.state import Exit, Process, Record, StateFile, list_ids

RECORD = Record("c", "/bundle", "/bundle/rootfs", "/g", 5, False, "now", {"a": "b"}, "1.2.0")


def test_lines_are_added_and_read_back(tmp_path: Path) -> None:
    saved = StateFile(str(tmp_path), "c")
    with pytest.raises(NotFound):
        saved.load()
    saved.create(RECORD)
    with pytest.raises(Conflict):
        saved.create(RECORD)
    assert saved.load() == (RECORD, None, None)
    saved.add_process(Process(7, 99))
    saved.add_exit(Exit("c", None, 3, True, 5))
    assert saved.load() == (RECORD, Process(7, 99), Exit("c", None, 3, True, 5))
    saved.add_exec("e", Process(8, 100))
    assert saved.execs() == {"e": Process(8, 100)}
    assert list_ids(str(tmp_path)) == ["c"]
    saved.remove_exec("e")
    saved.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_line_cut_off_by_a_crash_does_not_count(tmp_path: Path, cut: int) -> None:
    saved = StateFile(str(tmp_path), "c")
    saved.create(RECORD)
    saved.add_process(Process(7, 99))
    path = Path(saved.path)
    path.write_bytes(path.read_bytes()[:-cut])
    if cut <= len("[7,99]\n"):
        assert saved.load() == (RECORD, None, None)
    else:
        with pytest.raises(NotFound):
            saved.load()


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "a~b", "a b", "é", "x" * 256, "a\n"])
def test_ids_that_are_not_file_names(bad: str) -> None:
    with pytest.raises(InvalidArgument):
        StateFile("/root", bad)
