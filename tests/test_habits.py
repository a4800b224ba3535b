"""What people who carry on rely on: the site of the documents, the hooks before a commit."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
JUST = Path(sys.executable).with_name("just")
_LOADS = {"src", "srcset", "data", "poster", "background", "action"}
_IN_CSS = re.compile(r"""(?:url\(|@import)\s*["']?\s*(?:https?:)?//""")

pytestmark = pytest.mark.skipif(not JUST.exists(), reason="just is not beside this python")


def just(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([JUST, *args], cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("docs")
    done = just("docs", made)
    assert done.returncode == 0, done.stdout + done.stderr
    return made / "html"


class Page(HTMLParser):
    """What a page loads by itself, where it leads, and what can be led to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.leads: list[str] = []
        self.anchors = {""}
        self.styles: list[str] = []
        self._in_style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_style = tag == "style"
        for name, value in attrs:
            if name == "id":
                self.anchors.add(value or "")
            elif name == "style":
                self.styles.append(value or "")
            elif name in _LOADS or (name == "href" and tag != "a"):
                self.loads.append(value or "")
            elif name == "href":
                self.leads.append(value or "")

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.styles.append(data)


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text()) for path in site.rglob("*.html")}


def test_the_site_has_every_page(site: Path) -> None:
    pages = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
    pages += [str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")]
    assert sorted(p for p in pages if not (site / p).with_suffix(".html").is_file()) == []
    assert (site / "index.html").is_file()


def test_the_site_loads_nothing_from_another_host(site: Path, pages: dict[Path, Page]) -> None:
    loaded = {url for page in pages.values() for url in page.loads}
    assert len(loaded) > 10
    assert sorted(url for url in loaded if urlsplit(url).netloc) == []
    styles = [style for page in pages.values() for style in page.styles]
    styles += [path.read_text() for path in site.rglob("*.css")]
    assert [style[:200] for style in styles if _IN_CSS.search(style)] == []


def test_each_link_of_the_site_leads_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    lost: list[str] = []
    for path, page in pages.items():
        for url in map(urlsplit, page.leads):
            if url.scheme or url.netloc:
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            there = pages[target].anchors if target in pages else {""}
            if not target.is_file() or unquote(url.fragment) not in there:
                lost.append(f"{path.relative_to(site)}: {url.geturl()}")
    assert lost == []


BROKEN = ("#no-such-heading", "docs/none.md", "docs/other.md#no-such-heading")
"""a heading of the page itself, a page, and a heading of another page"""


def test_a_broken_link_ends_the_build_which_names_each(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "docs").mkdir(parents=True)
    (source / "docs" / "contents.rst").write_text("C\n=\n\n.. toctree::\n\n   /README\n   other\n")
    (source / "docs" / "other.md").write_text("# Other\n")
    readme = source / "README.md"
    readme.write_text("# Us\n\n[to](#us), [other](docs/other.md#other)\n")
    done = just("docs", tmp_path / "good", source)
    assert done.returncode == 0, done.stdout + done.stderr
    links = "\n\n".join(f"[nowhere]({link})" for link in BROKEN)
    readme.write_text(f"# Us\n\n{links}\n")
    done = just("docs", tmp_path / "broken", source)
    assert done.returncode != 0
    lines = [int(line) for line in re.findall(r"README\.md:(\d+): WARNING", done.stderr)]
    assert lines == [3, 5, 7], done.stderr


def lint_recipe() -> Iterator[str]:
    recipe = json.loads(just("--dump", "--dump-format", "json").stdout)["recipes"]["lint"]
    for line in recipe["body"]:
        yield "".join(line)


def test_the_hooks_before_a_commit_are_the_steps_of_lint_and_local() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    hooks: list[dict[str, Any]] = config["repos"][0]["hooks"]
    assert {(hook["language"], hook["pass_filenames"]) for hook in hooks} == {("system", False)}
    assert [hook["entry"].removeprefix(".venv/bin/") for hook in hooks] == list(lint_recipe())
