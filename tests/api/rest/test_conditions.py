"""A reader with a tag: what it has is not sent again (RFC 9110, 13)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.asgi import Caller, running

DOOR = "/api/v1/config/door"


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ('"2"', 304),
        ('W/"2"', 304),
        ('"1", "2"', 304),
        ('W/"1" ,W/"2"', 304),
        ("*", 304),
        ('"a,b", "2"', 304),
        ('"1"', 200),
        ('"22"', 200),
        ("2", 200),
        ("rubbish", 200),
        (' "2', 200),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("fast_path", [True, False])
async def test_if_none_match_compares_weakly(
    tmp_path: Path, given: str, status: int, method: str, fast_path: bool
) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system, fast_path=fast_path)
        for value in (1, 2):
            await rest.ask("PUT", DOOR, {"x": value})
        for target in (DOOR, DOOR + "?view=stored"):
            got = await rest.ask(
                method, target, headers={"If-None-Match": given, "X-Request-ID": "mine"}
            )
            assert (got.status, got.headers["etag"]) == (status, '"2"')
            assert got.headers["x-request-id"] == "mine"
            assert bool(got.body) == (status == 200 and method == "GET")
            assert ("content-type" in got.headers) == (status == 200)
            assert ("content-length" in got.headers) == (status == 200)


@pytest.mark.parametrize(
    ("given", "status"),
    [('"1"', 200), ('"9", "1"', 200), ("*", 200), ('"0"', 412), ('W/"1"', 412), ("rubbish", 412)],
)
async def test_if_match_compares_strongly(tmp_path: Path, given: str, status: int) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system)
        await rest.ask("PUT", DOOR, {"x": 1})
        got = await rest.ask("GET", DOOR, headers={"If-Match": given})
        assert got.status == status
        if status == 412:
            assert got.json["type"] == "/problems/revision-conflict"
            assert got.json["current_revision"] == 1
        first = await rest.ask("GET", DOOR, headers={"If-Match": given, "If-None-Match": '"1"'})
        assert first.status == (304 if status == 200 else 412)


async def test_what_nobody_has_written_is_always_shown_and_what_is_not_there_is_404(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system)
        unwritten = "/api/v1/config/stt-worker"
        tag = (await rest.ask("GET", unwritten)).headers["etag"]
        assert (await rest.ask("GET", unwritten, headers={"If-None-Match": tag})).status == 200
        assert (await rest.ask("GET", DOOR, headers={"If-None-Match": "*"})).status == 404


async def test_a_new_revision_is_sent_whole_again(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        rest = Caller(system)
        tag = (await rest.ask("PUT", DOOR, {"x": 1})).headers["etag"]
        assert (await rest.ask("GET", DOOR, headers={"If-None-Match": tag})).status == 304
        await rest.ask("PUT", DOOR, {"x": 2})
        got = await rest.ask("GET", DOOR, headers={"If-None-Match": tag})
        assert (got.status, got.json["config"], got.headers["etag"]) == (200, {"x": 2}, '"2"')
