"""`wherry system fsck`."""

from __future__ import annotations

from wherry.cli.flags import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.flags import Flags
    from wherry.cli.main import Cli

FLAGS = (
    ("blobs", "", "bool", False, "Also read all content of images, to find what is damaged"),
    ("dry-run", "", "bool", False, "Only tell what would be mended"),
)


def check(cli: Cli, flags: Flags, arguments: list[str]) -> int:
    """0: all agree, or do now. 1: something is left that only the user can mend."""
    mend = not flags["dry-run"]
    answer = cli.engine.post("/wherry/system/fsck", [("mend", str(int(mend))), ("deep", str(int(flags["blobs"])))])
    for finding in answer["Findings"]:
        done = "mended: " if finding["Mended"] else "would: " if not mend else "left: "
        print(f"{finding['Area']}: {finding['Object']}: {finding['Problem']}\n    {done}{finding['Remedy']}")
    left, found = answer["Left"], len(answer["Findings"])
    print("State, disk and kernel agree." if not found else f"{found} found, {found - left} mended, {left} left.")
    return 1 if left else 0


COMMANDS = {"system fsck": Command(check, FLAGS)}
