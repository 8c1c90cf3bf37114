"""Messages between Wherry's own processes: a daemon on asyncio, and its helpers, one thread and one epoll each.

A helper: `.background` (its start), `.poller`, `.server`.   Who asks: `.spawn`, `.client`.   Both: `.seqpacket`.

    request   {"seq": 1, "op": "run", "args": {...}}, with descriptors as the operation says
    answer    {"seq": 1, "ok": ...} or {"seq": 1, "error": [kind, message, hint]}; kind: a class of wherry.errors
    event     {"event": [name, ...]}, to every client

Every helper answers "ping" with its pid. Nothing is imported here: helpers must stay small.
"""
