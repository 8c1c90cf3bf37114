"""The flags of `update`: docker's own, and those that change what docker's cannot."""

from __future__ import annotations

from wherry.cli.create_flags import CREATE_FLAGS

_DOCKERS = (
    "blkio-weight cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems "
    "kernel-memory memory memory-reservation memory-swap pids-limit restart"
)
_TAKEN = (
    "add-host annotation cap-add cap-drop device device-cgroup-rule dns dns-option dns-search domainname entrypoint "
    "env env-file group-add health-cmd health-interval health-on-failure health-retries health-start-interval "
    "health-start-period "
    "health-timeout hostname init label label-file log-driver log-opt mount no-healthcheck oom-score-adj publish "
    "read-only security-opt shm-size stop-signal stop-timeout sysctl tmpfs ulimit user volume workdir"
)
DOCKERS = frozenset(_DOCKERS.split())
"""Docker's own: with these alone docker's own request is made, which any engine understands."""
_OTHERS = DOCKERS | frozenset(_TAKEN.split())
_OWN = (
    ("cmd", "", "string", "", "Command to run, as a shell would read it"),
    ("env-rm", "", "list", None, "Remove environment variables"),
    ("label-rm", "", "list", None, "Remove labels"),
    ("live", "", "bool", False, "Refuse what would need the container to be restarted"),
    ("publish-rm", "", "list", None, 'Stop publishing a port ("80", "8080:80/tcp", "all")'),
    ("timeout", "t", "int", 0, "Seconds to wait for its end when it has to be restarted"),
    ("volume-rm", "", "list", None, "Remove a mount by its path in the container; its volume is kept"),
)
# docker's flags of `update` take 0 and "" for "as it is".
_DEFAULTS = {"restart": ""}
FLAGS = tuple(
    sorted(
        (
            *(
                (name, short, kind, _DEFAULTS.get(name, default), text)
                for name, short, kind, default, text in CREATE_FLAGS
                if name in _OTHERS
            ),
            *_OWN,
        )
    )
)
ALIASES = {"dns-opt": "dns-option"}
REFUSE = {"kernel-memory": "engines no longer limit it"}
