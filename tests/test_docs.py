"""What the documents and comments point at is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from config_manager.config.settings import ENV_PREFIX, Settings

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("actors", "api", "bench", "client", "config", "deploy", "docs", "examples", "storage")
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

# `api/server/app.py`, `docs/wire.md`; not a path of the data directory, such as `trust/root.json`
_PATH = re.compile(rf"(?<![\w/.-])(?:{'|'.join((*FOLDERS, 'tests'))})/[\w./-]*\w\.\w+")
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)[^)]*\)")
_PAGE = re.compile(r"(?<![\w/.])[\w-]+\.md\b")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_document_names_exists(page: Path) -> None:
    named = set(_PATH.findall(page.read_text()))
    assert sorted(name for name in named if not (ROOT / name).is_file()) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_page_that_a_link_leads_to_exists(page: Path) -> None:
    linked = set(_LINK.findall(page.read_text()))
    assert sorted(link for link in linked if not (page.parent / link).is_file()) == []


def test_no_comment_sends_its_reader_to_a_document_that_is_not_here() -> None:
    here = {
        page.name
        for folder in (".", "docs", "docs/services", "deploy")
        for page in (ROOT / folder).glob("*.md")
    }
    sources = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    lost = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources
        for name in _PAGE.findall(path.read_text())
        if name not in here
    }
    assert sorted(lost) == []


def test_the_steps_of_one_put_are_numbered_in_order() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    steps = [int(number) for number in re.findall(r"^(\d+)\. ", text, re.MULTILINE)]
    assert steps == list(range(1, len(steps) + 1))


def test_every_variable_of_the_environment_is_in_the_readme() -> None:
    rooms = ("actors", "api", "client", "config", "storage")
    sources = [path.read_text() for room in rooms for path in (ROOT / room).rglob("*.py")]
    read = {
        name for text in sources for name in re.findall(rf"(?<!_){ENV_PREFIX}[A-Z_]*[A-Z]", text)
    }
    read |= {ENV_PREFIX + name.upper() for name in Settings.model_fields}
    text = (ROOT / "README.md").read_text()
    assert len(read) > 15
    assert sorted(name for name in read if f"`{name}`" not in text) == []
