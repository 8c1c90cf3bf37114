"""`python -m wherry.daemon`."""

import sys

from wherry.daemon.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
