"""Names of runtimes."""

import pytest

from wherry.engine.config import DaemonConfig
from wherry.engine.daemon_defaults import security_options
from wherry.engine.runtimes import check_runtime
from wherry.errors import InvalidArgument
from wherry.spec.docker import HostConfig


def test_only_known_runtimes_can_be_asked_for() -> None:
    config = DaemonConfig(runtimes={"ours": "/usr/bin/wherry-runtime"})
    for name in ("", "wherry", "runc", "io.containerd.runc.v2", "ours"):
        check_runtime(config, name)
    for name in ("kata", "crun", "Wherry", "/usr/bin/wherry-runtime"):
        with pytest.raises(InvalidArgument, match=f"unknown or invalid runtime name: {name}"):
            check_runtime(config, name)


def test_the_daemons_security_options_are_for_those_that_say_nothing() -> None:
    config = DaemonConfig(no_new_privileges=True, seccomp_profile="unconfined")
    assert security_options(config, HostConfig()) == ("no-new-privileges", "seccomp=unconfined")
    assert security_options(config, HostConfig(privileged=True)) == ("no-new-privileges",)
    own = ("no-new-privileges:false", "seccomp=builtin")
    assert security_options(config, HostConfig(security_opt=own)) == own
    assert security_options(DaemonConfig(), HostConfig()) is None
