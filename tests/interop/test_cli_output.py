"""The same command through docker and through wherry, against the same engine: same output, same exit code.

What differs by nature (the name of the program, moments) is made equal first. Skips where docker is not installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from cli_process import COMMAND, environment

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("docker"), reason="the docker client is not installed"),
]

# NAME is a running container with a published port, IMAGE its image, FREE a name that nothing has.
READ = """
ps -f name=NAME
ps -a --no-trunc -f name=NAME
ps -q -f name=NAME
ps -s -f name=NAME
ps -f name=NAME --format json
ps -f name=NAME --format '{{json .}}'
ps -f name=NAME --format 'table {{.ID}}\\t{{truncate .Status 2}}\\t{{.Label "a"}}'
ps -f name=NAME --format '{{.Names}} {{.Ports}} {{.Image}} {{.Command}} {{.State}} {{.Networks}} {{.LocalVolumes}}'
ps -f name=NAME --format '{{.Nope}}'
ps -f name=NAME --format '{{.ID'
ps -f nosuch=x
ps -f nosuch
ps x
ps -n x
container ls -f name=NAME
container
container nosuch
inspect NAME
inspect NAME FREE
inspect FREE
inspect --type volume NAME
inspect --format json NAME
inspect -f '{{.Name}} {{.State.Status}} {{.Config.Env}} {{json .HostConfig.PortBindings}}' NAME
inspect -f '{{range $p, $b := .NetworkSettings.Ports}}{{$p}}{{(index $b 0).HostPort}}{{end}}' NAME
inspect -f '{{.Nope}}' NAME
inspect -f '{{' NAME
container inspect FREE
image inspect IMAGE
image inspect FREE
network inspect bridge
network inspect FREE
volume inspect FREE
images IMAGE
images -q IMAGE
images --digests --no-trunc IMAGE
images IMAGE --format json
images FREE
history IMAGE
history -q --no-trunc IMAGE
history IMAGE --format '{{.ID}} {{.Size}} {{.CreatedBy}}'
history FREE
logs NAME
logs --tail 1 NAME
logs --since 1x NAME
logs FREE
top NAME
top NAME -o pid,comm
top FREE
port NAME
port NAME 80
port NAME 81/udp
diff FREE
exec NAME echo hi
exec NAME sh -c 'echo err >&2; exit 5'
exec NAME
exec FREE true
exec -it NAME sh
attach FREE
start FREE
stop FREE
kill FREE
kill -s NOSUCH NAME
restart FREE
pause FREE
wait FREE
rename NAME
rename FREE x
rm FREE
rm NAME
rmi FREE
tag FREE x
cp FREE:/x /tmp
cp x y
cp NAME:/nosuch /tmp
export FREE
load -i /nosuch/file
import /nosuch/file
pull UPPER
volume ls -f name=FREE
volume rm FREE
network ls -f name=bridge
network ls --format json -f name=none
events --since 2h --until 0s --filter container=NAME --filter event=create
events --since 2h --until 0s --filter container=NAME --filter event=create --format json
events --since 2h --until 0s -f container=NAME -f event=create --format '{{.Type}} {{.Action}} {{.Actor.ID}}'
container prune --filter label=FREE -f
image prune --filter label=FREE -f
volume prune --filter label=FREE -f
system prune
run
run --nosuch
run --rm --restart always IMAGE
run -d --attach stdout IMAGE
run --rm --name NAME IMAGE
run --rm IMAGE sh -c 'echo out; echo err >&2; exit 3'
run --rm -w /etc -e A=b -u 1:2 IMAGE sh -c 'pwd; echo $A; id -u; id -g'
version -f '{{.Server.Version}}'
info -f '{{.Name}} {{.NCPU}} {{.Driver}}'
nosuch
context show
context use FREE
"""
_VARYING = (
    (re.compile(r"wherry"), "docker"),
    (re.compile(r"\n*Did you mean: .*\n"), "\n"),
    (re.compile(r"\b(About |Less than )?(an?|\d+) (second|minute)s?( ago)?"), "MOMENT"),
    (re.compile(r" +\d\d:\d\d(:\d\d)? "), " CLOCK "),
    (re.compile(r"Commands:\n(  .*\n)*"), "Commands:\n"),
    (re.compile(r"^(root +\d+ +\d+ +)\d+ ", re.MULTILINE), r"\1 "),
    (re.compile(r" {2,}"), "  "),
)


def _normal(text: str) -> str:
    for pattern, replacement in _VARYING:
        text = pattern.sub(replacement, text)
    return text.strip()


def _run(command: list[str], host: str, arguments: list[str]) -> tuple[int, str, str]:
    done = subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        env=environment(host),
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    return done.returncode, _normal(done.stdout), _normal(done.stderr)


@pytest.fixture(scope="module")
def running(host: str, image: str) -> Iterator[dict[str, str]]:
    name = f"wt-out-{os.getpid()}"
    flags = ["-d", "--name", name, "-p", "127.0.0.1::80", "-e", "A=b", "-l", "a=b"]
    try:
        code, _, error = _run(COMMAND, host, ["run", *flags, image, "sh", "-c", "echo one; echo two; exec sleep 600"])
        assert code == 0, error
        yield {"NAME": name, "IMAGE": image.partition(":")[0], "FREE": f"wt-free-{os.getpid()}"}
    finally:
        _run(COMMAND, host, ["rm", "-f", name])


@pytest.mark.parametrize("line", READ.strip("\n").split("\n"))
def test_output(line: str, host: str, running: dict[str, str]) -> None:
    import shlex

    arguments = shlex.split(line)
    for name, value in running.items():
        arguments = [argument.replace(name, value) for argument in arguments]
    theirs = _run(["docker"], host, arguments)
    assert _run(COMMAND, host, arguments) == theirs
