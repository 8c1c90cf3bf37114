"""scripts/coverage."""

import argparse
import sys
from pathlib import Path

from covered import derive, page


def main() -> int:
    """Write the page, or with --check only say whether it is stale."""
    parser = argparse.ArgumentParser(prog="scripts/coverage", description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when the page is stale")
    parser.add_argument("--untested", action="store_true", help="list what is done and no test shows")
    parser.add_argument("--facts", type=Path, help="derive the facts from this directory of specifications first")
    options = parser.parse_args()
    if options.facts:
        derive.write(options.facts)
    if options.untested:
        for fact in [fact for rows in page.facts() for fact in page.missing_tests(rows)]:
            print(fact.group, fact.owner, fact.name, sep="\t")
        return 0
    text = page.render(*page.facts(search=not options.check))
    stale = not page.PAGE.exists() or page.PAGE.read_text(encoding="utf-8") != text
    if options.check:
        print("stale: run scripts/coverage" if stale else "up to date")
        return int(stale)
    page.PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
