"""Durable state: a small ordered key-value store with atomic batches.

Keys are paths such as ``containers/<id>``; values are JSON documents as bytes. The interface is what both an
embedded database and a cluster store (etcd) can honour, so that the owner of a document need not know which
one holds it. SQLite is the default; `MemoryStore` serves tests.

    store.write(Put("containers/4f1c", document), Delete("intents/4f1c"))     # both or neither

Life cycle: open, use from any thread, `close()`. After `write` returns, the change survives the death of the
process (a power cut may lose the last moments, never consistency).
"""

from wherry.state._memory import MemoryStore
from wherry.state._sqlite import SQLiteStore
from wherry.state._store import Change, Delete, Put, Store

__all__ = ["Change", "Delete", "MemoryStore", "Put", "SQLiteStore", "Store"]
