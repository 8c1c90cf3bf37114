"""Containers, execs and events: the sole owner of container state and of its locks.

    engine = await Engine.open(DaemonConfig(data_root=..., exec_root=...))
    created = await engine.containers.create(None, ContainerConfig(image="busybox"), HostConfig(), NetworkingConfig())
    pending = engine.containers.wait_registered(created.id, "next-exit")
    await engine.containers.start(created.id)
    print((await pending).status)
    await engine.close()                    # running containers go on

All methods that take a container accept its id, a unique prefix of it, or its name with or without "/".
"""

from wherry.engine.config import DaemonConfig
from wherry.engine.container import WaitResult
from wherry.engine.containers import Containers
from wherry.engine.creation import Created
from wherry.engine.engine import Engine
from wherry.engine.events import Events
from wherry.engine.execs import Execs, ExecStream

__all__ = ["Containers", "Created", "DaemonConfig", "Engine", "Events", "ExecStream", "Execs", "WaitResult"]
