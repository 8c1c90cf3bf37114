"""A registry server: the OCI distribution API 1.1 over a directory or an object store.

    process   command line, worker processes, signals
    server    HTTP: routes, errors, metrics; handlers in blobs, uploads, manifests, listing
    access    who may do what: basic, tokens, rules
    store     repositories: links, manifests, tags, referrers; the one place that knows the layout
    collect   online collection of what nothing refers to
    proxy     pull-through cache
    backend   what a place to keep bytes must do; directory and objects do it

No process holds anything that another must know: what is in the backend is the truth, every change is one atomic
write, so that any number of processes on any number of machines may serve one store.
"""
