"""One tree and one table: every error has a name, a status, an exit code."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from config_manager.config import errors as e

CLASSES = list(e.DESCRIPTIONS)
STATUSES = {400, 401, 403, 404, 405, 409, 412, 413, 415, 422, 429, 500, 503, 504, 507}


def tree(root: type[e.ConfigManagerError] = e.ConfigManagerError) -> Iterator[type]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


def test_the_table_describes_the_whole_tree_and_nothing_else() -> None:
    ours = {c for c in tree() if c.__module__.startswith("config_manager.config.")}
    assert set(CLASSES) == ours
    assert len(CLASSES) > 20


def test_the_drawing_is_the_tree() -> None:
    """The module's docstring is the first thing that somebody reads."""
    drawn: dict[str, str | None] = {}
    above: list[str] = []
    for line in (e.__doc__ or "").splitlines():
        if found := re.match(r"^ {4}([│├└─ ]*)([A-Z]\w+)", line):
            depth = len(found[1]) // 4
            above[depth:] = [found[2]]
            drawn[found[2]] = above[depth - 1] if depth else None
    real = {c.__name__: c.__bases__[0].__name__ for c in CLASSES}
    assert drawn == {**real, "ConfigManagerError": None}


def test_no_two_errors_share_a_name() -> None:
    names = [d.name for d in e.DESCRIPTIONS.values()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_has_a_searchable_name_and_codes_of_the_contract(
    kind: type[e.ConfigManagerError],
) -> None:
    description = e.DESCRIPTIONS[kind]
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", description.name)
    assert description.title
    assert description.status in STATUSES
    assert 1 <= description.exit_code <= 7
    assert description.level in ("info", "warning", "error")


@pytest.mark.parametrize(
    ("kind", "name", "status", "exit_code"),
    [
        (e.ConfigManagerError, "internal", 500, 1),
        (e.Refusal, "refused", 400, 1),
        (e.MalformedRequest, "malformed-request", 400, 2),
        (e.InvalidName, "invalid-name", 400, 2),
        (e.NotAuthenticated, "not-authenticated", 401, 5),
        (e.Forbidden, "forbidden", 403, 5),
        (e.NotFound, "not-found", 404, 6),
        (e.MethodNotAllowed, "method-not-allowed", 405, 2),
        (e.RevisionConflict, "revision-conflict", 412, 7),
        (e.TooLarge, "too-large", 413, 2),
        (e.UnsupportedMediaType, "unsupported-media-type", 415, 2),
        (e.InvalidValues, "invalid-values", 422, 2),
        (e.UseSecrets, "use-secrets", 422, 2),
        (e.IdempotencyMismatch, "idempotency-mismatch", 422, 7),
        (e.ReadOnly, "read-only", 503, 1),
        (e.Busy, "busy", 503, 1),
        (e.DeadlineExceeded, "deadline-exceeded", 504, 1),
        (e.DiskRefused, "disk-refused", 503, 1),
        (e.StorageFull, "storage-full", 507, 1),
        (e.StartError, "start-failed", 500, 1),
        (e.SettingsInvalid, "settings-invalid", 500, 2),
        (e.PortTaken, "port-taken", 500, 2),
        (e.DataDirUnusable, "data-dir-unusable", 500, 2),
        (e.DiskFailed, "disk-failed", 500, 3),
        (e.DatabaseUnopenable, "database-unopenable", 500, 3),
        (e.KeyFileUnsafe, "key-file-unsafe", 500, 3),
        (e.DataDirInUse, "data-dir-in-use", 500, 4),
        (e.RootRefused, "root-refused", 500, 5),
        (e.NothingKept, "nothing-kept", 500, 6),
        (e.NothingDelivered, "nothing-delivered", 500, 6),
        (e.ConfigurationStale, "configuration-stale", 500, 1),
        (e.ForkedAway, "forked-away", 500, 1),
    ],
)
def test_people_script_against_names_statuses_and_exit_codes(
    kind: type[e.ConfigManagerError], name: str, status: int, exit_code: int
) -> None:
    """A change here breaks somebody's script: say so in the changelog."""
    description = e.DESCRIPTIONS[kind]
    assert (description.name, description.status, description.exit_code) == (
        name,
        status,
        exit_code,
    )


def test_the_answers_that_say_try_again_say_when() -> None:
    when = {k: d.retry_after_s for k, d in e.DESCRIPTIONS.items() if d.retry_after_s is not None}
    assert set(when) == {k for k, d in e.DESCRIPTIONS.items() if d.status in (429, 503)}
    assert all(seconds >= 1 for seconds in when.values())


@pytest.mark.parametrize(
    "kind", [c for c in CLASSES if c not in (e.RevisionConflict, e.ServerSays)]
)
def test_an_error_says_its_detail_and_looks_itself_up(kind: type[e.ConfigManagerError]) -> None:
    error = kind("what happened")
    assert (error.detail, str(error)) == ("what happened", "what happened")
    assert error.description is e.DESCRIPTIONS[kind]


def test_a_conflict_names_both_revisions_for_people_and_for_programs() -> None:
    error = e.RevisionConflict("router", '"3"', 5)
    assert error.extensions == {"expected": '"3"', "current_revision": 5}
    assert error.detail.startswith('router is at revision 5, not "3"; ')
    assert error.description.status == 412


@pytest.mark.parametrize("kind", [e.InvalidValues, e.UseSecrets, e.IdempotencyMismatch])
def test_invalid_input_lists_each_field(kind: type[e.InvalidValues]) -> None:
    error = kind("wrong", [e.FieldError("/a", "expected 1"), e.FieldError("", "too much")])
    assert error.extensions == {
        "errors": [
            {"pointer": "/a", "detail": "expected 1"},
            {"pointer": "", "detail": "too much"},
        ]
    }
    assert kind("wrong").extensions == {"errors": []}


def test_a_method_not_allowed_knows_which_are() -> None:
    assert e.MethodNotAllowed("no", ["GET", "PUT"]).allowed == ("GET", "PUT")
    assert e.MethodNotAllowed("no").allowed == ()


def test_other_errors_have_no_members_of_their_own() -> None:
    assert e.NotFound("nothing").extensions == {}


def test_the_reason_of_a_group_is_the_first_of_the_kinds_asked_for() -> None:
    refused, start, other = e.NotFound("a"), e.PortTaken("b"), OSError("c")
    group = BaseExceptionGroup("", [other, BaseExceptionGroup("", [refused, start])])
    assert e.the_reason(group, e.ConfigManagerError) is refused
    assert e.the_reason(group, e.StartError, e.Refusal) is start
    assert e.the_reason(group, e.DataDirInUse, OSError) is other
    assert e.the_reason(group, e.DataDirInUse) is group
    assert e.the_reason(group) is group
