"""What the contract says of configurations over REST, one sentence each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from openapi_spec_validator import validate

from config_manager.api.server.routes import ROUTES
from config_manager.config.errors import DESCRIPTIONS
from config_manager.config.services import SAMPLE_CATALOGUE
from tests.kit.asgi import Caller, running

STT = "/api/v1/config/stt-worker"
DOOR = "/api/v1/config/door"
LLM = "/api/v1/config/llm-worker"
MERGE = {"Content-Type": "application/merge-patch+json"}


@pytest.fixture
async def rest(tmp_path: Path) -> AsyncIterator[Caller]:
    async with running(tmp_path) as system:
        yield Caller(system)


# ── reading and writing ────────────────────────────────────────────────────────────────────────


async def test_what_nobody_wrote_is_its_defaults_at_revision_0(rest: Caller) -> None:
    got = await rest.ask("GET", STT)
    assert (got.status, got.headers["etag"]) == (200, '"0"')
    assert set(got.json["config"]) == set(got.json["defaulted"])
    assert (await rest.ask("GET", DOOR)).status == 404


async def test_a_first_write_is_201_a_later_one_200_and_nothing_changed_is_a_revision_too(
    rest: Caller,
) -> None:
    answers = [await rest.ask("PUT", DOOR, {"open": True}) for _ in range(3)]
    assert [a.status for a in answers] == [201, 200, 200]
    assert [a.json["revision"] for a in answers] == [1, 2, 3]
    assert answers[0].json["propagation"] == "pending"
    assert answers[0].json["correlation_id"] == answers[0].headers["x-request-id"]


async def test_the_stored_view_is_exactly_what_put_takes(rest: Caller) -> None:
    await rest.ask("PUT", STT, {"vad_threshold": 0.25})
    stored = (await rest.ask("GET", STT + "?view=stored")).json["config"]
    assert stored == {"vad_threshold": 0.25}
    effective = (await rest.ask("GET", STT)).json["config"]
    assert (await rest.ask("PUT", STT, stored)).status == 200
    assert (await rest.ask("GET", STT)).json["config"] == effective


async def test_a_deleted_service_is_its_defaults_or_404_and_its_version_goes_on(
    rest: Caller,
) -> None:
    for path, after in ((STT, 200), (DOOR, 404)):
        assert (await rest.ask("DELETE", path)).status == 404
        assert (await rest.ask("PUT", path, {})).json["version"] == 1
        assert (await rest.ask("DELETE", path)).status == 200
        assert (await rest.ask("GET", path)).status == after
        assert (await rest.ask("GET", path + "/history")).status == 200
        again = await rest.ask("PUT", path, {})
        assert (again.status, again.json["version"]) == (201, 3)


async def test_a_deleted_service_shows_the_epoch_of_now(rest: Caller) -> None:
    await rest.ask("PUT", STT, {"vad_threshold": 0.25})
    await rest.ask("DELETE", STT)
    assert (await rest.ask("GET", STT)).json["epoch_seq"] == 1
    await rest.ask("POST", "/api/v1/config/epoch", {"services": {"door": {}}})
    assert (await rest.ask("GET", STT)).json["epoch_seq"] == 2


async def test_a_merge_patch_changes_what_it_names(rest: Caller) -> None:
    await rest.ask("PUT", DOOR, {"a": 1, "b": {"c": 1, "d": 2}})
    patched = await rest.ask("PATCH", DOOR, {"a": None, "b": {"c": 9}}, headers=MERGE)
    assert patched.json["config"] == {"b": {"c": 9, "d": 2}}
    assert (await rest.ask("PATCH", DOOR, {"a": 1})).status == 415


async def test_an_epoch_is_all_or_none(rest: Caller) -> None:
    bad = {"services": {"door": {"open": True}, "stt-worker": {"vad_threshold": 7}}}
    refused = await rest.ask("POST", "/api/v1/config/epoch", bad)
    assert refused.status == 422
    assert (await rest.ask("GET", DOOR)).status == 404
    good = {"services": {"door": {"open": True}, "stt-worker": {}}, "reason": "evening"}
    made = (await rest.ask("POST", "/api/v1/config/epoch", good)).json
    assert (made["epoch_seq"], made["revision"], sorted(made["services"])) == (
        2,
        1,
        ["door", "stt-worker"],
    )
    entries = (await rest.ask("GET", DOOR + "/history")).json["entries"]
    assert (entries[0]["reason"], entries[0]["epoch_seq"]) == ("evening", 2)


async def test_a_dry_run_answers_what_would_change_and_changes_nothing(rest: Caller) -> None:
    await rest.ask("PUT", DOOR, {"a": 1})
    before = (await rest.ask("GET", DOOR)).body
    dry = (await rest.ask("PUT", DOOR + "?dry_run=true", {"a": 2})).json
    assert dry["changes"] == [{"key": "a", "old": 1, "new": 2}]
    assert (await rest.ask("GET", DOOR)).body == before
    assert len((await rest.ask("GET", DOOR + "/history")).json["entries"]) == 1


async def test_if_match_is_held_to_and_says_where_the_service_is(rest: Caller) -> None:
    await rest.ask("PUT", DOOR, {"a": 1})
    etag = (await rest.ask("GET", DOOR)).headers["etag"]
    assert (await rest.ask("PUT", DOOR, {"a": 2}, headers={"If-Match": etag})).status == 200
    late = await rest.ask("PUT", DOOR, {"a": 3}, headers={"If-Match": etag})
    assert (late.status, late.json["current_revision"]) == (412, 2)


async def test_if_none_match_creates_only_and_rubbish_in_it_writes_nothing(rest: Caller) -> None:
    async def put(tags: str) -> int:
        return (await rest.ask("PUT", DOOR, {"a": 1}, headers={"If-None-Match": tags})).status

    assert await put("*") == 201
    assert await put("*") == 412
    assert [await put(tags) for tags in ("1", '"1"', "*, *")] == [412] * 3
    assert rest.system.view.committed.revision == 1


async def test_the_same_idempotency_key_is_the_same_revision(rest: Caller) -> None:
    key = {"Idempotency-Key": "k1"}
    one = await rest.ask("PUT", DOOR, {"a": 1}, headers=key)
    two = await rest.ask("PUT", DOOR, {"a": 1}, headers=key)
    assert one.json["revision"] == two.json["revision"] == 1
    assert (await rest.ask("PUT", DOOR, {"a": 2}, headers=key)).status == 422
    assert rest.system.view.committed.revision == 1


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_a_repetition_answers_the_etag_of_what_it_wrote_not_of_what_is_there_now(
    rest: Caller, method: str
) -> None:
    kind = {} if method == "PUT" else {"content-type": "application/merge-patch+json"}
    once = {"Idempotency-Key": "once", **kind}
    assert (await rest.ask("PUT", DOOR, {})).headers["etag"] == '"1"'
    first = await rest.ask(method, DOOR, {"a": 1}, headers=once)
    newer = await rest.ask("PUT", DOOR, {"a": 2})
    again = await rest.ask(method, DOOR, {"a": 1}, headers=once)
    assert [answer.headers["etag"] for answer in (first, newer, again)] == ['"2"', '"3"', '"2"']
    # so who goes on with it overwrites nobody
    follows = {"If-Match": again.headers["etag"]}
    assert (await rest.ask("PUT", DOOR, {"a": 3}, headers=follows)).status == 412


async def test_wait_confirmed_without_a_broker_answers_pending_in_time(rest: Caller) -> None:
    began = trio.current_time()
    answer = await rest.ask("PUT", DOOR + "?wait=confirmed&timeout=0.2", {"a": 1})
    assert (answer.status, answer.json["propagation"]) == (201, "pending")
    assert trio.current_time() - began < 2


async def test_an_envelope_that_would_be_too_large_is_413_and_not_committed(rest: Caller) -> None:
    answer = await rest.ask("PUT", DOOR, {"a": "x" * 300_000})
    assert answer.status == 413
    assert rest.system.view.committed.revision == 0


@pytest.mark.parametrize("fast_path", [True, False])
async def test_a_body_of_one_mebibyte_is_taken_and_a_byte_more_is_not(
    rest: Caller, fast_path: bool
) -> None:
    caller = Caller(rest.system, fast_path=fast_path)
    body = b'{"a": 1}'.ljust(1024 * 1024)  # blanks: the envelope has a smaller limit of its own
    refused = await caller.ask("PUT", DOOR, body + b" ")
    assert (refused.status, refused.json["type"]) == (413, "/problems/too-large")
    assert rest.system.view.committed.revision == 0
    assert (await caller.ask("PUT", DOOR, body)).status == 201
    secret = b'{"service": "door", "name": "pin", "value": "1234"}'.ljust(1024 * 1024)
    assert (await caller.ask("POST", "/api/v1/secrets", secret + b" ")).status == 413
    assert (await caller.ask("POST", "/api/v1/secrets", secret)).status == 201


# ── secrets ────────────────────────────────────────────────────────────────────────────────────


async def test_a_secret_shows_nowhere_and_is_left_alone_by_its_mask(rest: Caller) -> None:
    shape = SAMPLE_CATALOGUE.shape("llm-worker")
    assert shape is not None
    [secret] = shape.secrets
    body = {"service": "llm-worker", "name": secret, "value": "sk-very-secret"}
    made = await rest.ask("POST", "/api/v1/secrets", body)
    assert (made.status, made.json["version"]) == (201, 1)
    got = await rest.ask("GET", LLM)
    assert got.json["config"][secret] == "********"
    stored = (await rest.ask("GET", LLM + "?view=stored")).json["config"]
    assert (await rest.ask("PUT", LLM, {**stored, secret: "********"})).status == 200
    other = await rest.ask("PUT", LLM, {secret: "plain"})
    assert (other.status, other.json["type"]) == (422, "/problems/use-secrets")
    everything = [
        await rest.ask("GET", path) for path in (LLM, LLM + "/history", "/api/v1/config", "/health")
    ]
    assert not any(b"very-secret" in a.body for a in (made, got, other, *everything))
    assert b"plain" not in other.body


# ── history ────────────────────────────────────────────────────────────────────────────────────


async def test_history_pages_from_the_newest_to_the_first(rest: Caller) -> None:
    for number in range(7):
        await rest.ask("PUT", DOOR + f"?reason=r{number}", {"n": number})
    seen: list[int] = []
    query = "?limit=3"
    while True:
        page = (await rest.ask("GET", DOOR + "/history" + query)).json
        seen += [entry["changes"][0]["new"] for entry in page["entries"]]
        if page["next_before"] is None:
            break
        query = f"?limit=3&before={page['next_before']}"
    assert seen == [6, 5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=x",
        "before=-1",
        "since=yesterday",
        "until=",
        "key=A",
        "what=1",
        "limit=1&limit=2",
    ],
)
async def test_a_query_that_does_not_parse_is_400(rest: Caller, query: str) -> None:
    assert (await rest.ask("GET", f"{STT}/history?{query}")).status == 400


# ── who asks ───────────────────────────────────────────────────────────────────────────────────


async def test_every_route_but_the_public_ones_needs_a_token(rest: Caller) -> None:
    for route in ROUTES:
        path = route.path.replace("{service}", "door").replace("{n}", "1").replace("{name}", "busy")
        body: dict[str, Any] | None = {} if route.method in ("PUT", "POST", "PATCH") else None
        status = (await rest.ask(route.method, path, body, token=None)).status
        assert (status == 401) is (route.needs is not None), (route.method, path, status)


DEV = {"client": "127.0.0.1", "token": None}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost:8081"}, 200),
        ({"Host": "127.0.0.1"}, 200),
        ({"Host": "[::1]:8081"}, 200),
        ({"Host": "evil.example"}, 401),
        ({"Host": "localhost:8081@evil.example"}, 401),
        ({"Host": "localhost:8081", "Origin": "http://localhost:8081"}, 200),
        ({"Host": "localhost:8081", "Origin": "http://localhost:3000"}, 403),
        ({"Host": "localhost:8081", "Origin": "http://evil.example"}, 403),
        ({"Host": "localhost:8081", "Origin": "null"}, 403),
        ({"Host": "localhost:8081", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Host": "localhost:8081", "Sec-Fetch-Site": "CROSS-SITE"}, 403),
        ({"Host": "localhost:8081", "Sec-Fetch-Site": "same-site"}, 403),
        ({"Host": "localhost:8081", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Host": "localhost:8081", "Sec-Fetch-Site": "None"}, 200),
        ({"Host": "localhost:8081", "Via": "1.1 proxy"}, 403),
        ({"Host": "localhost:8081", "X-Real-IP": "1.2.3.4"}, 403),
        ({"Host": "localhost:8081", "X-Forwarded": "for=1.2.3.4"}, 403),
        ({"Host": "localhost:8081", "Forwarded": "for=1.2.3.4"}, 403),
        ({"Host": "localhost:8081", "X-Forwarded-For": "1.2.3.4"}, 403),
        ({"Host": "localhost:8081", "X-Forwarded-Anything": "1"}, 403),
    ],
)
async def test_dev_lets_this_machine_in_and_nobody_else(
    tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    async with running(tmp_path) as system:
        options: dict[str, Any] = {**DEV, "headers": headers}
        assert (await Caller(system, dev=True).ask("GET", STT, **options)).status == status
        options["client"] = "192.0.2.7"
        assert (await Caller(system, dev=True).ask("GET", STT, **options)).status in (401, 403)


# ── what it says of itself ─────────────────────────────────────────────────────────────────────


async def test_the_description_is_valid_and_names_every_route(rest: Caller) -> None:
    described = (await rest.ask("GET", "/openapi.json")).json
    validate(described)
    served = {(route.path, route.method.lower()) for route in ROUTES}
    named = {(path, verb) for path, verbs in described["paths"].items() for verb in verbs}
    # the page itself, and what refuses every request: `epoch` and `search` where a name would stand
    quiet = {(r.path, r.method.lower()) for r in ROUTES if r.operation.only_refuses}
    left_out = served - named - quiet - {("/docs", "get")}
    assert not left_out
    assert named <= served


async def test_every_problem_leads_to_its_explanation(rest: Caller) -> None:
    for description in DESCRIPTIONS.values():
        answer = await rest.ask("GET", f"/problems/{description.name}", token=None)
        assert answer.status in (200, 404), description.name
    assert (await rest.ask("GET", "/problems/revision-conflict", token=None)).status == 200
    assert (await rest.ask("GET", "/problems/nothing-like-it", token=None)).status == 404


async def test_a_problem_has_its_five_members_and_a_pointer_for_each_field(rest: Caller) -> None:
    answer = await rest.ask("PUT", STT, {"vad_threshold": 7, "whisper_modell": "base"})
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json
    assert {"type", "title", "status", "detail", "request_id"} <= set(problem)
    assert problem["request_id"] == answer.headers["x-request-id"]
    told = {error["pointer"]: error["detail"] for error in problem["errors"]}
    assert "from 0 to 1" in told["/vad_threshold"]
    assert "whisper_model" in told["/whisper_modell"]


@pytest.mark.parametrize("value", ["", "a b", "é", "x" * 65, "a\tb", "a;b"])
async def test_an_id_that_is_none_is_replaced_and_a_good_one_kept(rest: Caller, value: str) -> None:
    bad = await rest.ask("GET", STT, headers={"X-Request-ID": value})
    assert len(bad.headers["x-request-id"]) == 36
    good = await rest.ask("GET", STT, headers={"X-Request-ID": "Az09._-"})
    assert good.headers["x-request-id"] == "Az09._-"


async def test_a_traceparent_is_passed_on_and_made_where_there_is_none(rest: Caller) -> None:
    given = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    assert (await rest.ask("GET", STT, headers={"traceparent": given})).headers[
        "traceparent"
    ] == given
    for wrong in ("", "00-" + "0" * 32 + "-" + "b" * 16 + "-01", "rubbish"):
        made = (await rest.ask("GET", STT, headers={"traceparent": wrong})).headers["traceparent"]
        assert made != wrong
        assert len(made) == 55


async def test_every_405_allows_exactly_the_methods_that_work_there(rest: Caller) -> None:
    for path in sorted({route.path for route in ROUTES}):
        filled = path.format(
            service="door", name="pin", instance="front", version="1", id="p-000000000000"
        )
        told = await rest.ask("OPTIONS", filled)
        assert told.status == 405
        allowed = told.headers["allow"].split(", ")
        for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE", "POST"):
            answer = await rest.ask(
                method,
                f"{filled}?q=a" if path == SEARCH else filled,
                {} if method[0] == "P" else None,
            )
            reserved = path.startswith((EPOCH, SEARCH)) and answer.status == 400
            works = answer.status != 405 and not reserved
            assert works == (method in allowed), (path, method, allowed, answer)
            assert answer.status != 405 or answer.headers["allow"] == told.headers["allow"]


EPOCH = "/api/v1/config/epoch"
SEARCH = "/api/v1/config/search"


async def test_epoch_is_posted_to_and_nothing_else_works_there(rest: Caller) -> None:
    assert (await rest.ask("OPTIONS", EPOCH)).headers["allow"] == "POST"
    assert (await rest.ask("GET", EPOCH)).json["type"] == "/problems/invalid-name"
    nothing = await rest.ask("POST", f"{EPOCH}/history", {})
    assert (nothing.status, nothing.headers["allow"]) == (405, "")
    assert nothing.json["detail"] == "POST is not for this"


async def test_a_name_that_nothing_can_have_is_that_whatever_the_method(rest: Caller) -> None:
    for path in (
        *("config/config-manager", "config/BAD", "config/a%2Fb/history"),
        *("status/a/B", "trust/roots/x"),
    ):
        for method in ("GET", "POST", "OPTIONS", "DELETE"):
            answer = await rest.ask(method, f"/api/v1/{path}")
            assert (answer.status, "allow" in answer.headers) == (400, False), (method, path)


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("coding", ["gzip", "br", "deflate, gzip", "GZIP", "identity, gzip"])
async def test_a_coding_of_the_body_is_415_and_says_what_is_taken(
    rest: Caller, method: str, coding: str
) -> None:
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    headers = {"Content-Encoding": coding, "Content-Type": kind}
    told = await rest.ask(method, "/api/v1/config/a", {"x": 1}, headers=headers)
    assert (told.status, told.headers["accept-encoding"]) == (415, "identity")
    assert coding in told.json["detail"]
    plain = await rest.ask(
        method, "/api/v1/config/a", {"x": 1}, headers={**headers, "Content-Encoding": "Identity"}
    )
    assert plain.status in (200, 201, 404)


async def test_another_media_type_is_415_and_says_which_is_taken(rest: Caller) -> None:
    for method, name, kind in (
        ("PATCH", "accept-patch", "application/merge-patch+json"),
        ("PUT", "accept", "application/json"),
    ):
        told = await rest.ask(
            method, "/api/v1/config/a", b"{}", headers={"Content-Type": "text/plain"}
        )
        assert (told.status, told.headers[name]) == (415, kind)


async def test_history_says_whether_a_mask_is_a_secret_or_the_value_itself(rest: Caller) -> None:
    mask = "********"
    await rest.ask("PUT", "/api/v1/config/a", {"plain": mask})
    await rest.ask("POST", "/api/v1/secrets", {"service": "a", "name": "pin", "value": "1"})
    await rest.ask("DELETE", "/api/v1/secrets/a/pin")
    entries = (await rest.ask("GET", "/api/v1/config/a/history")).json["entries"]
    assert [entry["changes"] for entry in entries] == [
        [{"key": "pin", "old": mask, "new": None, "masked": True}],
        [{"key": "pin", "old": None, "new": mask, "masked": True}],
        [{"key": "plain", "old": None, "new": mask, "masked": False}],
    ]


async def test_a_page_of_history_is_limited_by_its_size_and_says_where_the_next_begins(
    rest: Caller,
) -> None:
    for text in "abcdefghijklmnopqrstuvw":
        assert (await rest.ask("PUT", "/api/v1/config/a", {"x": text * 150_000})).status in (
            200,
            201,
        )
    seen, before, pages = list[int](), "", 0
    while True:
        page = await rest.ask("GET", f"/api/v1/config/a/history?limit=500{before}")
        assert len(page.body) < 5 * 1024 * 1024
        seen += [entry["revision"] for entry in page.json["entries"]]
        pages += 1
        if page.json["next_before"] is None:
            break
        before = f"&before={page.json['next_before']}"
    assert seen == list(range(len(seen), 0, -1))
    assert pages > 1
