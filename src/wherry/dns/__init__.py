"""Names of containers: the resolver process that answers at 127.0.0.11 in their network namespaces, and its client.

`wherry.dns.client`: Resolver, spawn.   `wherry.dns.records`: the record of one sandbox, as the engine sends it.
Nothing is imported here: the resolver itself must stay small.
"""
