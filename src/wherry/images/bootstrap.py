"""Base images made from a distribution's own packages, for hosts that reach no registry.

`python -m wherry.images.bootstrap busybox out.tar` writes just the root file system.
"""

import sys
import tempfile
from pathlib import Path

from wherry.images.busybox import make_busybox


def main(arguments: list[str]) -> int:
    """Write the root file system of a base image as a tar."""
    if len(arguments) != 2 or arguments[0] != "busybox":
        print("usage: python -m wherry.images.bootstrap busybox OUT.tar", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="wherry-bootstrap-") as scratch, Path(arguments[1]).open("wb") as out:
        make_busybox(Path(scratch), out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
