"""What a check of state, disk and kernel against each other found, and what was done about it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from wherry.errors import WherryError


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One disagreement. `remedy`: what mends it; done, when `mended`."""

    area: str
    object: str
    problem: str
    remedy: str
    mended: bool = False

    def to_json(self) -> dict[str, Any]:
        """The document the API gives."""
        return {
            "Area": self.area,
            "Object": self.object,
            "Problem": self.problem,
            "Remedy": self.remedy,
            "Mended": self.mended,
        }


class Findings:
    """Takes what a check finds; with `mend`, mends it on the spot. A remedy that fails is told, and is no error."""

    def __init__(self, *, mend: bool) -> None:
        self.mend = mend
        self.found: list[Finding] = []

    def add(self, area: str, object: str, problem: str, remedy: str, act: Callable[[], object] | None = None) -> None:
        """`act` mends it; None: only the user can."""
        if act is None or not self.mend:
            self._note(area, object, problem, remedy)
            return
        try:
            act()
        except (OSError, WherryError) as error:
            self._note(area, object, problem, f"{remedy}; that failed: {error}")
        else:
            self._note(area, object, problem, remedy, mended=True)

    async def add_async(
        self, area: str, object: str, problem: str, remedy: str, act: Callable[[], Awaitable[object]]
    ) -> None:
        """The same for what must be awaited."""
        if not self.mend:
            self._note(area, object, problem, remedy)
            return
        try:
            await act()
        except (OSError, WherryError) as error:
            self._note(area, object, problem, f"{remedy}; that failed: {error}")
        else:
            self._note(area, object, problem, remedy, mended=True)

    def _note(self, area: str, object: str, problem: str, remedy: str, *, mended: bool = False) -> None:
        self.found.append(Finding(area=area, object=object, problem=problem, remedy=remedy, mended=mended))
