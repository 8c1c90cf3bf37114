"""A mount as data: what a snapshotter hands to whoever has the mount namespace to perform it in."""


class Mount:
    """One mount(2), to be performed on a target that the performer chooses. Immutable by convention.

    `options` are as in fstab ("ro", "upperdir=..."); `lowerdirs`, for overlay only, top layer first, are kept
    apart so that they can be given one by one (fsconfig "lowerdir+") and never meet the one-page limit of mount(2).
    """

    # A plain class: the cold runtime imports this, and NamedTuple or dataclass would cost it `re` and `inspect`.
    __slots__ = ("lowerdirs", "options", "source", "type")

    def __init__(self, type: str, source: str, options: tuple[str, ...] = (), lowerdirs: tuple[str, ...] = ()) -> None:
        self.type = type
        self.source = source
        self.options = options
        self.lowerdirs = lowerdirs

    def _values(self) -> tuple[object, ...]:
        return (self.type, self.source, self.options, self.lowerdirs)

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if isinstance(other, Mount) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        return f"Mount{self._values()!r}"
