"""`make inspect DATA=... OUT=...`: look at data, and propose a mapping."""

import argparse
import sys

from kreislauf.inspection.look import InspectionError, look
from kreislauf.sources import SourceError


def main() -> None:
    """Print what a source has, and write the proposed mapping."""
    parser = argparse.ArgumentParser(prog="make inspect", description=main.__doc__)
    parser.add_argument("data", help="a file, a folder or an s3:// prefix")
    parser.add_argument("--out", help="file for the mapping, which must not exist yet")
    parser.add_argument("--model", help="a folder in models/; by default by what the ids are")
    arguments = parser.parse_args()
    if not arguments.data:
        parser.error("say what to look at: make inspect DATA=events.csv")
    try:
        print(look(arguments.data, arguments.model, arguments.out).report)
    except (SourceError, InspectionError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
