"""Limits: the counting alone, then over REST: a caller with a valid token is never refused because of others."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.public import PrivateKey
from nacl.signing import SigningKey

from config_manager.api.rest.limits import FAILED_LOGINS
from config_manager.api.rest.rate_limits import Limiter, RateLimit, address_key
from tests.kit.asgi import Answer, Caller, running

DOOR = "/api/v1/config/door"
THREE_A_MINUTE = RateLimit("test", 3, 60)


# ── counting ───────────────────────────────────────────────────────────────────────────────────


def test_a_quota_a_window_then_a_new_one() -> None:
    limiter = Limiter(THREE_A_MINUTE, most_keys=10)
    assert [limiter.take("a", now)[1:] for now in (0, 10, 20.5, 21, 59.9)] == [
        (2, 60, False),
        (1, 50, False),
        (0, 40, False),
        (0, 39, True),
        (0, 1, True),
    ]
    assert limiter.take("b", 59).left == 2, "each key has its own"
    assert limiter.take("a", 60)[1:] == (2, 60, False)


def test_what_is_refused_does_not_lengthen_the_wait() -> None:
    limiter = Limiter(THREE_A_MINUTE, most_keys=10)
    assert [limiter.take("a", 0.0).exceeded for _ in range(1000)].count(False) == 3
    assert not limiter.take("a", 60.0).exceeded


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 30)), max_size=300))
@settings(derandomize=True, deadline=None)
def test_however_many_come_memory_is_bounded(asked: list[tuple[int, float]]) -> None:
    limiter = Limiter(THREE_A_MINUTE, most_keys=5)
    now = 0.0
    for key, later in asked:
        now += later
        standing = limiter.take(str(key), now)
        assert len(limiter._windows) <= 5
        assert 0 <= standing.left <= 2 or standing.exceeded


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 30)), max_size=300))
@settings(derandomize=True, deadline=None)
def test_no_window_has_more_than_the_quota(asked: list[tuple[int, int]]) -> None:
    limiter = Limiter(THREE_A_MINUTE, most_keys=2)
    now = 0
    allowed: dict[int, list[int]] = {0: [], 1: []}
    for key, later in asked:
        now += later
        if not limiter.take(str(key), now).exceeded:
            allowed[key].append(now)
    for times in allowed.values():
        assert all(fourth > first for first, fourth in zip(times, times[3:], strict=False))
        # a quota at a window's end and one at the next one's start is all there can be
        assert all(sum(first <= at < first + 60 for at in times) <= 6 for first in times)


def test_past_the_most_keys_the_oldest_window_is_forgotten() -> None:
    limiter = Limiter(THREE_A_MINUTE, most_keys=2)
    for _ in range(4):
        limiter.take("old", 0)
    limiter.take("newer", 1)
    assert limiter.take("newest", 2).left == 2
    assert limiter.take("newer", 3).left == 1
    assert limiter.take("old", 4).left == 2


def test_the_headers_are_the_drafts() -> None:
    standing = Limiter(THREE_A_MINUTE, most_keys=1).take("a", 0)
    assert dict(standing.headers) == {
        b"ratelimit-policy": b'"test";q=3;w=60',
        b"ratelimit": b'"test";r=2;t=60',
    }


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        (None, "unix", True),
    ],
)
def test_what_counts_as_one_address(one: str | None, other: str, same: bool) -> None:
    assert (address_key(one) == address_key(other)) == same


# ── failed logins ──────────────────────────────────────────────────────────────────────────────


async def guess(rest: Caller, *, client: str = "192.0.2.9", method: str = "GET") -> Answer:
    body: dict[str, Any] | None = None if method == "GET" else {}
    return await rest.ask(method, DOOR, body, token="a-guess", client=client)


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_unknown_tokens_are_401_then_429_and_a_valid_one_is_never_refused(
    tmp_path: Path, fast_path: bool, method: str
) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system, fast_path=fast_path)
        answers = [await guess(rest, method=method) for _ in range(FAILED_LOGINS + 5)]
        assert [a.status for a in answers] == [401] * FAILED_LOGINS + [429] * 5
        assert answers[0].headers["ratelimit"] == f'"failed-logins";r={FAILED_LOGINS - 1};t=60'
        last = answers[-1]
        assert last.headers["ratelimit-policy"] == f'"failed-logins";q={FAILED_LOGINS};w=60'
        assert 1 <= int(last.headers["retry-after"]) <= 60
        assert last.json["type"] == "/problems/too-many-requests"
        valid = await rest.ask("PUT", DOOR, {}, client="192.0.2.9")
        assert (valid.status, "ratelimit" in valid.headers) == (201, False)
        assert (await guess(rest, client="192.0.2.10", method=method)).status == 401


async def test_no_token_at_all_is_no_failed_login(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system)
        answers = [await rest.ask("GET", DOOR, token=None) for _ in range(FAILED_LOGINS + 5)]
        assert {a.status for a in answers} == {401}
        assert (
            (await guess(rest, client="192.0.2.1"))
            .headers["ratelimit"]
            .startswith(f'"failed-logins";r={FAILED_LOGINS - 1}')
        )


async def test_what_needs_no_token_takes_any_and_counts_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system)
        for _ in range(FAILED_LOGINS + 5):
            assert (await rest.ask("GET", "/health", token="a-guess")).status == 200
        assert (await guess(rest, client="192.0.2.1")).status == 401


# ── writes ─────────────────────────────────────────────────────────────────────────────────────


async def test_where_configured_each_tokens_writes_are_limited_and_nobody_elses(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system, writes_per_minute=3)
        other = {"name": "other", "role": "admin"}
        token = (await rest.ask("POST", "/api/v1/tokens", other)).json["token"]
        answers = [await rest.ask("PUT", DOOR, {}) for _ in range(4)]
        assert [a.status for a in answers] == [201, 200, 429, 429]
        assert [a.headers["ratelimit"].partition(";t=")[0] for a in answers] == [
            '"writes";r=1',
            '"writes";r=0',
            '"writes";r=0',
            '"writes";r=0',
        ]
        assert answers[0].headers["ratelimit-policy"] == '"writes";q=3;w=60'
        assert int(answers[-1].headers["retry-after"]) <= 60
        assert system.view.committed.revision == 2
        assert (await rest.ask("GET", DOOR)).status == 200, "reading is not limited"
        assert (await rest.ask("PUT", DOOR, {}, token=token)).status == 200


async def test_who_may_not_write_uses_nothing_up(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system, writes_per_minute=2)
        reader = {"name": "reader", "role": "read"}
        token = (await rest.ask("POST", "/api/v1/tokens", reader)).json["token"]
        for _ in range(5):
            refused = await rest.ask("PUT", DOOR, {}, token=token)
            assert (refused.status, "ratelimit" in refused.headers) == (403, False)


async def test_without_the_setting_nothing_is_limited(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system)
        for _ in range(50):
            answer = await rest.ask("PUT", DOOR, {})
            assert (answer.status in (200, 201), "ratelimit" in answer.headers) == (True, False)


# ── who ────────────────────────────────────────────────────────────────────────────────────────


async def test_refusals_become_a_row_of_the_audit_for_each_caller(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system)
        made = await rest.ask(
            "POST", "/api/v1/tokens", {"name": "ci", "role": "write", "services": ["tts-*"]}
        )
        token = made.json["token"]
        for path in (DOOR, DOOR, "/api/v1/tokens"):
            headers = {"X-Request-ID": "r" + path.rpartition("/")[2]}
            assert (await rest.ask("GET", path, token=token, headers=headers)).status == 403
        await guess(rest)
        await rest.ask("GET", DOOR, token=None)
        with trio.fail_after(5):
            while system.view.committed.audit_seq < 4:
                await system.view.changed()
    assert system.view.committed.audit_seq == 4, "the bootstrap token, ci, and one row for each"


async def test_a_guessed_enrolment_token_is_limited_and_audited_as_a_guessed_login(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system)
        sign, sealing = SigningKey(bytes(32)).verify_key, PrivateKey(bytes(32)).public_key
        proof = base64.b64encode(bytes(64)).decode()
        body = {"service": "door", "instance": "front", "token": "a-guess", "proof": proof}
        body |= {
            "sign_public": base64.b64encode(sign.encode()).decode(),
            "seal_public": base64.b64encode(sealing.encode()).decode(),
        }
        path = "/api/v1/devices/enroll"
        answers = [await rest.ask("POST", path, body, token=None) for _ in range(FAILED_LOGINS + 2)]
        assert [a.status for a in answers] == [401] * FAILED_LOGINS + [429] * 2
        with trio.fail_after(5):
            while system.view.committed.audit_seq < 2:
                await system.view.changed()
        (row,) = (await rest.ask("GET", "/api/v1/audit?after=1")).json["entries"]
        told = json.loads(row["body"])["details"]["refusals"]
        assert {(r["call"], r["client"]) for r in told} == {(f"POST {path}", "192.0.2.1")}
        assert sum(r["count"] for r in told) == FAILED_LOGINS + 2
        assert "a-guess" not in row["body"]
