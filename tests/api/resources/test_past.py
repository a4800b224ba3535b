"""The past over REST: what was answered then, what differs, where a value comes from, and where a text stands."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.asgi import Answer, Caller, on_disk

CONFIG = "/api/v1/config"
LAMP = f"{CONFIG}/lamp"
SERVICES = ("lamp", "door", "stt-worker", "llm-worker")
MASK = "********"


class Rest(Caller):
    async def did(self, method: str, target: str, body: Any = None, **how: Any) -> Any:
        """The JSON of an answer that has to be a good one."""
        answer = await self.ask(method, target, body, **how)
        assert answer.status in (200, 201), answer.body
        return answer.json

    async def patch(self, service: str, values: dict[str, Any]) -> Answer:
        headers = {"Content-Type": "application/merge-patch+json"}
        return await self.ask("PATCH", f"{CONFIG}/{service}", values, headers=headers)

    async def problem(self, target: str, **how: Any) -> tuple[int, str]:
        answer = await self.ask("GET", target, **how)
        return answer.status, answer.json["type"].removeprefix("/problems/")


@pytest.fixture
async def rest(tmp_path: Path) -> AsyncIterator[Rest]:
    async with on_disk(tmp_path) as system:
        yield Rest(system)


# ── as of then ─────────────────────────────────────────────────────────────────────────────────


class Chance:
    """A person who does one thing after the other."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    async def write(self, rest: Rest) -> Answer:
        chance = self.random
        service = chance.choice(SERVICES)
        kind = chance.choice(["put"] * 4 + ["patch"] * 6 + ["delete", "epoch", "secret", "schema"])
        values: dict[str, Any] = {
            "stt-worker": {"vad_threshold": round(chance.random(), 2)},
            "llm-worker": {"llm_timeout_sec": chance.randint(1, 60)},
        }.get(service, {f"k{chance.randint(0, 5)}": chance.choice([None, 1, 1.0, True, "x", [1]])})
        if kind == "patch":
            return await rest.patch(service, values)
        if kind == "delete":
            return await rest.ask("DELETE", f"{CONFIG}/{service}")
        if kind == "epoch":
            return await rest.ask("POST", f"{CONFIG}/epoch", {"services": {service: values}})
        if kind == "secret":
            secret = {"service": "llm-worker", "name": "openai_api_key", "value": "sk-marked"}
            return await rest.ask("POST", "/api/v1/secrets", secret)
        if kind == "schema":
            keys = {f"k{n}": {"default": n * chance.randint(1, 3)} for n in range(2)}
            schema = {"type": "object", "properties": keys}
            query = "?allow_breaking=true&reason=other+defaults"
            return await rest.ask("PUT", f"/api/v1/schemas/lamp{query}", schema)
        return await rest.ask("PUT", f"{CONFIG}/{service}", values)


def in_order(answer: Answer) -> Any:
    """The keys that nobody had set come in the order of the schema, and that of an earlier one is not kept."""
    return {**answer.json, "defaulted": sorted(answer.json["defaulted"])}


async def test_what_get_answered_then_is_answered_for_every_revision_and_time(rest: Rest) -> None:
    """A13. A schema that comes without a revision counts from the next one on: what was answered last is what
    counts of a revision, and what an earlier schema made of it until then is not asked for."""
    chance, answers = Chance(13), list[tuple[int, str, dict[str, Answer]]]()
    newest: dict[str, Answer] = {}
    while len(answers) < 1_000:
        before = rest.system.view.committed.revision
        written = await chance.write(rest)
        assert written.status < 500
        for service in SERVICES:
            newest[service] = await rest.ask("GET", f"{CONFIG}/{service}")
        committed = rest.system.view.committed
        if committed.revision == before and answers:  # a schema alone, or nothing was there
            answers.pop()
        at = (
            max(state.updated_at for state in committed.services.values())
            if committed.services
            else ""
        )
        answers.append((committed.revision, at, dict(newest)))
    for revision, at, then in chance.random.sample(answers[1:], 100):
        service = chance.random.choice(SERVICES)
        same_time = [answer for _, other, answer in answers if other == at]
        for query, wanted in (
            (f"revision={revision}", then[service]),
            (f"at={at}", same_time[-1][service]),
        ):
            told = await rest.ask("GET", f"{CONFIG}/{service}?{query}")
            if wanted.status == 404:
                assert told.json["type"] == "/problems/not-there-then", (query, told.body)
            else:
                assert in_order(told) == in_order(wanted), (service, query)
                assert told.headers["etag"] == wanted.headers["etag"]
            assert b"sk-marked" not in told.body
