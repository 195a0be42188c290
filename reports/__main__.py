"""`python -m reports`: records -> pages; `python -m reports audit`: compute the records again."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from reports.store import RecordError


class _Parser(argparse.ArgumentParser):
    """A parser that refuses bad input in one line."""

    def error(self, message: str) -> NoReturn:
        """Print the complaint and where to read more, and exit with status 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m reports", description=__doc__, allow_abbrev=False)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 naming stale pages")
    commands = parser.add_subparsers(dest="command", metavar="{audit,tutorial}")
    audit = commands.add_parser(
        "audit",
        help="compute every record again and compare with the committed ones",
        description="Exit 0: nothing differs. 1: a difference or a failure. 2: bad input. 3: interrupted.",
    )
    audit.add_argument("--budget", default="15m", help="start nothing after it: 90s, 15m, 2h, none")
    audit.add_argument("--jobs", type=int, help="processes at a time (default: the number of cores)")
    audit.add_argument("--only", metavar="PATTERN", help="only items whose name holds or matches this")
    audit.add_argument("--list", action="store_true", help="name the items and stop")
    commands.add_parser("tutorial", help="make the tutorial again, by running every command in it")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "audit":
            from reports import audit, items

            if options.list:
                for item in audit.select(items.find_items(items.checkout()), options.only):
                    print(item.name)
                return 0
            return audit.audit(options.budget, options.jobs, options.only)
        if options.command == "tutorial":
            from reports import tutorial

            return tutorial.write()
        from reports import render

        return render.check() if options.check else render.render()
    except RecordError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept", file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
