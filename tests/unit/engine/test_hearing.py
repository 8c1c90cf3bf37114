"""Which processes a signal can reach, as /proc shows it."""

import signal
import subprocess
import sys

import pytest

from wherry.engine.hearing import hears


@pytest.mark.parametrize(
    ("setting", "as_first", "as_other"),
    [
        ("pass", False, True),
        ("signal.signal(signal.SIGTERM, print)", True, True),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", False, False),
        ("signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})", True, True),
        (
            "import threading, time; threading.Thread(target=lambda: (signal.pthread_sigmask(signal.SIG_BLOCK, "
            "{signal.SIGTERM}), ready.set(), time.sleep(600)), daemon=True).start(); ready.wait()",
            True,
            True,
        ),
    ],
    ids=["default", "handler", "ignored", "blocked", "blocked-by-a-thread"],
)
def test_hears(setting: str, as_first: bool, as_other: bool) -> None:
    code = (
        f"import signal, sys, threading; ready = threading.Event(); {setting}; print('r', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"r\n"
        assert hears(process.pid, signal.SIGTERM, first=True) == as_first
        assert hears(process.pid, signal.SIGTERM, first=False) == as_other
    finally:
        process.kill()
        process.communicate()
    # Nothing can be seen of what is no more: then it is waited for, as ever.
    assert hears(process.pid, signal.SIGTERM, first=True)
