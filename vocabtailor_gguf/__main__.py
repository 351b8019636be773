"""``python -m vocabtailor_gguf`` is the command line."""

import sys

from vocabtailor_gguf.cli import main

if __name__ == "__main__":
    sys.exit(main())
