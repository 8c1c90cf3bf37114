from wherry.kernel import mounts as m
from wherry.runtime.options import parse


def test_flags_and_data() -> None:
    found = parse(["nosuid", "noexec", "ro", "rw", "size=1m", "mode=755", "defaults", ""])
    assert found.flags == m.MS_NOSUID | m.MS_NOEXEC
    assert found.attributes.set == m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NOEXEC
    assert found.attributes.clear == m.MOUNT_ATTR_RDONLY
    assert found.data == "size=1m,mode=755"


def test_bind_propagation_and_recursive_flags() -> None:
    found = parse(["rbind", "rslave", "rro", "rnosuid", "idmap"])
    assert (found.bind, found.bind_recursive, found.idmap) == (True, True, "idmap")
    assert found.propagation == m.MS_SLAVE | m.MS_REC
    assert found.recursive.set == m.MOUNT_ATTR_RDONLY | m.MOUNT_ATTR_NOSUID
    assert found.flags == 0


def test_access_times_replace_each_other() -> None:
    found = parse(["noatime", "strictatime"])
    assert found.flags == m.MS_STRICTATIME
    assert (found.attributes.set, found.attributes.clear) == (m.MOUNT_ATTR_STRICTATIME, m.MOUNT_ATTR__ATIME)
    # "relatime" is an option of its own, not the recursive form of "elatime"; "ratime" is recursive "atime".
    assert parse(["relatime"]).flags == m.MS_RELATIME
    assert parse(["ratime"]).recursive.clear == m.MOUNT_ATTR__ATIME
