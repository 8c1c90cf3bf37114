import sqlite3
from pathlib import Path
from threading import Event, Lock, Thread

from wherry.state._store import Change, Put

# A commit in write-ahead mode with synchronous=NORMAL is one buffered write (about 30 us): it survives the
# death of the process. What blocks is moving the log back into the database (fsync), so that is taken out of
# the commit path and done by a thread of its own.
_CHECKPOINT_SECONDS = 5.0


class SQLiteStore:
    """A Store in one SQLite file, mode 0600, made when absent."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        self._lock = Lock()
        self._db: sqlite3.Connection | None = self._connect()
        self._db.execute("CREATE TABLE IF NOT EXISTS items (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
        self._dirty = False
        self._closing = Event()
        self._checkpointer = Thread(target=self._checkpoint_forever, name="state-checkpoint", daemon=True)
        self._checkpointer.start()

    def get(self, key: str) -> bytes | None:
        with self._lock:
            row = self._open().execute("SELECT value FROM items WHERE key = ?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def scan(self, prefix: str) -> list[tuple[str, bytes]]:
        with self._lock:
            if not prefix:
                rows = self._open().execute("SELECT key, value FROM items ORDER BY key").fetchall()
            else:
                # The least key above every key with this prefix: SQLite compares TEXT as UTF-8 bytes.
                above = prefix + "\U0010ffff"
                query = "SELECT key, value FROM items WHERE key >= ? AND key < ? ORDER BY key"
                rows = self._open().execute(query, (prefix, above)).fetchall()
        return [(key, bytes(value)) for key, value in rows]

    def write(self, *changes: Change) -> None:
        with self._lock:
            db = self._open()
            db.execute("BEGIN IMMEDIATE")
            try:
                for change in changes:
                    if isinstance(change, Put):
                        db.execute("INSERT OR REPLACE INTO items VALUES (?, ?)", (change.key, change.value))
                    else:
                        db.execute("DELETE FROM items WHERE key = ?", (change.key,))
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")
            self._dirty = True

    def close(self) -> None:
        self._closing.set()
        self._checkpointer.join()
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            raise ValueError(f"the store {self.path} is closed")
        return self._db

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=30)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        return db

    def _checkpoint_forever(self) -> None:
        db = self._connect()
        try:
            while not self._closing.wait(_CHECKPOINT_SECONDS):
                with self._lock:
                    dirty, self._dirty = self._dirty, False
                if dirty:
                    db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        finally:
            db.close()
