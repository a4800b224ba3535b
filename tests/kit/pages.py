"""The code on a page of the documentation, taken from it to be run: what a reader copies is what is tested."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"# (\S+\.\w+)\n")


class Page:
    """A page's blocks. One that begins with `# NAME` is a file of that name."""

    def __init__(self, name: str) -> None:
        self.blocks = _BLOCK.findall((DOCS / name).read_text())

    @property
    def files(self) -> dict[str, str]:
        """Name → content."""
        return {
            Path(named[1]).name: text for _, text in self.blocks if (named := _NAMED.match(text))
        }

    def block(self, text: str) -> str:
        """The one block in which this text is."""
        (found,) = (block for _, block in self.blocks if text in block)
        return str(found)

    def write(self, to: Path) -> None:
        to.mkdir(parents=True, exist_ok=True)
        for name, text in self.files.items():
            (to / name).write_text(text)
