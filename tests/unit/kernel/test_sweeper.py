import os
import signal
from pathlib import Path

import pytest

from wherry.kernel.sweeper import Sweeper


def tree(path: Path) -> Path:
    (path / "a" / "b").mkdir(parents=True)
    (path / "a" / "file").write_text("x")
    return path


def test_close_waits_for_what_was_discarded(tmp_path: Path) -> None:
    keep = tree(tmp_path / "keep")
    gone = tree(tmp_path / "gone")
    os.symlink(keep, gone / "a" / "link")
    sweeper = Sweeper("test")
    sweeper.discard(str(gone))
    sweeper.discard(str(tmp_path / "never-there"))
    sweeper.close()
    sweeper.close()
    assert sorted(os.listdir(tmp_path)) == ["keep"]
    assert (keep / "a" / "file").exists()


def test_one_that_cannot_be_deleted_does_not_stop_the_others(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    gone = tree(tmp_path / "gone")
    sweeper = Sweeper("test")
    sweeper.discard("/proc/self/status")
    sweeper.discard(str(gone))
    sweeper.close()
    assert not gone.exists()
    assert "/proc/self/status" in capfd.readouterr().err


def test_a_dead_process_is_replaced(tmp_path: Path) -> None:
    sweeper = Sweeper("test")
    sweeper.discard(str(tree(tmp_path / "first")))
    os.kill(sweeper._pid, signal.SIGKILL)
    os.waitid(os.P_PID, sweeper._pid, os.WEXITED | os.WNOWAIT)
    sweeper.discard(str(tree(tmp_path / "second")))
    sweeper.close()
    assert not (tmp_path / "second").exists()
