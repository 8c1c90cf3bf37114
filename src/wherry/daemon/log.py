"""The daemon's own log: one line per record on standard error, as dockerd's (logfmt) or as JSON."""

import json
import logging
import sys
import time

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}
_NAMES = {logging.WARNING: "warning", logging.CRITICAL: "fatal"}


class _Formatter(logging.Formatter):
    def __init__(self, form: str) -> None:
        super().__init__()
        self._json = form == "json"

    def format(self, record: logging.LogRecord) -> str:
        """One line: time, level, message, the part of the program it is from, and an exception's trace."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields = {
            "time": f"{seconds}.{int(record.created % 1 * 1e9):09d}Z",
            "level": _NAMES.get(record.levelno, record.levelname.lower()),
            "msg": record.getMessage(),
            "module": record.name.removeprefix("wherry."),
        }
        if record.exc_info:
            fields["trace"] = self.formatException(record.exc_info)
        if self._json:
            return json.dumps(fields)
        return " ".join(f"{name}={_quote(name, value)}" for name, value in fields.items())


def _quote(name: str, value: str) -> str:
    return value if name in ("level", "module") else json.dumps(value, ensure_ascii=False)


def set_up_log(level: str, form: str) -> None:
    """Send the log of every room to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(form))
    logging.basicConfig(level=_LEVELS[level], handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    # Nobody reads where in the source a record was made; finding it out costs more than the record.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def set_level(level: str) -> None:
    """Change the level while running."""
    logging.getLogger().setLevel(_LEVELS[level])
