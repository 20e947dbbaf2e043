"""The command: the summary of a file as JSON."""

import json
import sys
from pathlib import Path

from textstats import summary


def main():
    """Run it; gives the exit code."""
    if len(sys.argv) != 2:
        print("usage: python3 -m textstats FILE", file=sys.stderr)
        return 1
    try:
        text = Path(sys.argv[1]).read_bytes().decode("utf-8")
    except (OSError, ValueError) as error:
        print(f"Cannot read {sys.argv[1]}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(summary(text)))
    return 0


sys.exit(main())
