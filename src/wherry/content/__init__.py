"""Blobs by digest: the bytes images are made of, each kept once and verified before anyone can see it.

    <root>/blobs/sha256/<hex>       a blob; its name is its digest; read-only
    <root>/ingests/<name>/          a blob on its way: `data`, and the key it is resumed by

Terms and life cycle:

- An *ingest* is a blob being written. It has a key ("layer-sha256:..."), survives the process, and goes on where it
  stopped when it is opened again with the same key. `commit` verifies size and digest and makes the blob visible by
  one rename: no half-written blob is ever seen under its digest. `abort` forgets it.
- A *lease* protects the blobs an operation works on until what it makes refers to them. It is kept in the state
  store, so a collector after a crash knows what was being made; leases of operations that died are dropped at start.
- The *collector* marks what is referenced (given by the caller, followed through `children`) or leased, and deletes
  the rest: everything is referenced or leased, or collected.

Durability: a blob's data is synced to disk before its rename when `durable` is set (the default is not: after a
power cut a blob may be short, and `open` refuses one whose size differs from what its commit recorded; it can be
pulled again, an image's records are in the state store).

Errors: NotFound for an absent blob, InvalidArgument for bytes that are not what they were said to be.
"""

from wherry.content._collect import Collected, collect, unreferenced
from wherry.content._ingest import Ingest
from wherry.content._lease import Lease, Leases
from wherry.content._store import BlobInfo, ContentStore

__all__ = ["BlobInfo", "Collected", "ContentStore", "Ingest", "Lease", "Leases", "collect", "unreferenced"]
