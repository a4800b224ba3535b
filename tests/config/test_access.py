"""Roles, narrowing and the one question, word for word."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config_manager.config.access import ANYBODY, ROLES, Grant, Need, Role, is_pattern
from config_manager.config.errors import Forbidden

MAY: dict[Role, set[Need]] = {
    "read": {"read"},
    "write": {"read", "write"},
    "secrets": {"read", "secrets"},
    "admin": {"read", "write", "secrets", "admin"},
}
NEEDS: tuple[Need, ...] = ("read", "write", "secrets", "admin")

pieces = st.text("ab-*", min_size=1, max_size=12)
names = st.text("ab-", min_size=1, max_size=12)


def allowed(grant: Grant, need: Need, service: str | None = None) -> bool:
    try:
        grant.require(need, service)
    except Forbidden:
        return False
    return True


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("need", NEEDS)
def test_a_role_may_what_its_line_says_and_nothing_else(role: Role, need: Need) -> None:
    grant = Grant("ada", role)
    assert allowed(grant, need) == (need in MAY[role])
    assert allowed(grant, need, "stt-worker") == (need in MAY[role])


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("need", NEEDS)
def test_a_narrowed_token_may_the_same_but_only_for_its_services(role: Role, need: Need) -> None:
    grant = Grant("ada", role, ("tts-*", "router"))
    for service in ("tts-worker", "router"):
        assert allowed(grant, need, service) == (need in MAY[role])
    for service in ("stt-worker", "tts", "a-tts-worker", "router2"):
        assert not allowed(grant, need, service)


def test_what_belongs_to_no_service_is_not_for_a_narrowed_administrator() -> None:
    assert allowed(Grant("ada", "admin"), "admin")
    assert not allowed(Grant("ada", "admin", ("tts-*",)), "admin")
    assert not allowed(Grant("ada", "admin", ("a*", "*")), "admin"), "only `*` alone is everything"


def test_a_refusal_names_who_and_what_would_do() -> None:
    with pytest.raises(Forbidden, match=r"'ci' has the role read.*write, admin"):
        Grant("ci", "read").require("write", "router")
    with pytest.raises(Forbidden, match=r"'ci' is for tts-\*, not for router"):
        Grant("ci", "write", ("tts-*",)).require("write", "router")
    with pytest.raises(Forbidden, match=r"'ci' is for tts-\*; this concerns every service"):
        Grant("ci", "admin", ("tts-*",)).require("admin")


def test_anybody_is_for_no_service() -> None:
    assert not ANYBODY.covers("stt-worker")
    assert not any(allowed(ANYBODY, need, "stt-worker") for need in NEEDS)


@given(pattern=pieces, service=names)
@settings(derandomize=True)
def test_a_star_stands_for_any_text_and_everything_else_for_itself(
    pattern: str, service: str
) -> None:
    meant = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), service)
    assert Grant("ada", "read", (pattern, "")).covers(service) == (meant is not None)


def test_no_pattern_makes_the_question_slow() -> None:
    started = time.process_time()
    assert not Grant("ada", "read", ("*a" * 31, "a*" * 31 + "c")).covers("a" * 62 + "b")
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize("text", ["*", "tts-*", "*-worker", "a*b", "stt-worker", "a" * 63])
def test_what_may_stand_in_a_list_of_services(text: str) -> None:
    assert is_pattern(text)


@pytest.mark.parametrize("text", ["", "A", "a" * 64, "[ab]", "a?", "a b", "a\n", "ä", "a/b", "!a"])
def test_what_may_not(text: str) -> None:
    assert not is_pattern(text)
