"""Go templates: what docker's --format users write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.cli.template import Template
from wherry.cli.template_functions import TemplateError

DATA = {
    "Id": "0123456789abcdef",
    "State": {"Running": True, "ExitCode": 0, "Status": "running"},
    "Env": ["PATH=/bin", "A=b"],
    "Ports": {"80/tcp": [{"HostPort": "8080"}], "53/udp": None},
    "Empty": [],
    "Labels": {"b": "2", "a": "1"},
    "Nothing": None,
    "Ratio": 1.5,
    "Text": 'say "<hi>"',
}


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("plain", "plain"),
        ("{{.Id}}", "0123456789abcdef"),
        ("{{ .State.Status }}!", "running!"),
        ("{{.State.Running}} {{.State.ExitCode}} {{.Ratio}}", "true 0 1.5"),
        ("{{.Env}} {{.Labels}} {{.Empty}}", "[PATH=/bin A=b] map[a:1 b:2] []"),
        ("{{.Nothing}}", "<no value>"),
        ("{{json .Env}} {{json .Text}}", '["PATH=/bin","A=b"] "say \\"\\u003chi\\u003e\\""'),
        ("{{truncate .Id 3}}", "012"),
        ('{{join .Env ", "}}', "PATH=/bin, A=b"),
        ('{{index (split "a,b" ",") 1}}', "b"),
        ('{{upper "a"}}{{lower "B"}}{{title "ab cd"}}', "AbAb Cd"),
        ("{{pad .State.Status 1 2}}|", " running  |"),
        ("{{len .Env}} {{len .Id}} {{len .Labels}}", "2 16 2"),
        ('{{printf "%s-%03d|%-5s|%q|%v" .State.Status 7 "a" "b" .Env}}', 'running-007|a    |"b"|[PATH=/bin A=b]'),
        ('{{println "a" 1}}', "a 1\n"),
        ('{{index .Labels "a"}} {{index .Ports "80/tcp" 0 "HostPort"}}', "1 8080"),
        ('{{(index (index .Ports "80/tcp") 0).HostPort}}', "8080"),
        ("{{range .Env}}[{{.}}]{{end}}", "[PATH=/bin][A=b]"),
        ("{{range $i, $e := .Env}}{{$i}}={{$e}};{{end}}", "0=PATH=/bin;1=A=b;"),
        ("{{range $k, $v := .Labels}}{{$k}}{{$v}} {{end}}", "a1 b2 "),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{range .Env}}{{.}}{{break}}{{end}}", "PATH=/bin"),
        ('{{range .Env}}{{if eq . "A=b"}}{{continue}}{{end}}{{.}}{{end}}', "PATH=/bin"),
        ("{{range .Env}}{{$.Id}} {{end}}", "0123456789abcdef 0123456789abcdef "),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{if .Empty}}a{{else if .Nothing}}b{{else}}c{{end}}", "c"),
        ("{{if and .State.Running (eq .State.ExitCode 0)}}yes{{end}}", "yes"),
        ("{{or .Nothing .Id}} {{and 1 0}} {{not true}}", "0123456789abcdef 0 false"),
        ("{{eq 1 2 1}} {{ne 1 2}} {{lt 1 2}} {{le 2 2}} {{gt 1 2}} {{ge 1 2}}", "true true true true false false"),
        ("{{with .State}}{{.Status}}{{end}}{{with .Nothing}}x{{else}}y{{end}}", "runningy"),
        ("{{$x := .Id}}{{$x}}{{$x = 5}}{{$x}}", "0123456789abcdef5"),
        ("{{with $x := 3}}{{$x}}{{end}}", "3"),
        ("a {{- .State.ExitCode -}} b", "a0b"),
        ("{{/* nothing */}}a{{- /* and */ -}} b", "ab"),
        ("{{`raw \\n`}} {{\"esc\\t\"}} {{'a'}}", "raw \\n esc\t 97"),
        ("{{.State.Health}}", "<no value>"),
    ],
)
def test_rendered(source: str, shown: str) -> None:
    assert Template(source).render(DATA) == shown


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{.Missing}}", 'template: :1:2: executing "" at <.Missing>: map has no entry for key "Missing"'),
        ("{{.Id", "template: :1: unclosed action"),
        ("{{nosuch 1}}", 'template: :1: function "nosuch" not defined'),
        ("{{if .Id}}", "template: :1: unexpected EOF"),
        ("{{end}}", "template: :1: unexpected {{end}}"),
        ("{{}}", "template: :1: missing value for command"),
        ("{{.Id | truncate 3}}", "error calling truncate"),
        ("{{.State.Nope.More}}", 'at <.State.Nope.More>: map has no entry for key "Nope"'),
        ("{{index .Env 5}}", "index out of range: 5"),
        ('{{"a}}', "unterminated quoted string"),
    ],
)
def test_refused(source: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template(source).render(DATA)
    assert message in str(caught.value)


class Row:
    fields = ("ID", "Label")
    type_name = "*formatter.Row"

    def ID(self) -> str:
        return "x"

    def Label(self, name: str) -> str:
        return f"label {name}"


def test_rows_are_called() -> None:
    assert Template('{{.ID}} {{.Label "a"}}').render(Row()) == "x label a"
    with pytest.raises(TemplateError, match=r"can't evaluate field Nope in type \*formatter.Row"):
        Template("{{.Nope}}").render(Row())


@given(st.text(alphabet="{}.$|()\"'`-=:, \nabI01rangeifendwithelse", max_size=40))
def test_anything_renders_or_is_refused(source: str) -> None:
    try:
        Template(source).render(DATA)
    except TemplateError:
        pass
