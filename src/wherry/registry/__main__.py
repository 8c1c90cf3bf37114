"""`python -m wherry.registry`."""

import sys

from wherry.registry.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
