"""Device rules: OCI's ordered list, and its flat form for v1.

A rule says which accesses (r, w, m) of which devices (type, major, minor, each possibly "any") are allowed or not; for
each access the last rule that fits decides, and what no rule fits is denied (OCI runtime-spec, config-linux.md,
"Allowed Device list").
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, NamedTuple
else:
    from wherry.kernel.tuples import NamedTuple

MKNOD, READ, WRITE = 1, 2, 4  # as in linux/bpf.h, BPF_DEVCG_ACC_*
ALL = MKNOD | READ | WRITE
_BITS = {"m": MKNOD, "r": READ, "w": WRITE}
_TYPES = {"a": "bc", "b": "b", "c": "c", "u": "c"}
ANY = -1


class Rule(NamedTuple):
    """`kinds`: "b", "c" or "bc"; `major` and `minor`: ANY or a number; `access`: bits."""

    allow: bool
    kinds: str
    major: int
    minor: int
    access: int

    def text(self) -> str:
        """As devices.allow reads it. Only for a single kind."""
        numbers = ":".join(["*" if n == ANY else str(n) for n in (self.major, self.minor)])
        return f"{self.kinds} {numbers} {''.join([letter for letter, bit in _LETTERS if self.access & bit])}"

    def covers(self, other: Rule) -> bool:
        """Whether every device of `other` is one of this rule's."""
        return (
            all(kind in self.kinds for kind in other.kinds)
            and self.major in (ANY, other.major)
            and self.minor in (ANY, other.minor)
        )

    def meets(self, other: Rule) -> bool:
        """Whether some device is both rules'."""
        return (
            any(kind in self.kinds for kind in other.kinds)
            and (ANY in (self.major, other.major) or self.major == other.major)
            and (ANY in (self.minor, other.minor) or self.minor == other.minor)
        )

    @property
    def total(self) -> bool:
        """Whether it decides every access of every device."""
        return self.kinds == "bc" and self.major == self.minor == ANY and self.access == ALL


_LETTERS = (("r", READ), ("w", WRITE), ("m", MKNOD))


def parse(entries: Iterable[Mapping[str, Any]]) -> list[Rule]:
    """OCI `linux.resources.devices`; OSError(EINVAL) for what is not a rule."""
    rules = []
    for entry in entries:
        access, kinds = entry.get("access") or "rwm", _TYPES.get(entry.get("type") or "a")
        numbers = [ANY if n is None else n for n in (entry.get("major"), entry.get("minor"))]
        fits = kinds and isinstance(access, str) and not set(access) - _BITS.keys()
        if not fits or any(not isinstance(n, int) or not ANY <= n < 1 << 31 for n in numbers):
            raise OSError(errno.EINVAL, f"linux.resources: not a device rule: {dict(entry)!r}")
        bits = 0
        for letter in access:
            bits |= _BITS[letter]
        rules.append(Rule(bool(entry.get("allow")), kinds or "", numbers[0], numbers[1], bits))
    return rules


def whitelist(rules: Sequence[Rule]) -> list[Rule] | None:
    """The same as rules that only allow, each of one kind; None: everything is allowed.

    v1 keeps a flat list, whose deny removes only literally equal entries. OSError(EOPNOTSUPP) for a list that cannot be
    flattened (an exception to an allowed range, or to everything): letting the device through would be the alternative.
    """
    permitted: list[Rule] = []
    everything = False
    for rule in rules:
        if rule.total:
            permitted, everything = [], rule.allow
        elif rule.allow:
            if not everything:
                permitted += [rule._replace(kinds=kind) for kind in rule.kinds]
        else:
            if everything or any(rule.meets(p) and rule.access & p.access and not rule.covers(p) for p in permitted):
                raise OSError(errno.EOPNOTSUPP, f"cgroup v1 cannot take {rule} out of what earlier rules allow")
            left = [p._replace(access=p.access & ~rule.access) if rule.covers(p) else p for p in permitted]
            permitted = [p for p in left if p.access]
    return None if everything else permitted
