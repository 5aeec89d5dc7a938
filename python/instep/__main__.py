"""Run the command line as ``python -m instep``."""

import sys

from instep._cli import main

if __name__ == "__main__":
    sys.exit(main())
