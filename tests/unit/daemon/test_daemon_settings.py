"""Flags and daemon.json. Messages are dockerd's where it has one."""

import json
from pathlib import Path

import pytest

from wherry.daemon.configuration import daemon_config
from wherry.daemon.options import FIXED, OPTIONS
from wherry.daemon.settings import KEYS, Settings, parse_flags, read_settings
from wherry.errors import InvalidArgument, Unimplemented, WherryError


def settings(tmp_path: Path, document: object, *flags: str) -> dict[str, object]:
    file = tmp_path / "daemon.json"
    file.write_text(document if isinstance(document, str) else json.dumps(document))
    return dict(read_settings(["--config-file", str(file), *flags]).values)


def test_every_spelling_of_a_flag() -> None:
    for arguments in (["-D"], ["--debug"], ["--debug=true"], ["-D=1"]):
        assert parse_flags(arguments) == {"debug": True}
    for arguments in (["-H", "unix:///x"], ["-Hunix:///x"], ["--host=unix:///x"], ["--host", "unix:///x"]):
        assert parse_flags(arguments) == {"host": ["unix:///x"]}
    assert parse_flags(["-H", "a", "-H", "b", "--debug=false"]) == {"host": ["a", "b"], "debug": False}
    assert parse_flags(["--log-opt", "max-size=1m", "--log-opt=max-file=2"]) == {
        "log-opt": {"max-size": "1m", "max-file": "2"}
    }
    assert parse_flags(["--default-shm-size", "1.5GiB"]) == {"default-shm-size": 3 << 29}


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (["--nope"], InvalidArgument, "unknown flag: --nope"),
        (["extra"], InvalidArgument, "takes no arguments"),
        (["--mtu"], InvalidArgument, "flag needs an argument: --mtu"),
        (["--mtu", "x"], InvalidArgument, 'invalid argument "x" for --mtu'),
        (["--debug=maybe"], InvalidArgument, 'invalid argument "maybe" for --debug'),
        (["--log-opt", "x"], InvalidArgument, "key=value is needed"),
        (["--userland-proxy"], Unimplemented, "ports are published by the kernel alone"),
        (["--containerd", "x"], Unimplemented, "there is no containerd here"),
        (["-s", "btrfs"], Unimplemented, "overlay is the only one yet"),
    ],
)
def test_flags_that_are_refused(arguments: list[str], kind: type[WherryError], message: str) -> None:
    with pytest.raises(kind, match=message):
        parse_flags(arguments)


def test_what_wherry_does_anyway_is_accepted() -> None:
    assert parse_flags(["--raw-logs", "--userland-proxy=false", "-s", "overlay2", "--iptables=true"]) == {}


def test_every_flag_of_dockerd_is_known_once() -> None:
    flags = [option.flag for option in (*OPTIONS, *FIXED)]
    assert len(flags) == len(set(flags))
    dockerd = (
        "add-runtime bip config-file containerd fixed-cidr host icc metrics-addr storage-opt tlsverify userns-remap"
    )
    assert set(dockerd.split()) <= set(flags)
    assert len(flags) >= 87


@pytest.mark.parametrize(
    ("document", "flags", "message"),
    [
        ("{", (), "invalid JSON"),
        ("[]", (), "an object is needed"),
        ({"nope": 1, "no": 2}, (), "the following directives don't match any configuration option: no, nope"),
        ({"debug": "x"}, (), "debug must be true or false"),
        ({"mtu": True}, (), "mtu must be a whole number"),
        ({"labels": ["x"]}, (), "bad attribute format: x"),
        ({"log-level": "loud"}, (), "invalid logging level: loud"),
        ({"data-root": "relative"}, (), "must be an absolute path"),
        ({"runtimes": {"x": "y"}}, (), "runtimes must be an object of objects"),
        ({"features": {"x": "y"}}, (), "features must be an object of true and false"),
        ({"proxies": {"x": "y"}}, (), "don't match any configuration option: proxies.x"),
        ({"dns": ["foo"]}, (), "invalid IP address: foo"),
        ({"registry-mirrors": ["foo"]}, (), 'invalid mirror: no scheme specified for "foo"'),
        ({"labels": ["a=1", "a=2"]}, (), "conflict labels for a=2 and a=1"),
        ({"max-concurrent-downloads": -1}, (), "invalid max concurrent downloads: -1"),
        ({"metrics-addr": "foo"}, (), "invalid address: foo"),
        ({"log-opts": {"max-size": 5}}, (), "log-opts.max-size must be a string"),
        ({"builder": {"gc": {"enabled": True}}}, (), "builder is not possible"),
        ({"debug": True, "containerd": "x"}, (), "containerd=x is not possible"),
        ("[" * 100_000, (), "invalid JSON"),
        (
            {"hosts": ["unix:///a"]},
            ("-H", "unix:///b"),
            r"specified both as a flag and in the configuration file: hosts: \(from flag: \[unix:///b\], "
            r"from file: \[unix:///a\]\)",
        ),
    ],
)
def test_files_that_are_refused(tmp_path: Path, document: object, flags: tuple[str, ...], message: str) -> None:
    with pytest.raises(WherryError, match=message):
        settings(tmp_path, document, *flags)


def test_a_missing_file_matters_only_when_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no such file or directory"):
        read_settings(["--config-file", str(tmp_path / "none")])
    assert settings(tmp_path, "  ")["host"] == []


def test_file_and_flags_together(tmp_path: Path) -> None:
    document = {
        "debug": True,
        "hosts": ["unix:///a", "tcp://127.0.0.1:1"],
        "log-opts": {"max-size": "1m"},
        "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 1, "Hard": 2}},
        "default-shm-size": "128M",
        "live-restore": None,
        "default-address-pools": [],
        "proxies": {"http-proxy": "http://user:secret@proxy:1"},
        "runtimes": {"other": {"path": "/usr/bin/wherry-runtime"}},
        "default-runtime": "other",
        "features": {"cdi": True},
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
    }
    file = tmp_path / "daemon.json"
    file.write_text(json.dumps(document))
    found = read_settings(["--config-file", str(file), "--log-opt", "max-file=3", "--exec-root", "/x", "--mtu=900"])
    assert found.hosts == ("unix:///a", "tcp://127.0.0.1:1")
    assert found.flag("debug")
    config = daemon_config(found)
    assert (config.default_ulimits[0].name, config.default_ulimits[0].soft, config.default_ulimits[0].hard) == (
        "nofile",
        1,
        2,
    )
    assert config.live_restore
    assert (config.http_proxy, config.default_runtime) == ("http://user:secret@proxy:1", "other")
    assert (config.mtu, config.exec_root, config.default_shm_size) == (900, Path("/x"), 128 << 20)
    bad = Settings({**found.values, "default-ulimit": ["nofile=3:2"]})
    with pytest.raises(WherryError, match="soft limit must be less"):
        daemon_config(bad)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"runtimes": {"crun": {"path": "/usr/bin/crun"}}}, r"'crun' \(/usr/bin/crun\) cannot be used"),
        ({"runtimes": {"kata": {"runtimeType": "io.containerd.kata.v2"}}}, "io.containerd.kata.v2"),
        ({"runtimes": {"runc": {"path": "wherry-runtime"}}}, "'runc' is reserved"),
        ({"runtimes": {"x": {"path": "wherry-runtime", "runtimeArgs": ["-v"]}}}, "have no meaning"),
        ({"default-runtime": "foo"}, "unknown or invalid runtime name: foo"),
        ({"features": {"warp": True}}, "there is no feature 'warp'"),
        ({"features": {"containerd-snapshotter": True}}, "there is no containerd"),
    ],
)
def test_what_the_engine_cannot_do_is_refused(tmp_path: Path, document: object, message: str) -> None:
    file = tmp_path / "daemon.json"
    file.write_text(json.dumps(document))
    with pytest.raises(WherryError, match=message):
        daemon_config(read_settings(["--config-file", str(file)]))


def test_every_key_of_docker_is_honoured_or_refused_by_name() -> None:
    """The keys of its documentation's example (dockerd.md); some are accepted only with the value Wherry has anyway."""
    keys = """
    allow-direct-routing authorization-plugins bip bip6 bridge builder cgroup-parent containerd containerd-namespace
    containerd-plugins-namespace data-root debug default-address-pools default-cgroupns-mode default-gateway
    default-gateway-v6 default-network-opts default-runtime default-shm-size default-ulimits dns dns-opts dns-search
    exec-opts exec-root experimental features fixed-cidr fixed-cidr-v6 group host-gateway-ip hosts proxies icc init
    init-path insecure-registries ip ip-forward ip-masq iptables ip6tables ipv6 labels live-restore log-driver
    log-format log-level log-opts max-concurrent-downloads max-concurrent-uploads max-download-attempts mtu
    no-new-privileges node-generic-resources pidfile raw-logs registry-mirrors runtimes seccomp-profile selinux-enabled
    shutdown-timeout storage-driver storage-opts swarm-default-advertise-addr tls tlscacert tlscert tlskey tlsverify
    userland-proxy userland-proxy-path userns-remap metrics-addr network-control-plane-mtu cdi-spec-dirs
    host-gateway-ips
    """
    assert [key for key in keys.split() if key not in KEYS] == ["proxies"]
