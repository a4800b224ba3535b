"""Schemas over REST, from the first one to a breaking one, with whom each breaks."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped, unused-ignore]
import pytest
import trio

from config_manager.actors.messages import Write
from config_manager.api.rest.openapi import openapi
from config_manager.api.server.routes import ROUTES
from config_manager.config import wire
from config_manager.config.catalogue import schema_digest
from config_manager.config.services import SAMPLE_CATALOGUE
from config_manager.config.wire import Envelope, Signature
from config_manager.config.world import rfc3339
from config_manager.storage.decisions.administration import noted
from config_manager.storage.decisions.changes import Decided
from config_manager.storage.decisions.equipment import Equipped
from config_manager.storage.decisions.shapes import INSTANCE_SCHEMA
from config_manager.storage.decisions.terms import Terms
from config_manager.storage.state import Committed, RegistryRow
from tests.kit.asgi import Answer, Caller, on_disk, with_the_key
from tests.kit.documents import make_receipt
from tests.kit.dying import accept

LAMP, SCHEMA = "/api/v1/config/lamp", "/api/v1/schemas/lamp"
NOW = 1_800_000_000.0

LEVEL = {"type": "number", "minimum": 0, "maximum": 1, "default": 0.5}
COLOUR = {"type": "string", "default": "white"}


def schema(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    """As a model with extra="forbid" says it."""
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        **({"required": list(required)} if required else {}),
    }


@dataclass(frozen=True)
class KeepInstanceSchema:
    """What the publisher notes of an instance that said what it was built with."""

    schema: dict[str, Any]
    service: str = "lamp"

    def decide(self, before: Committed, on: Equipped) -> Decided[None]:
        seen = {"schema": self.schema, "first_seen": on.at, "last_seen": on.at}
        key = f"{self.service}/{schema_digest(self.schema)}"
        return noted(before, on, (RegistryRow(INSTANCE_SCHEMA, key, seen),))


class Rest(Caller):
    async def did(self, method: str, target: str, body: Any = None) -> Any:
        """The JSON of an answer that has to be a good one."""
        answer = await self.ask(method, target, body)
        assert answer.status in (200, 201), answer.body
        return answer.json

    async def patch(self, values: dict[str, Any]) -> Answer:
        headers = {"Content-Type": "application/merge-patch+json"}
        return await self.ask("PATCH", LAMP, values, headers=headers)

    async def runs(
        self, instance: str, built_with: dict[str, Any], *, service: str = "lamp"
    ) -> None:
        """A live instance that said what it was built with."""
        storing = self.system.storing
        context = self.context()
        await storing.ask(
            Write(KeepInstanceSchema(built_with, service), Terms("config-manager")), context
        )
        receipt = make_receipt(
            None,
            service=service,
            instance=instance,
            source="defaults",
            schema=schema_digest(built_with),
            at=rfc3339(NOW),
        )
        envelope = Envelope(wire.RECEIPT, receipt.to_bytes(), (Signature("a" * 64, bytes(64)),))
        topic = wire.status_topic(service, instance)
        self.system.statuses.take("A", topic, envelope.to_bytes(), retained=False, now=NOW)

    def context(self) -> Any:
        from config_manager.actors.actor import Context

        return Context("a-test", trio.current_time() + 5)

    async def entries(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.did("GET", f"{LAMP}/history"))["entries"]
        return found


@pytest.fixture
async def rest(tmp_path: Path) -> AsyncIterator[Rest]:
    async with on_disk(tmp_path) as system:
        yield Rest(system)


def is_what_openapi_says(name: str, body: Any) -> None:
    components = openapi(ROUTES)["components"]
    jsonschema.Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": components}
    ).validate(body)


# ── a first schema ─────────────────────────────────────────────────────────────────────────────


async def test_a_service_gets_its_first_schema_and_is_there_before_anybody_wrote_it(
    rest: Rest,
) -> None:
    assert (await rest.ask("GET", LAMP)).status == 404
    assert (await rest.ask("GET", SCHEMA)).status == 404
    put = await rest.ask("PUT", f"{SCHEMA}?reason=it+is+typed+now", schema(level=LEVEL))
    assert put.status == 201
    is_what_openapi_says("SchemaPut", put.json)
    assert put.json["version"] == 1
    assert put.json["digest"] == schema_digest(schema(level=LEVEL))
    assert put.json["differences"] == put.json["migrated"] == []
    assert put.json["breaks"] == {"stored": [], "instances": []}
    assert put.json["revision"] == 0  # a schema alone is no revision
    got = await rest.did("GET", LAMP)
    assert (got["config"], got["defaulted"], got["revision"]) == ({"level": 0.5}, ["level"], 0)
    assert "lamp" in [
        one["service"] for one in (await rest.did("GET", "/api/v1/config"))["services"]
    ]
    refused = await rest.ask("PUT", LAMP, {"level": 2, "levle": 1})
    assert refused.status == 422
    assert {e["pointer"]: e["detail"] for e in refused.json["errors"]} == {
        "/level": "expected a number from 0 to 1",
        "/levle": "unknown key; did you mean level? The keys: level",
    }
    assert (await rest.did("PUT", LAMP, {"level": 1}))["config"] == {"level": 1}


async def test_a_schema_is_read_by_number_by_digest_and_in_the_history(rest: Rest) -> None:
    first, second = schema(level=LEVEL), schema(level=LEVEL, colour=COLOUR)
    await rest.did("PUT", f"{SCHEMA}?reason=one", first)
    await rest.did("PUT", SCHEMA, second)
    active = await rest.did("GET", SCHEMA)
    is_what_openapi_says("Schema", active)
    assert (active["version"], active["active"], active["schema"]) == (2, True, second)
    assert (active["source"], active["by"]) == ("put", "bootstrap")
    for which in ("version=1", f"digest={schema_digest(first)}"):
        old = await rest.did("GET", f"{SCHEMA}?{which}")
        assert (old["version"], old["active"], old["schema"]) == (1, False, first)
        assert old["reason"] == "one"
    assert (await rest.ask("GET", f"{SCHEMA}?version=3")).status == 404
    assert (await rest.ask("GET", f"{SCHEMA}?version=1&digest={'0' * 64}")).status == 404
    history = await rest.did("GET", f"{SCHEMA}/history")
    is_what_openapi_says("SchemaHistory", history)
    assert [one["version"] for one in history["versions"]] == [2, 1]
    [added] = history["versions"][0]["differences"]
    assert (added["change"], added["pointer"]) == ("key added", "/colour")
    assert history["versions"][1]["differences"] is None
    between = await rest.did("GET", f"{SCHEMA}/diff")
    is_what_openapi_says("SchemaDiff", between)
    assert (between["from"], between["to"], between["differences"]) == (1, 2, [added])
    assert (await rest.did("GET", f"{SCHEMA}/diff?from=2&to=2"))["differences"] == []
    back = await rest.did("GET", f"{SCHEMA}/diff?from=2&to=1")
    assert [one["change"] for one in back["differences"]] == ["key removed"]
    assert (await rest.ask("GET", f"{SCHEMA}/diff?from=7")).status == 404
    page = await rest.did("GET", f"{SCHEMA}/history?limit=1")
    assert page["next_before"] == 2
    assert [
        one["version"] for one in (await rest.did("GET", f"{SCHEMA}/history?before=2"))["versions"]
    ] == [1]


async def test_every_service_with_a_schema_is_listed_page_by_page(rest: Rest) -> None:
    await rest.did("PUT", SCHEMA, schema(level=LEVEL))
    listed = await rest.did("GET", "/api/v1/schemas")
    is_what_openapi_says("SchemaList", listed)
    sources = {one["service"]: one["source"] for one in listed["schemas"]}
    assert sources == {**dict.fromkeys(SAMPLE_CATALOGUE.services, "catalogue"), "lamp": "put"}
    names, after = [], ""
    while after is not None:
        page = await rest.did("GET", f"/api/v1/schemas?limit=3{after and f'&after={after}'}")
        names += [one["service"] for one in page["schemas"]]
        after = page["next_after"]
    assert names == sorted(sources)
    assert {one["version"] for one in listed["schemas"]} == {1}


async def test_the_same_schema_again_is_answered_and_makes_no_version(rest: Rest) -> None:
    await rest.did("PUT", SCHEMA, schema(level=LEVEL))
    rows = rest.system.view.committed.audit_seq
    again = await rest.ask("PUT", SCHEMA, schema(level=dict(reversed(LEVEL.items()))))
    assert (again.status, again.json["unchanged"], again.json["version"]) == (200, True, 1)
    assert rest.system.view.committed.audit_seq == rows


# ── what breaks ────────────────────────────────────────────────────────────────────────────────


async def test_a_narrower_schema_is_refused_by_what_is_stored_and_by_who_runs(rest: Rest) -> None:
    wide = schema(level=LEVEL)
    await rest.did("PUT", SCHEMA, wide)
    await rest.did("PUT", LAMP, {"level": 0.9})
    await rest.runs("attic", schema(level={**LEVEL, "maximum": 0.8}))
    await rest.runs("hall", wide)
    narrow = schema(level={**LEVEL, "maximum": 0.5})
    refused = await rest.ask("PUT", SCHEMA, narrow)
    assert (refused.status, refused.json["type"]) == (409, "/problems/schema-breaking")
    [stored] = refused.json["breaks"]["stored"]
    assert (stored["layer"], stored["service"], stored["key"]) == ("base", "lamp", "level")
    assert stored["why"] == "0.9: expected a number from 0 to 0.5"
    [instance] = refused.json["breaks"]["instances"]
    assert (instance["instance"], instance["enrolled"]) == ("attic", False)
    assert instance["why"] == "/level: expected a number from 0 to 0.8"
    [difference] = refused.json["differences"]
    assert (difference["stored"], difference["new_code"], difference["old_code"]) == (
        *("breaks", "breaks", "ok"),
    )
    pointers = [one["pointer"] for one in refused.json["errors"]]
    assert pointers == ["/level", "/level", ""]
    no_reason = await rest.ask("PUT", f"{SCHEMA}?allow_breaking=true", narrow)
    assert (no_reason.status, no_reason.json["type"]) == (422, "/problems/invalid-values")
    assert (await rest.did("GET", SCHEMA))["version"] == 1
    done = await rest.did("PUT", f"{SCHEMA}?allow_breaking=true&reason=too+bright", narrow)
    assert done["version"] == 2
    assert done["breaks"]["stored"] == [stored]
    history = await rest.did("GET", f"{SCHEMA}/history")
    assert [one["reason"] for one in history["versions"]] == ["too bright", None]
    health = await rest.did("GET", "/health")
    assert health["ok"]
    assert "lamp: its schema does not take what is stored of level" in health["reasons"]
    await rest.did("PUT", LAMP, {"level": 0.4})
    assert (await rest.did("GET", "/health"))["reasons"] == []


async def test_a_dry_run_says_all_of_it_and_changes_nothing(rest: Rest) -> None:
    await rest.did("PUT", SCHEMA, schema(level=LEVEL))
    await rest.did("PUT", LAMP, {"level": 0.9})
    rows = rest.system.view.committed.audit_seq
    narrow = schema(level={**LEVEL, "maximum": 0.5})
    told = await rest.ask("PUT", f"{SCHEMA}?dry_run=true", narrow)
    assert told.status == 200
    is_what_openapi_says("SchemaPut", told.json)
    assert (told.json["dry_run"], told.json["version"]) == (True, 2)
    assert told.json["refused"]["type"] == "schema-breaking"
    assert len(told.json["breaks"]["stored"]) == 1
    fine = await rest.did("PUT", f"{SCHEMA}?dry_run=true", schema(level=LEVEL, colour=COLOUR))
    assert "refused" not in fine
    assert rest.system.view.committed.audit_seq == rows


async def test_an_optional_key_is_added_without_a_word_and_old_code_gets_what_it_takes(
    rest: Rest,
) -> None:
    old = schema(level=LEVEL)
    await rest.did("PUT", SCHEMA, old)
    await rest.did("PUT", LAMP, {"level": 0.9})
    await rest.runs("attic", old)
    added = await rest.did("PUT", SCHEMA, schema(level=LEVEL, colour=COLOUR))
    assert added["breaks"] == {"stored": [], "instances": []}
    assert (await rest.patch({"level": 0.8})).status == 200


async def test_a_unit_that_changes_in_silence_breaks_and_a_declared_one_moves_the_values(
    rest: Rest,
) -> None:
    pause = {"type": "number", "minimum": 0, "x-unit": "ms"}
    seconds = {**pause, "x-unit": "s"}
    await rest.did("PUT", SCHEMA, schema(pause=pause))
    await rest.did("PUT", LAMP, {"pause": 300})
    refused = await rest.ask("PUT", SCHEMA, schema(pause=seconds))
    assert refused.status == 409
    [difference] = refused.json["differences"]
    assert difference["change"] == "unit changed"
    assert {difference[who] for who in ("stored", "new_code", "old_code")} == {"breaks"}
    moved = await rest.did(
        "PUT", SCHEMA, schema(pause={**seconds, "x-was": {"multiply": [1, 1000]}})
    )
    assert (moved["migrated"], moved["revision"]) == (["lamp"], 2)
    got = await rest.did("GET", LAMP)
    assert (got["config"], got["revision"], got["version"]) == ({"pause": 0.3}, 2, 2)
    [newest, *_] = await rest.entries()
    assert newest["action"] == "schema"
    assert newest["changes"] == [{"key": "pause", "old": 300, "new": 0.3}]
    assert (await rest.did("GET", "/api/v1/audit/verify"))["ok"]


async def test_values_that_cannot_be_told_apart_are_lost_only_if_asked_for(rest: Rest) -> None:
    mode = {"enum": ["fast", "quick", "slow"]}
    await rest.did("PUT", SCHEMA, schema(mode=mode))
    await rest.did("PUT", LAMP, {"mode": "quick"})
    merged = schema(
        mode={"enum": ["turbo", "slow"], "x-was": {"map": {"fast": "turbo", "quick": "turbo"}}}
    )
    refused = await rest.ask("PUT", SCHEMA, merged)
    assert (refused.status, refused.json["type"]) == (422, "/problems/migration-lossy")
    assert [one["pointer"] for one in refused.json["errors"]] == ["/mode"]
    done = await rest.did("PUT", f"{SCHEMA}?allow_lossy=true", merged)
    assert [one["pointer"] for one in done["lossy"]] == ["/mode"]
    assert (await rest.did("GET", LAMP))["config"] == {"mode": "turbo"}


async def test_an_integer_never_gets_a_fraction(rest: Rest) -> None:
    await rest.did("PUT", SCHEMA, schema(pause={"type": "integer", "x-unit": "ms"}))
    await rest.did("PUT", LAMP, {"pause": 1500})
    seconds = {"type": "integer", "x-unit": "s", "x-was": {"multiply": [1, 1000]}}
    every_flag = "allow_lossy=true&allow_breaking=true&reason=really"
    refused = await rest.ask("PUT", f"{SCHEMA}?{every_flag}", schema(pause=seconds))
    assert (refused.status, refused.json["type"]) == (422, "/problems/migration-lossy")


async def test_a_stored_key_goes_only_if_it_is_named(rest: Rest) -> None:
    await rest.did("PUT", SCHEMA, schema(level=LEVEL, colour=COLOUR))
    await rest.did("PUT", LAMP, {"level": 0.9, "colour": "red"})
    without = schema(level=LEVEL)
    refused = await rest.ask("PUT", SCHEMA, without)
    assert refused.status == 409
    assert [one["key"] for one in refused.json["breaks"]["stored"]] == ["colour"]
    for wrong in ("color", "Colour", ""):
        assert (await rest.ask("PUT", f"{SCHEMA}?drop={wrong}", without)).status in (400, 422)
    done = await rest.did("PUT", f"{SCHEMA}?drop=colour", without)
    assert done["migrated"] == ["lamp"]
    assert (await rest.did("GET", f"{LAMP}?view=stored"))["config"] == {"level": 0.9}


async def test_a_stored_key_that_the_schema_has_no_more_blocks_no_other_write(rest: Rest) -> None:
    await rest.did("PUT", LAMP, {"level": 0.9, "gone": 1})
    await rest.did("PUT", f"{SCHEMA}?allow_breaking=true&reason=later", schema(level=LEVEL))
    patched = await rest.patch({"level": 0.8})
    assert patched.status == 200
    is_what_openapi_says("Config", patched.json)
    assert [one["pointer"] for one in patched.json["warnings"]] == ["/gone"]
    assert (await rest.did("GET", f"{LAMP}?view=stored"))["config"] == {"level": 0.8, "gone": 1}
    assert (await rest.patch({"gone": 2})).status == 422
    epoch = await rest.did(
        "POST", "/api/v1/config/epoch", {"services": {"lamp": {"level": 0.7, "gone": 1}}}
    )
    assert [one["pointer"] for one in epoch["warnings"]] == ["/services/lamp/gone"]
    assert "warnings" not in (await rest.did("PUT", LAMP, {"level": 0.8}))


async def test_a_rule_is_judged_on_what_the_service_gets(rest: Rest) -> None:
    """`backend` is not stored, and its default is no `ws`: `if` would hold for what is absent."""
    rules = {
        **schema(
            backend={"enum": ["local", "ws"], "default": "local"},
            ws_url={"type": "string"},
        ),
        "allOf": [
            {
                "if": {"properties": {"backend": {"const": "ws"}}},
                "then": {"required": ["ws_url"]},
            }
        ],
    }
    await rest.did("PUT", SCHEMA, rules)
    assert (await rest.did("PUT", LAMP, {}))["config"] == {"backend": "local"}
    refused = await rest.ask("PUT", LAMP, {"backend": "ws"})
    assert refused.status == 422
    assert [one["pointer"] for one in refused.json["errors"]] == ["/ws_url"]
    assert (await rest.ask("PUT", LAMP, {"backend": "ws", "ws_url": "ws://x"})).status == 200


async def test_a_value_stored_in_plain_becomes_no_secret_unless_it_is_dropped(rest: Rest) -> None:
    await rest.did("PUT", LAMP, {"level": 0.9, "pin": "1234"})
    secret = schema(level=LEVEL, pin={"type": "string", "x-secret": True})
    refused = await rest.ask("PUT", SCHEMA, secret)
    assert (refused.status, refused.json["type"]) == (409, "/problems/schema-breaking")
    assert b"1234" not in refused.body
    asked = f"{SCHEMA}?allow_breaking=true&reason=x"
    refused = await rest.ask("PUT", asked, secret)
    assert refused.status == 422
    assert [one["pointer"] for one in refused.json["errors"]] == ["/pin"]
    assert b"1234" not in refused.body
    await rest.did("PUT", f"{asked}&drop=pin", secret)
    got = await rest.did("GET", LAMP)
    assert got["config"] == {"level": 0.9, "pin": "********"}
    assert got["defaulted"] == ["pin"]


async def test_no_schema_reads_a_file_or_calls_out(rest: Rest) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        for where in ("file:///etc/passwd", f"http://127.0.0.1:{port}/s.json", "#/$defs/self"):
            hostile = {**schema(level={"$ref": where}), "$defs": {"self": {"$ref": "#/$defs/self"}}}
            refused = await rest.ask("PUT", SCHEMA, hostile)
            assert (refused.status, refused.json["type"]) == (422, "/problems/schema-invalid")
            assert b"root:" not in refused.body
        with pytest.raises(BlockingIOError):
            server.accept()


# ── whose schema it is ─────────────────────────────────────────────────────────────────────────


async def test_a_service_of_the_catalogue_is_put_over_and_gets_its_model_back(rest: Rest) -> None:
    stt = "/api/v1/schemas/stt-worker"
    model = await rest.did("GET", stt)
    assert (model["source"], model["version"], model["active"]) == ("catalogue", 1, True)
    assert (await rest.ask("DELETE", stt)).status == 404
    wider = {**model["schema"], "properties": {**model["schema"]["properties"], "extra": COLOUR}}
    assert (await rest.did("PUT", stt, wider))["version"] == 2
    stored = await rest.did("PUT", "/api/v1/config/stt-worker", {"extra": "x"})
    assert stored["config"]["extra"] == "x"
    back = await rest.did("DELETE", f"{stt}?reason=enough")
    is_what_openapi_says("SchemaDeleted", back)
    assert (back["version"], back["source"], back["digest"]) == (1, "catalogue", model["digest"])
    assert (await rest.did("GET", stt))["version"] == 1
    assert (await rest.ask("PUT", "/api/v1/config/stt-worker", {"extra": "y"})).status == 422
    assert (await rest.did("GET", "/api/v1/audit/verify"))["ok"]


async def test_without_a_schema_a_service_takes_anything_again(rest: Rest) -> None:
    await rest.did("PUT", SCHEMA, schema(level=LEVEL))
    gone = await rest.did("DELETE", SCHEMA)
    assert (gone["version"], gone["digest"], gone["source"]) == (None, None, None)
    assert (await rest.ask("GET", SCHEMA)).status == 404
    assert (await rest.ask("GET", LAMP)).status == 404
    assert (await rest.did("GET", f"{SCHEMA}?version=1"))["active"] is False
    assert (await rest.did("PUT", LAMP, {"anything": 1}))["config"] == {"anything": 1}


async def test_an_instances_schema_is_adopted_and_is_back_when_what_was_put_goes(
    rest: Rest,
) -> None:
    own = schema(level=LEVEL)
    await rest.runs("attic", own)
    known = await rest.did("GET", f"{SCHEMA}/instances")
    is_what_openapi_says("InstanceSchemas", known)
    [candidate] = known["instance_schemas"]
    assert (candidate["instances"], candidate["candidate"]) == (["attic"], True)
    unknown = await rest.ask("POST", f"{SCHEMA}/adopt", {"digest": "0" * 64})
    assert unknown.status == 404
    assert (await rest.ask("POST", f"{SCHEMA}/adopt", {"digest": "x"})).status == 422
    body = {"digest": schema_digest(own), "reason": "the attic's"}
    adopted = await rest.ask("POST", f"{SCHEMA}/adopt", body)
    assert adopted.status == 201
    active = await rest.did("GET", SCHEMA)
    is_what_openapi_says("Schema", active)
    assert (active["source"], active["reason"]) == ("instance", "the attic's")
    [instance] = active["instance_schemas"]
    assert (instance["instances"], instance["candidate"]) == (["attic"], False)
    assert (await rest.ask("DELETE", SCHEMA)).status == 404
    await rest.did("PUT", SCHEMA, schema(level=LEVEL, colour=COLOUR))
    back = await rest.did("DELETE", SCHEMA)
    assert (back["source"], back["version"]) == ("instance", 1)
    assert (await rest.did("GET", SCHEMA))["schema"] == own


async def test_a_key_makes_a_schema_repeatable_and_belongs_to_its_flags(rest: Rest) -> None:
    await rest.did("PUT", LAMP, {"level": 2})
    once = {"Idempotency-Key": "k"}
    target = f"{SCHEMA}?allow_breaking=true&reason=r"
    first = await rest.ask("PUT", target, schema(level=LEVEL), headers=once)
    again = await rest.ask("PUT", target, schema(level=LEVEL), headers=once)
    assert (first.status, first.json["version"]) == (201, 1)
    assert (again.status, again.json) == (201, first.json)
    other = await rest.ask("PUT", SCHEMA, schema(level=LEVEL), headers=once)
    assert (other.status, other.json["type"]) == (422, "/problems/idempotency-mismatch")


async def test_what_was_put_is_there_after_a_restart(tmp_path: Path) -> None:
    async with on_disk(tmp_path) as system:
        rest = Rest(system)
        await rest.did("PUT", SCHEMA, schema(level=LEVEL))
        await rest.did("PUT", LAMP, {"level": 0.9})
    async with on_disk(tmp_path) as system:
        rest = Rest(system)
        assert (await rest.did("GET", SCHEMA))["schema"] == schema(level=LEVEL)
        assert (await rest.ask("PUT", LAMP, {"level": 2})).status == 422
        assert (await rest.did("GET", "/api/v1/audit/verify"))["ok"]


# ── bad days ───────────────────────────────────────────────────────────────────────────────────


async def with_two_schemas(data: Path) -> None:
    """lamp's was put, and bell's was adopted from an instance."""
    bell = schema(volume={"type": "integer", "default": 3})
    async with on_disk(data) as system:
        rest = Rest(system)
        await rest.did("PUT", SCHEMA, schema(level=LEVEL))
        await rest.did("PUT", LAMP, {"level": 0.9})
        await rest.runs("porch", bell, service="bell")
        adopted = {"digest": schema_digest(bell)}
        await rest.did("POST", "/api/v1/schemas/bell/adopt", adopted)
        await rest.did("PUT", "/api/v1/config/bell", {"volume": 5})


async def read(rest: Rest) -> list[Any]:
    services = [await rest.did("GET", path) for path in (LAMP, "/api/v1/config/bell")]
    schemas = [await rest.did("GET", path) for path in (SCHEMA, "/api/v1/schemas/bell")]
    return [*services, *({k: one[k] for k in ("schema", "digest", "source")} for one in schemas)]


async def values_are_judged(rest: Rest) -> None:
    assert (await rest.ask("PUT", LAMP, {"level": 2})).status == 422
    assert (await rest.ask("PUT", "/api/v1/config/bell", {"volume": "loud"})).status == 422
    assert (await rest.did("PUT", LAMP, {}))["config"] == {"level": 0.5}
    assert (await rest.did("PUT", "/api/v1/config/bell", {}))["config"] == {"volume": 3}


async def test_from_the_last_known_good_cache_services_read_as_before_and_no_schema_is_written(
    tmp_path: Path,
) -> None:
    await with_two_schemas(tmp_path)
    async with on_disk(tmp_path) as system:
        before = await read(Rest(system))
    database = tmp_path / "config.db"
    content = database.read_bytes()  # every page but the first: it opens, and can't be read
    database.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))
    async with on_disk(tmp_path) as system:
        rest = Rest(system)
        assert system.view.mode == "read-only"
        for path, was in zip((LAMP, "/api/v1/config/bell"), before, strict=False):
            assert await rest.did("GET", path) == was
        for method, path, body in (
            ("PUT", SCHEMA, schema(level=LEVEL, colour=COLOUR)),
            ("DELETE", SCHEMA, None),
            ("PUT", LAMP, {"level": 0.1}),
        ):
            refused = await rest.ask(method, path, body)
            assert (refused.status, refused.json["type"]) == (503, "/problems/read-only"), path
            assert int(refused.headers["retry-after"]) >= 1


async def test_restored_schemas_that_were_put_and_adopted_stay_and_the_audit_verifies(
    tmp_path: Path,
) -> None:
    await with_two_schemas(tmp_path)
    async with on_disk(tmp_path) as system:
        _, _, *schemas = await read(Rest(system))
    await trio.to_thread.run_sync(accept, tmp_path)
    async with on_disk(tmp_path) as system:
        rest = Rest(system)
        assert (system.view.mode, system.view.committed.epoch.seq) == ("normal", 2)
        lamp, bell, *kept = await read(rest)
        assert (lamp["config"], bell["config"], kept) == ({"level": 0.9}, {"volume": 5}, schemas)
        await values_are_judged(rest)
        assert (await rest.did("GET", "/api/v1/audit/verify"))["ok"]


async def test_a_schema_that_was_edited_is_not_audited_and_a_restore_lets_go_of_it(
    tmp_path: Path,
) -> None:
    await with_two_schemas(tmp_path)
    with with_the_key(tmp_path, read_only=False) as stranger:
        edited = "UPDATE registry SET value = replace(value, '0.5', '0.7') WHERE kind = 'schema' AND key = 'lamp'"
        assert stranger.execute(edited).rowcount == 1
    async with on_disk(tmp_path) as system:
        told = await Rest(system).did("GET", "/api/v1/audit/verify")
        assert not told["ok"]
        assert "schema/lamp" in str(told)
    await trio.to_thread.run_sync(accept, tmp_path)
    async with on_disk(tmp_path) as system:
        rest = Rest(system)
        assert (await rest.ask("GET", SCHEMA)).status == 404
        assert (await rest.did("GET", LAMP))["config"] == {"level": 0.9}
        assert (await rest.did("GET", "/api/v1/schemas/bell"))["source"] == "instance"
        assert (await rest.did("GET", "/api/v1/audit/verify"))["ok"]
