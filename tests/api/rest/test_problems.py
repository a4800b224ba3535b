"""docs/problems.md is the list of problems: every name, its status and its exit code, as they are in the code."""

from __future__ import annotations

from config_manager.api.rest.problems import explanation
from config_manager.config.errors import DESCRIPTIONS, ConfigManagerError, Refusal
from tests.kit.pages import DOCS

# `Refusal` is what others derive from; nothing raises it
KINDS = [kind for kind in DESCRIPTIONS if kind is not Refusal]


def is_answered(kind: type[ConfigManagerError]) -> bool:
    return issubclass(kind, Refusal) or kind is ConfigManagerError


def rows(begin: str) -> list[list[str]]:
    """The cells of the table below a heading."""
    page = (DOCS / "problems.md").read_text()
    section = page[page.index(begin) + len(begin) :].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_lists_every_problem_that_rest_answers_with_its_status_and_exit_code() -> None:
    listed = [(name.strip("`"), status, code) for name, status, code, _, _ in rows("## Over REST")]
    known = [DESCRIPTIONS[kind] for kind in KINDS if is_answered(kind)]
    assert sorted(listed) == sorted((d.name, str(d.status), str(d.exit_code)) for d in known)


def test_the_page_lists_every_other_error_with_its_exit_code() -> None:
    listed = [(name.strip("`"), code) for name, code, _, _ in rows("## Of commands and clients")]
    known = [DESCRIPTIONS[kind] for kind in KINDS if not is_answered(kind)]
    assert sorted(listed) == sorted((d.name, str(d.exit_code)) for d in known)


def test_a_name_is_explained_in_more_words_than_its_title() -> None:
    for kind in filter(is_answered, KINDS):
        explained = explanation(DESCRIPTIONS[kind].name)
        assert explained is not None
        assert explained.meaning != explained.title
        assert len(explained.meaning.rstrip(".").split(". ")) > 1, (
            explained.meaning
        )  # when; what to do


def test_each_line_says_when_and_what_to_do() -> None:
    for begin in ("## Over REST", "## Of commands and clients"):
        for *_, when, what_to_do in rows(begin):
            assert min(len(when), len(what_to_do)) > 10, (when, what_to_do)
