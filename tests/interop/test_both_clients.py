"""Docker's client and ours, asked the same of the same engine: the same answer, complaint and exit code."""

import re
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cli_process import COMMAND, run

from engine_client import DockerCli

_ROWS = """
rename | rename NAME | rename NAME NAME | rename NAME NAMEx | rename NAME b | rename nosuch NAMEq | rename a b c
diff | diff NAME | diff nosuch | diff a b
top | top NAMEx | top nosuch | top NAME -o comm | top NAME bogus | top NAME -eo pid,args
port | port NAME | port NAME 80 | port NAME 80/tcp | port NAME 81/udp | port NAME 81 | port NAME 99 | port NAME x
port NAMEx | port nosuch | port NAME 80 81 | port NAME 70000 | port NAME 80/bogus | port NAME 80/TCP
wait | wait NAMEx | wait nosuch | wait NAMEx nosuch NAMEx
attach | attach NAMEx | attach nosuch | attach --bogus NAME | attach a b
export | export nosuch | export -o /nonexistent/x NAME | export -o / NAME | export a b
import | import /nonexistent | import - UPPER | import -c FROM TAR NAMEi:1 | import --platform bogus/x TAR NAMEi:1
import TAR bad@sha256:0000000000000000000000000000000000000000000000000000000000000000 | import a b c
commit | commit nosuch | commit NAME UPPER | commit a b c | commit -c FROM NAME | commit --pause=x NAME
update | update NAME | update --memory x NAME | update --cpus x NAME | update --restart a:b NAME
update --restart :3 NAME | update --memory-swap -2 NAME | update --memory 100m --memory-swap 50m NAME
update --cpuset-cpus 0-99 NAME | update -c 512 NAME NAMEx | update --pids-limit -1 nosuch NAME
"""


def test_both_clients_say_the_same(docker: DockerCli, host: str, image: str, name: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("empty"))
    docker("run", "-d", "--name", name, "-p", "127.0.0.1::80", "-p", "127.0.0.1::81/udp", image, "sleep", "1000")
    docker("create", "--name", f"{name}x", image, "true")

    def compare(row: str) -> str | None:
        words = [word.replace("NAME", name).replace("TAR", str(tmp_path / "tar")) for word in row.split()]
        theirs = docker(*words, code=None)
        ours = run(COMMAND, host, words)
        found = (ours.returncode, ours.stdout.decode(), ours.stderr.decode().replace("wherry", "docker"))
        return None if found == theirs else f"{row.strip()}\n  docker {tuple(theirs)}\n  wherry {found}"

    with ThreadPoolExecutor(4) as pool:
        different = list(filter(None, pool.map(compare, re.split(r"[|\n]", _ROWS.strip()))))
    assert not different, "\n".join(different)
