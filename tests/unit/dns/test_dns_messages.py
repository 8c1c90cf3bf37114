"""The wire format, whatever comes; and who is found by which name."""

import ipaddress
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dns_client
from wherry.dns import message
from wherry.dns.message import Malformed
from wherry.dns.names import Member, Names

LABEL = st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=20)
NAME = st.lists(LABEL, min_size=1, max_size=8).map(".".join)


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda tail: b"\x42\x42\1\0\0\1\0\0\0\0\0\1" + tail))
def test_no_bytes_break_it(data: bytes) -> None:
    try:
        question = message.parse(data)
    except Malformed as error:
        refused = None if error.rcode is None else message.refusal(data, error.rcode)
        assert refused is None or len(refused) == 12
        return
    assert 12 < question.end <= len(data)
    assert len(question.name) <= 300
    for records in ([], [b"\1\2\3\4"]):
        answer = data[:2] + message.answer(data, question, message.NO_ERROR, records, question.size)
        assert len(answer) <= max(question.size, question.end + 11)
    message.is_answer(data, data, question.end)
    message.reverse(question.name)


@given(NAME, st.sampled_from(["A", "AAAA", "PTR", "SRV"]), st.sampled_from([0, 512, 1232, 65535]))
def test_a_question_is_read_and_answered(name: str, type: str, edns: int) -> None:
    data = dns_client.query(name, type, edns=edns)
    question = message.parse(data)
    assert question.name.decode() == name.lower()
    assert (question.type, question.cls) == (dns_client.TYPES[type], 1)
    assert (question.size, question.edns) == (max(edns, 512), edns > 0)
    records = [b"\1\2\3\4"] if type == "A" else [ipaddress.ip_address("fd00::1").packed] if type == "AAAA" else []
    reply = dns_client.decode(data[:2] + message.answer(data, question, message.NO_ERROR, records))
    assert (reply.rcode, reply.flags, len(reply.data)) == ("NOERROR", 0x8180, len(records))
    assert set(reply.names) <= {name}
    assert (41 in reply.types) is (edns > 0)


@pytest.mark.parametrize(
    ("data", "rcode"),
    [
        (b"", None),
        (b"\0" * 11, None),
        (b"\1\1\x81\0\0\1" + bytes(6) + b"\1a\0\0\1\0\1", None),
        (b"\1\1\x09\0\0\1" + bytes(6) + b"\1a\0\0\1\0\1", message.NOT_IMPLEMENTED),
        (b"\1\1\1\0\0\2" + bytes(6) + b"\1a\0\0\1\0\1" * 2, message.FORMAT_ERROR),
        (b"\1\1\1\0\0\1" + bytes(6) + b"\1a\0\0\1\0", message.FORMAT_ERROR),
        (b"\1\1\1\0\0\1" + bytes(6) + b"\xc0\x0c\0\1\0\1", message.FORMAT_ERROR),
        (b"\1\1\1\0\0\1" + bytes(6) + b"\x05ab\0\0\1\0\1", message.FORMAT_ERROR),
        (b"\1\1\1\0\0\1" + bytes(6) + b"\x3f" * 260 + b"\0\0\1\0\1", message.FORMAT_ERROR),
    ],
    ids=["empty", "short", "answer", "status", "two", "cut", "pointer to itself", "label past the end", "too long"],
)
def test_what_is_no_question(data: bytes, rcode: int | None) -> None:
    with pytest.raises(Malformed) as refused:
        message.parse(data)
    assert refused.value.rcode == rcode


def test_what_does_not_fit_is_left_out_and_said() -> None:
    records = [bytes([10, 0, number // 256, number % 256]) for number in range(300)]
    for edns, size in ((0, 512), (1232, 1232)):
        data = dns_client.query("web", edns=edns)
        question = message.parse(data)
        reply = dns_client.decode(data[:2] + message.answer(data, question, 0, records, question.size))
        assert reply.size <= size
        assert reply.flags & 0x0200
        assert 0 < len(reply.data) < 300
    whole = dns_client.decode(data[:2] + message.answer(data, question, 0, records))
    assert len(whole.data) == 300
    assert not whole.flags & 0x0200


def test_only_the_answer_to_the_question_is_one() -> None:
    query = dns_client.query("Example.org", edns=1232)
    end = message.parse(query).end
    right = dns_client.reply_to(query[:end], records=(b"\1\2\3\4",))
    assert message.is_answer(right, query, end)
    assert message.is_answer(right.replace(b"Example", b"eXAMPLE"), query, end)
    for wrong in (
        b"\0\0" + right[2:],
        query,
        right.replace(b"Example", b"Exampel"),
        right[:11],
        right[:4] + b"\0\2" + right[6:],
        right[:4] + b"\0\0" + right[6:],
        dns_client.reply_to(dns_client.query("Example.org", "AAAA")),
    ):
        assert not message.is_answer(wrong, query, end)
    # A server that does not know EDNS may send a header alone.
    assert message.is_answer(query[:2] + b"\x81\x01" + bytes(8), query, end)


@given(st.ip_addresses())
def test_reverse(address: Any) -> None:
    name = address.reverse_pointer.encode()
    assert message.reverse(name) == address.packed
    assert message.reverse(b"1." + name) is None
    assert message.reverse(name[2:]) is None or address.version == 4


def _member(network: str, number: int, *names: str, links: dict[str, str] | None = None, ipv6: bool = True) -> Member:
    ipv4, six = f"10.{network[-1]}.0.{number}", f"fd00:{network[-1]}::{number}" if ipv6 else ""
    return Member(
        {"id": network, "network": f"n{network}", "ipv4": ipv4, "ipv6": six, "names": names, "links": links or {}}
    )


def test_who_is_affected_by_a_change_and_nobody_else() -> None:
    names = Names()
    assert names.put("a", (_member("1", 1, "anna"),)) == {"a"}
    assert names.put("b", (_member("1", 2, "bert"), _member("2", 2, "bert"))) == {"a", "b"}
    assert names.put("c", (_member("2", 3, "carl"),)) == {"b", "c"}
    assert names.put("a", (_member("1", 1, "otto"),)) == {"a", "b"}
    assert not names.find("b", b"anna")
    assert len(names.find("b", b"otto")) == 1
    assert names.drop("b") == {"a", "b", "c"}
    assert names.drop("b") == {"b"}
    assert not names.find("c", b"bert")
    assert not names.find("nobody", b"carl")
    assert names.name_of("c", ipaddress.ip_address("10.2.0.2").packed) is None
    names.drop("a")
    names.drop("c")
    assert not names._networks
    assert not names._members


def test_names_with_dots_and_names_of_networks() -> None:
    names = Names()
    names.put("a", (_member("1", 1, "my.app"), _member("2", 1, "my.app")))
    names.put("b", (_member("1", 2, "my"), _member("2", 9, "other.n1")))
    assert [m.ipv4[-1] for m in names.find("a", b"my.app")] == [1]
    assert [m.ipv4 for m in names.find("a", b"my.app.n2")] == [b"\x0a\x02\0\1"]
    assert names.find("a", b"my.n2") == []
    assert [m.ipv4[-1] for m in names.find("a", b"other.n1")] == [9]
    assert names.name_of("a", b"\x0a\1\0\2") == b"\2my\2n1\0"


def test_links_are_their_owners_alone() -> None:
    names = Names()
    names.put("a", (_member("1", 1, "anna"),))
    names.put("b", (_member("1", 2, "bert", links={"Db": "anna", "anna": "bert", "gone": "nobody"}),))
    assert [m.names for m in names.find("b", b"db")] == [(b"anna",)]
    assert [m.names for m in names.find("b", b"anna")] == [(b"bert",)], "a link goes before a name"
    assert names.find("b", b"gone") == []
    assert names.find("a", b"db") == []


def test_two_with_one_address_do_not_take_it_from_each_other() -> None:
    names = Names()
    names.put("a", (_member("1", 1, "anna"),))
    names.put("b", (_member("1", 1, "bert"),))
    names.drop("a")
    assert names.name_of("b", b"\x0a\1\0\1") == b"\4bert\2n1\0"
