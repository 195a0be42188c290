"""`python -m reports tutorial`: the tutorial page, made by doing what it says.

The template holds the words and the lemma's files; every command in it is run in an empty folder, and what it prints is
put below it. So nothing on the page is written by hand that a reader would not see too.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reports.store import RecordError, reports_root, write_text

PLACE = "guides/from_false_lemma_to_repair.md"
SHOWN = re.compile(r"^(statement: |  [A-Za-z]\w* = \[|  breaks: |  sides of )")


class Steps:
    """The folder in which the tutorial happens."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, name: str, text: str) -> str:
        """Write a file and show it."""
        text = text.strip() + "\n"
        (self.folder / name).write_text(text, encoding="utf-8")
        return f"```python\n{text}```"

    def run(self, *arguments: str, status: int = 0) -> str:
        """Run `python -m theory ARGUMENTS` and show what it says about the statement.

        Counts, times and ratios met on the way may differ from machine to machine and stay out; what was found does not.

        Raises:
            RecordError: the exit status is another one than the tutorial says.
        """
        command = [sys.executable, "-m", "theory", *arguments]
        environment = {**os.environ, "COLUMNS": "200"}
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != status:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            msg = (
                f"tutorial: `theory {' '.join(arguments)}` ended with {done.returncode}, not {status}: {last}"
            )
            raise RecordError(msg)
        lines = [line.rstrip() for line in done.stdout.splitlines()]
        if arguments[0] == "falsify":
            lines = [
                re.sub(r"in \d+ evaluations", "in the evaluations allowed", li)
                for li in lines
                if SHOWN.match(li)
            ]
        return "\n".join(["```", f"$ python -m theory {' '.join(arguments)}", *lines, "```"])


def page() -> str:
    """The page, from doing every step in an empty folder."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        return environment.get_template("tutorial.md.j2").render(steps=Steps(Path(folder)))


def write() -> int:
    """Make the page again; return 0."""
    path = reports_root() / PLACE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page())
    print(f"reports/{PLACE}")
    return 0
