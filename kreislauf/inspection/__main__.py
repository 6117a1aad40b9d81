"""`make inspect DATA=... OUT=...`: look at data, and propose a mapping, or try one."""

import argparse
import sys

from kreislauf.inspection.look import InspectionError, look, try_mapping
from kreislauf.sources import SourceError
from models.mapping import MappingError


def main() -> None:
    """Print what a source has, and write the proposed mapping; or what a mapping makes of it."""
    parser = argparse.ArgumentParser(prog="make inspect", description=main.__doc__)
    parser.add_argument("data", help="a file, a folder or an s3:// prefix")
    parser.add_argument("--out", help="file for the mapping, which must not exist yet")
    parser.add_argument("--mapping", help="a mapping to try; then none is proposed")
    parser.add_argument("--model", help="a folder in models/; by default by what the ids are")
    arguments = parser.parse_args()
    if not arguments.data:
        parser.error("say what to look at: make inspect DATA=events.csv")
    if arguments.mapping and arguments.out:
        parser.error("say OUT for a proposal, or MAPPING to try a mapping, and not both")
    try:
        if arguments.mapping:
            print(try_mapping(arguments.data, arguments.mapping, arguments.model).report)
        else:
            print(look(arguments.data, arguments.model, arguments.out).report)
    except (SourceError, InspectionError, MappingError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
