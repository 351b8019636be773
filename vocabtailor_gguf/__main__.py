"""``python -m vocabtailor_gguf`` is the command line."""

import sys

from vocabtailor_gguf.cli import entry

if __name__ == "__main__":
    sys.exit(entry())
