"""Bad input: docker's status and message, from both engines.

Where dockerd answers 500 to what is plainly the client's mistake, Wherry answers 400; where its message is Go's own
way of speaking about types, Wherry names the field in words. Each row says what either may answer.
"""

import re

import pytest

from daemon import PEER
from engine_client import Api

JSON = "application/json"
C = "/containers"


@pytest.mark.parametrize(
    ("method", "target", "body", "statuses", "message"),
    [
        ("GET", "/nope", None, (404,), "page not found"),
        ("POST", "/_ping", None, (404,), "page not found"),
        (
            "GET",
            "/v1.99/version",
            None,
            (400,),
            r"client version 1.99 is too new. Maximum supported API version is 1\.\d+",
        ),
        # Bodies.
        ("POST", f"{C}/create", "", (400,), "invalid JSON: got EOF while reading request body"),
        ("POST", f"{C}/create", "{", (400,), "invalid JSON: unexpected EOF"),
        ("POST", f"{C}/create", "{}", (400,), "config cannot be empty in order to create a container"),
        ("POST", f"{C}/create", "null", (400,), "config cannot be empty in order to create a container"),
        ("POST", f"{C}/create", '{"Image":"x"} {', (400,), "unexpected content after JSON"),
        ("POST", f"{C}/create", '{"Image":5}', (400,), ".*Image.* string.*"),
        ("POST", f"{C}/create", "[]", (400,), "(invalid JSON: )?.*"),
        ("POST", f"{C}/create", '{"Image":"x","HostConfig":{"Memory":"1"}}', (400,), r".*HostConfig\.Memory.*"),
        ("POST", f"{C}/create", '{"Image":"x","Env":"A=b"}', (400,), ".*Env.*"),
        ("POST", f"{C}/create", '{"Image":"x","HostConfig":[]}', (400,), ".*HostConfig.*"),
        # Images.
        ("POST", f"{C}/create", '{"Image":"wt-nosuch"}', (404,), "No such image: wt-nosuch:latest"),
        ("POST", f"{C}/create", '{"Image":"UPPER"}', (400,), "invalid reference format: .*must be lowercase.*"),
        ("POST", f"{C}/create", '{"Image":"a b"}', (400,), "invalid reference format.*"),
        ("GET", "/images/wt-nosuch/json", None, (404,), "No such image: wt-nosuch:latest"),
        ("GET", "/images/wt/no/such/json", None, (404,), "No such image: wt/no/such:latest"),
        ("GET", "/images/UPPER/json", None, (400,), "invalid reference format: .*must be lowercase.*"),
        ("GET", "/images/wt-nosuch/history", None, (404,), "No such image: wt-nosuch:latest"),
        ("DELETE", "/images/wt-nosuch", None, (404,), "No such image: wt-nosuch:latest"),
        ("POST", "/images/wt-nosuch/tag?repo=x", None, (404,), "No such image: wt-nosuch:latest"),
        ("POST", "/images/create?fromImage=UPPER", None, (400,), "invalid reference format: .*must be lowercase.*"),
        ("POST", "/images/create?fromImage=127.0.0.1:1/x&tag=y", None, (404, 500, 503), ".*127.0.0.1:1.*refused.*"),
        # Containers that are not there.
        *(
            (
                method,
                f"{C}/wt-nope{rest}",
                body,
                (404,),
                "(cannot kill container: wt-nope: )?No such container: wt-nope",
            )
            for method, rest, body in (
                ("GET", "/json", None),
                ("GET", "/logs?stdout=1", None),
                ("GET", "/top", None),
                ("GET", "/changes", None),
                ("GET", "/export", None),
                ("GET", "/archive?path=/", None),
                ("PUT", "/archive?path=/", None),
                ("POST", "/start", None),
                ("POST", "/stop", None),
                ("POST", "/restart", None),
                ("POST", "/kill", None),
                ("POST", "/pause", None),
                ("POST", "/unpause", None),
                ("POST", "/wait", None),
                ("POST", "/wait?condition=removed", None),
                ("POST", "/rename?name=x", None),
                ("POST", "/resize?h=1&w=1", None),
                ("POST", "/exec", '{"Cmd":["x"]}'),
                ("DELETE", "", None),
                ("DELETE", "?force=1", None),
            )
        ),
        # Parameters.
        ("POST", f"{C}/wt-nope/stop?t=abc", None, (400, 500), r'strconv\.Atoi: parsing "abc": invalid syntax'),
        ("POST", f"{C}/wt-nope/wait?condition=foo", None, (400,), 'invalid condition: "foo"'),
        ("POST", f"{C}/wt-nope/resize?h=1&w=x", None, (400,), 'invalid resize width "x": invalid syntax'),
        (
            "POST",
            f"{C}/wt-nope/kill?signal=FOO",
            None,
            (400, 404),
            "(.*invalid signal: FOO|.*No such container: wt-nope)",
        ),
        ("POST", f"{C}/wt-nope/rename", None, (400,), "Neither old nor new names may be empty"),
        ("POST", f"{C}/wt-nope/exec", "{}", (400,), "No exec command specified"),
        ("GET", f"{C}/wt-nope/logs", None, (400,), "Bad parameters: you must choose at least one stream"),
        ("GET", f"{C}/wt-nope/archive", None, (400,), "bad parameter: path ?cannot be empty"),
        ("GET", f"{C}/json?limit=abc", None, (400, 500), r'strconv\.Atoi: parsing "abc": invalid syntax'),
        ("GET", f"{C}/json?filters=abc", None, (400,), "invalid filter"),
        ("GET", f'{C}/json?filters={{"status":"running"}}', None, (400,), "invalid filter"),
        ("GET", f'{C}/json?filters={{"bad":["x"]}}', None, (400,), "invalid filter 'bad'"),
        ("GET", f'{C}/json?filters={{"status":["x"]}}', None, (400,), "invalid filter 'status=x': invalid value .*"),
        ("GET", "/events?since=10&until=5", None, (400,), r"`since` time \(10\) cannot be after `until` time \(5\)"),
        ("GET", "/events?filters=abc", None, (400,), "invalid filter"),
        # Execs, networks, volumes, what needs a swarm.
        ("POST", "/exec/wt-nope/start", "{}", (404,), "No such exec instance: wt-nope"),
        ("GET", "/exec/wt-nope/json", None, (404,), "No such exec instance: wt-nope"),
        ("GET", "/networks/wt-nope", None, (404,), "network wt-nope not found"),
        ("GET", "/volumes/wt-nope", None, (404,), "get wt-nope: no such volume"),
        ("DELETE", "/volumes/wt-nope", None, (404,), "get wt-nope: no such volume"),
        ("POST", "/volumes/create", '{"Name":"a/b"}', (400,), '.*"a/b" includes invalid characters.*'),
        ("GET", "/services", None, (503,), "This node is not a swarm manager.*"),
    ],
)
def test_bad_input(
    api: Api, method: str, target: str, body: str | None, statuses: tuple[int, ...], message: str
) -> None:
    headers = {} if body is None else {"Content-Type": JSON}
    answer = api.request(method, target, None if body is None else body.encode(), headers)
    assert answer.status in statuses, answer
    assert answer.headers["Content-Type"] == JSON
    assert re.fullmatch(message, answer.message), answer.message


def test_content_types(api: Api) -> None:
    for given, message in (
        ("text/plain", "unsupported Content-Type header (text/plain): must be 'application/json'"),
        (";;", "malformed Content-Type header (;;): mime: no media type"),
    ):
        answer = api.request("POST", "/containers/create", b'{"Image":"x"}', {"Content-Type": given})
        assert (answer.status, answer.message) == (400, message)
    charset = {"Content-Type": "application/json; charset=utf-8"}
    assert api.request("POST", "/containers/create", b'{"Image":"wt-nosuch"}', charset).status == 404


def test_names_in_use_and_bad_names(api: Api, image: str, name: str) -> None:
    id = api.create(name, Image=image)
    again = api.post(f"/containers/create?name={name}", {"Image": image})
    assert again.status == 409
    assert again.message == (
        f'Conflict. The container name "/{name}" is already in use by container "{id}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )
    bad = api.post("/containers/create?name=@@", {"Image": image})
    assert bad.status == 400
    assert bad.message.startswith("Invalid container name (@@), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    api.create(f"{name}-2", Image=image)
    taken = api.post(f"/containers/{name}-2/rename?name={name}")
    assert taken.status == 409
    assert f'"/{name}" is already in use by container' in taken.message


@pytest.mark.parametrize(
    ("config", "status", "message"),
    [
        ({"Cmd": ["/nosuch"]}, 400, r'.*exec: "/nosuch": stat /nosuch: no such file or directory.*'),
        ({"Cmd": ["nosuch"]}, 400, r'.*exec: "nosuch": executable file not found in \$PATH.*'),
        ({"Cmd": ["/etc/passwd"]}, 400, r'.*exec: "/etc/passwd": permission denied.*'),
        ({"Cmd": ["true"], "User": "nobodyhere"}, 400, ".*unable to find user nobodyhere.*"),
        ({"Cmd": ["true"], "HostConfig": {"NetworkMode": "container:wt-nope"}}, 409, ".*No such container: wt-nope.*"),
    ],
)
def test_starts_that_cannot_succeed(
    api: Api, image: str, name: str, config: dict[str, object], status: int, message: str
) -> None:
    answer = api.post(f"/containers/create?name={name}", {"Image": image, **config})
    if answer.status == 201:
        answer = api.post(f"/containers/{name}/start")
    assert re.fullmatch(message, answer.message, re.DOTALL), answer.message
    # Which status dockerd gives depends on which of its parts found out.
    assert answer.status in (status, 400, 404, 409, 500), answer
    if api.get(f"/containers/{name}/json").status == 404:
        return
    state = api.get(f"/containers/{name}/json").json["State"]
    assert not state["Running"]
    assert state["Status"] == "created"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"Binds": ["a:b:c:d"]}, ".*invalid volume specification.*"),
        ({"Mounts": [{"Type": "nope", "Target": "/x"}]}, ".*mount type unknown.*|.*nope.*"),
        ({"Mounts": [{"Type": "bind", "Source": "/nosuch-wt", "Target": "/x"}]}, ".*bind source path does not exist.*"),
        ({"Memory": 1}, ".*[Mm]inimum memory limit.*"),
        ({"RestartPolicy": {"Name": "sometimes"}}, ".*invalid restart policy.*"),
        (
            {"AutoRemove": True, "RestartPolicy": {"Name": "always"}},
            ".*can't create 'AutoRemove' container with restart.*",
        ),
        ({"CapAdd": ["NOPE"]}, ".*[Nn][Oo][Pp][Ee].*"),
        ({"PortBindings": {"80/tcp": [{"HostPort": "x"}]}}, ".*invalid port.*|.*[Ii]nvalid.*"),
        ({"SecurityOpt": ["nope=1"]}, ".*invalid --security-opt.*"),
        ({"LogConfig": {"Type": "nosuchdriver"}}, ".*nosuchdriver.*"),
        ({"NetworkMode": "host", "UTSMode": "nope"}, ".*invalid UTS mode.*"),
        ({"PidMode": "nope"}, ".*invalid PID mode.*"),
        ({"IpcMode": "nope"}, ".*invalid IPC mode.*"),
        ({"ShmSize": -1}, ".*SHM size can not be less than 0.*"),
    ],
)
def test_host_configurations_that_are_refused(
    api: Api, image: str, name: str, settings: dict[str, object], message: str
) -> None:
    answer = api.post(f"/containers/create?name={name}", {"Image": image, "HostConfig": settings})
    if answer.status == 201:
        # Some of it dockerd finds out at the start only.
        answer = api.post(f"/containers/{name}/start")
    else:
        assert api.get(f"/containers/{name}/json").status == 404
    assert 400 <= answer.status <= 501, answer
    assert re.fullmatch(message, answer.message, re.DOTALL), answer.message


def test_states_that_do_not_allow_it(api: Api, image: str, name: str) -> None:
    api.create(name, Image=image, Cmd=["sleep", "100"])
    for verb, message in (
        ("kill", f"cannot kill container: {name}: container .* is not running"),
        ("pause", "[Cc]ontainer .* is not running"),
        ("unpause", "[Cc]ontainer .* is not paused"),
        ("exec", "container .* is not running"),
    ):
        answer = api.post(f"/containers/{name}/{verb}", {"Cmd": ["true"]} if verb == "exec" else None)
        # dockerd says 500 here.
        assert answer.status == 409 or (PEER and verb == "unpause"), answer
        assert re.fullmatch(message, answer.message), answer.message
    assert api.post(f"/containers/{name}/stop").status == 304
    assert api.post(f"/containers/{name}/start").status == 204
    assert api.post(f"/containers/{name}/start").status == 304
    busy = api.delete(f"/containers/{name}")
    assert busy.status == 409
    assert "running" in busy.message
    assert api.delete(f"/containers/{name}?force=1").status == 204


def test_a_port_in_use(api: Api, image: str, name: str) -> None:
    config = {"Image": image, "Cmd": ["sleep", "100"], "ExposedPorts": {"80/tcp": {}}}
    first = {"PortBindings": {"80/tcp": [{"HostPort": ""}]}}
    api.run(name, **config, HostConfig=first)
    ports = api.get(f"/containers/{name}/json").json["NetworkSettings"].get("Ports")
    port = ports["80/tcp"][0]["HostPort"]
    api.create(f"{name}-2", **config, HostConfig={"PortBindings": {"80/tcp": [{"HostPort": port}]}})
    answer = api.post(f"/containers/{name}-2/start")
    assert answer.status in (409, 500)
    assert "port is already allocated" in answer.message
    assert port in answer.message
