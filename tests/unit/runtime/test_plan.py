"""Configurations to plans, without root."""

from typing import Any

import pytest

from wherry.errors import InvalidArgument, Unimplemented, WherryError
from wherry.kernel import namespaces as ns
from wherry.kernel.capabilities import BIT_OF
from wherry.runtime import plan, process_plan
from wherry.spec.mount import Mount

HOST = plan.Host((1 << 41) - 1, {"memory": "/sys/fs/cgroup/memory/x", "name=systemd": "/sys/fs/cgroup/systemd/x"}, 1)


def config(**linux: Any) -> dict[str, Any]:
    return {
        "ociVersion": "1.2.0",
        "process": {"args": ["true"], "cwd": "/", "env": ["A=1", "A=2", "B"]},
        "root": {"path": "rootfs"},
        "mounts": [],
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}], **linux},
    }


def build(document: dict[str, Any], layers: tuple[Mount, ...] = (), wait: bool = False) -> plan.Plan:
    return plan.build(document, "id", "/bundle", layers, HOST, wait=wait)


def test_steps_in_their_order() -> None:
    document = config(maskedPaths=["/proc/kcore"], readonlyPaths=["/proc/sys"])
    document["mounts"] = [{"destination": "/proc", "type": "proc", "source": "proc"}]
    made = build(document, wait=True)
    assert made.clone_flags == ns.CLONE_NEWNS | ns.CLONE_NEWPID
    assert made.describe() == [
        "set the propagation of the host's mounts",
        "mount the root file system from /bundle/rootfs",
        "mount proc on /proc",
        "make devices",
        "make links in /dev",
        "make paths read-only",
        "mask paths",
        "change the root",
        "set up the standard streams",
        "join a session keyring",
        "enter the cgroup",
        "wait to be recorded",
        "wait for start",
        "close inherited descriptors",
        "take on the process's identity",
        'exec: "true"',
    ]


def test_a_cgroup_namespace_and_hooks_want_the_cgroup_first() -> None:
    document = config()
    document["linux"]["namespaces"].append({"type": "cgroup"})
    assert build(document).describe()[0] == "enter the cgroup"
    document = config() | {"hooks": {"createContainer": [{"path": "/x"}]}}
    assert build(document).describe()[0] == "enter the cgroup"


def test_filter_comes_before_identity_unless_no_new_privileges() -> None:
    document = config(seccomp={"defaultAction": "SCMP_ACT_ALLOW"})
    steps = build(document).describe()
    assert steps.index("install the seccomp filter") < steps.index("take on the process's identity")
    document["process"]["noNewPrivileges"] = True
    assert build(document).describe()[-2:] == ["install the seccomp filter", 'exec: "true"']


def test_user_namespace_takes_its_mounts_from_outside() -> None:
    maps = [{"containerID": 0, "hostID": 1000, "size": 10}, {"containerID": 10, "hostID": 5000, "size": 1}]
    document = config(uidMappings=maps, gidMappings=maps)
    document["linux"]["namespaces"].append({"type": "user"})
    document["mounts"] = [{"destination": "/d", "source": "/data", "options": ["rbind"]}]
    document["process"]["oomScoreAdj"] = -5
    made = build(document)
    assert made.uid_map == "0 1000 10\n10 5000 1\n"
    assert made.oom_score == -5
    assert [p.describe() for p in made.preparations] == [
        "prepare: mount the root file system from /bundle/rootfs",
        "prepare: bind mount /data on /d",
    ]
    assert "become root in the user namespace" in made.describe()


def test_joined_pid_and_user_namespaces_need_a_further_process() -> None:
    document = config()
    document["linux"]["namespaces"] = [{"type": "mount"}, {"type": "pid", "path": "/p"}, {"type": "user", "path": "/u"}]
    made = build(document)
    assert made.clone_flags == 0
    assert made.describe()[:3] == [
        "join user namespace /u, pid namespace /p",
        "become root in the user namespace",
        "fork",
    ]


def test_capabilities_as_five_sets() -> None:
    document = config()
    document["process"]["capabilities"] = {"bounding": ["CAP_CHOWN", "CAP_BPF"], "ambient": ["CAP_KILL"]}
    identity = next(o for o in build(document).operations if "identity" in o.describe())
    sets = identity.sets  # type: ignore[attr-defined]
    assert sets.bounding == 1 << BIT_OF["CAP_CHOWN"] | 1 << BIT_OF["CAP_BPF"]
    assert (sets.ambient, sets.effective, sets.inheritable, sets.permitted) == (1 << BIT_OF["CAP_KILL"], 0, 0, 0)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"process": {"args": [], "cwd": "/"}}, "args is empty"),
        ({"process": {"args": ["x"], "cwd": "here"}}, "absolute path"),
        ({"process": {"args": ["x\0"], "cwd": "/"}}, "without NUL"),
        ({"process": {"args": "x", "cwd": "/"}}, "process.args must be a list"),
        ({"process": {"args": ["x"], "cwd": "/", "rlimits": [{"type": "RLIMIT_X", "soft": 1, "hard": 1}]}}, "RLIMIT_X"),
        ({"process": {"args": ["x"], "cwd": "/", "capabilities": {"bounding": ["CAP_X"]}}}, "CAP_X"),
        ({"root": {}}, "root.path"),
        ({"mounts": [{"destination": "/x", "options": ["bind"]}]}, "no source"),
        ({"mounts": [{"destination": "/x"}]}, "no type"),
        ({"mounts": [5]}, "list of objects"),
        ({"linux": {"namespaces": [{"type": "mount"}, {"type": "mount"}]}}, "twice"),
        ({"linux": {"namespaces": [{"type": "moon"}]}}, "moon"),
        ({"linux": {"namespaces": [{"type": "mount", "path": "x"}]}}, "absolute"),
        ({"linux": {"namespaces": [{"type": "mount"}, {"type": "user"}]}}, "uidMappings"),
        ({"linux": {"namespaces": [{"type": "mount"}], "devices": [{"path": "/dev/x", "type": "z"}]}}, "device type"),
        ({"linux": {"namespaces": [{"type": "mount"}], "rootfsPropagation": "x"}}, "rootfsPropagation"),
        ({"linux": {"namespaces": [{"type": "mount"}], "sysctl": {"net.a/../../kernel.x": "1"}}}, "sysctl"),
        ({"linux": {"namespaces": [{"type": "mount"}], "maskedPaths": ["proc"]}}, "absolute"),
        ({"hostname": "x"}, "uts"),
        ({"hooks": {"poststart": [{"path": "x"}]}}, "absolute"),
    ],
)
def test_bad_configurations_name_what_is_wrong(change: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        build(config() | change)


@pytest.mark.parametrize("key", ["intelRdt", "mountLabel", "memoryPolicy", "netDevices"])
def test_what_is_not_done_is_refused(key: str) -> None:
    with pytest.raises(Unimplemented, match=key):
        build(config(**{key: {"x": 1}}))


@pytest.mark.parametrize("name", ["kernel.panic", "vm.swappiness", "net.ipv4.ip_forward", "kernel.msgmax"])
def test_sysctls_of_the_host_are_refused(name: str) -> None:
    with pytest.raises(WherryError):
        build(config(sysctl={name: "1"}))


def test_a_profile_is_chosen_before_the_root_changes_and_entered_after_all_hooks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """CVE-2019-16884, CVE-2023-28642: what the container mounts on /proc has no say in it."""
    monkeypatch.setattr(process_plan, "_require_apparmor", lambda: None)
    document = config() | {"hooks": {"startContainer": [{"path": "/x"}]}}
    document["process"]["apparmorProfile"] = "docker-default"
    steps = build(document).describe()
    opened, entered = (
        steps.index("open the AppArmor attribute"),
        steps.index("apply the AppArmor profile docker-default"),
    )
    assert opened < steps.index("mount the root file system from /bundle/rootfs")
    assert entered > steps.index("startContainer hooks")
    assert entered < steps.index("take on the process's identity")
    document["process"]["apparmorProfile"] = "unconfined"
    assert not [step for step in build(document).describe() if "AppArmor" in step]
