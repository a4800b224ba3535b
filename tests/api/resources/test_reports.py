"""`GET /api/v1/reports` on a real database, and what becomes of it in the hands of somebody who has the database's key."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest
import trio
from nacl.public import PrivateKey
from nacl.signing import SigningKey

from config_manager.actors.system import System
from config_manager.api.resources import reports
from config_manager.config import wire
from config_manager.config.documents.receipt import Attempt, Receipt, Running
from config_manager.config.enrolment import Enrolment
from config_manager.config.strict_json import JsonObject
from config_manager.config.world import rfc3339
from config_manager.storage.decisions.report_checks import Verdict, verify
from tests.kit.asgi import Answer, Caller, on_disk, with_the_key

SERVICE = "stt-worker"


class Instance:
    """One that enrols over REST, and whose receipts come from a broker."""

    def __init__(self, rest: Caller, name: str, *, key: str = "") -> None:
        self.name = name
        self._rest = rest
        self._key = SigningKey(hashlib.sha256((key or name).encode()).digest())
        self._seq = 1

    async def enrols(self) -> None:
        given = await self._rest.ask("POST", "/api/v1/devices/tokens", {"service": SERVICE})
        token, seal = given.json["token"], bytes(PrivateKey(b"\x07" * 32).public_key)
        what = Enrolment(
            hashlib.sha256(token.encode()).hexdigest(),
            SERVICE,
            self.name,
            bytes(self._key.verify_key),
            seal,
        )

        def text(data: bytes) -> str:
            return base64.b64encode(data).decode()

        body = {
            "token": token,
            "service": SERVICE,
            "instance": self.name,
            "sign_public": text(what.sign_public),
            "seal_public": text(seal),
            "proof": text(what.prove(bytes(self._key))),
        }
        assert (await self._rest.ask("POST", "/api/v1/devices/enroll", body)).status == 201

    def says(self, stage: Any, overrides: tuple[str, ...] = ()) -> None:
        """What is wanted now, it has got so far with."""
        system = self._rest.system
        state = system.view.committed.services[SERVICE]
        self._seq += 1
        receipt = Receipt(
            SERVICE,
            self.name,
            boot_seq=1,
            seq=self._seq,
            running=Running(state.epoch.seq, state.revision, state.digest),
            last_attempt=Attempt(state.revision, stage),
            source="broker",
            freshness="fresh",
            overrides=overrides,
            schema="ab" * 32,
            library="test",
            correlation_id=state.correlation_id,
            gone=False,
            at=rfc3339(system.world.clock.now()),
        ).to_bytes()
        signature = self._key.sign(wire.signed_bytes(wire.RECEIPT, receipt)).signature
        keyid = wire.keyid(bytes(self._key.verify_key))
        envelope = wire.Envelope(wire.RECEIPT, receipt, (wire.Signature(keyid, signature),))
        taken = system.statuses.take(
            "mqtt://127.0.0.1:1883",
            wire.status_topic(SERVICE, self.name),
            envelope.to_bytes(),
            retained=False,
            now=system.world.clock.now(),
        )
        assert "NotTaken" not in type(taken).__name__, taken


async def tick() -> None:
    """The next millisecond, which is how fine times in documents are."""
    await trio.sleep(0.003)


async def kept(rest: Caller, receipts: int, data: Path) -> None:
    """Until the database has them."""
    with trio.fail_after(10):
        while True:
            with with_the_key(data) as database:
                (count,) = database.execute("SELECT count(*) FROM receipts").fetchone()
            if count >= receipts:
                return
            await trio.sleep(0.05)


async def reported(rest: Caller, query: str) -> Answer:
    return await rest.ask("GET", f"/api/v1/reports?{query}")


def checked(answer: Answer, root: bytes) -> Verdict:
    assert answer.status == 200, answer.body
    return verify(answer.body, root)


def steps(verdict: Verdict) -> set[str]:
    return {one.step for one in verdict.findings}


async def lived(rest: Caller, data: Path) -> tuple[str, str]:
    """Two changes, taken by two instances. Answers when that began and when it ended."""
    kitchen, hall = Instance(rest, "kitchen"), Instance(rest, "hall")
    begin = rfc3339(rest.system.world.clock.now())
    await tick()
    for instance in (kitchen, hall):
        await instance.enrols()
    for model in ("base.en", "small.en"):
        await tick()
        values = {"whisper_model": model}
        assert (await rest.ask("PUT", f"/api/v1/config/{SERVICE}", values)).status in (200, 201)
        for stage in ("applied", "healthy"):
            await tick()
            kitchen.says(stage)
            hall.says(stage, ("vad_threshold",))
    await tick()
    await kept(rest, 8, data)
    return begin, rfc3339(rest.system.world.clock.now())


def segments(told: JsonObject, instance: str) -> list[tuple[Any, ...]]:
    return [
        (one["revision"], one["state"], one["proof"])
        for one in told[SERVICE]["instances"][instance]["segments"]
    ]


def root_of(system: System) -> bytes:
    return system.trust.roots[1]


async def test_who_edits_the_database_can_remove_receipts_and_nothing_else(tmp_path: Path) -> None:
    async with on_disk(tmp_path) as system:
        rest, root = Caller(system), root_of(system)
        begin, end = await lived(rest, tmp_path)
        span = f"from={begin}&to={end}"
        whole = checked(await reported(rest, span), root)
        assert whole.ok, whole.findings
        assert segments(whole.claims, "kitchen") == [
            (None, None, "none"),
            (1, "in-line", "between"),
            (1, "in-line", "last-said"),
            (1, "pending", "last-said"),
            (2, "in-line", "between"),
            (2, "in-line", "last-said"),
        ]
        assert segments(whole.claims, "hall")[-1] == (2, "overridden", "last-said")
        assert [one["revision"] for one in whole.claims[SERVICE]["wanted"]] == [1, 2]
        assert whole.notes == (
            "the rows of the audit begin with number 3: what stood before it is not in this report",
            "stt-worker, revision 1: the digest is proved, the message itself is not in this report",
        )
        moment = checked(await reported(rest, f"at={end}&service={SERVICE}"), root)
        assert segments(moment.claims, "kitchen") == [(2, "in-line", "last-said")]

        async def after(*statements: str) -> Verdict:
            """What the report says once these were run, which are then undone."""
            with with_the_key(tmp_path, read_only=False) as database:
                for table in ("audit", "receipts"):
                    database.execute(f"CREATE TABLE kept_{table} AS SELECT * FROM {table}")
                for statement in statements:
                    assert database.execute(statement).rowcount > 0, statement
            verdict = checked(await reported(rest, span), root)
            with with_the_key(tmp_path, read_only=False) as database:
                for table in ("audit", "receipts"):
                    database.execute(f"DELETE FROM {table}")
                    database.execute(f"INSERT INTO {table} SELECT * FROM kept_{table}")
                    database.execute(f"DROP TABLE kept_{table}")
            return verdict

        row = "CAST(replace(CAST(body AS TEXT), 'base.en', 'tiny.en') AS BLOB)"
        last = "(SELECT max(seq) FROM audit)"
        removed = await after("DELETE FROM receipts WHERE instance = 'kitchen' AND seq IN (3, 4)")
        swapped = "UPDATE receipts SET instance = CASE instance WHEN 'hall' THEN 'kitchen' ELSE 'hall' END"
        bent = 'UPDATE receipts SET envelope = CAST(replace(CAST(envelope AS TEXT), \'"sig":"\', \'"sig":"AAAA\') AS BLOB)'
        assert steps(await after(f"UPDATE audit SET body = {row} WHERE body LIKE '%base.en%'")) == {
            "audit"
        }
        assert steps(await after(f"DELETE FROM audit WHERE seq = {last}")) == {"audit"}
        enrolment = await after("DELETE FROM audit WHERE seq = 3")  # nor does it hide an instance
        assert "row 3 is not there" in enrolment.findings[0].detail
        assert steps(await after(bent)) == {"receipts"}
        # the columns are for finding a receipt; it is what it says that counts
        assert (await after(swapped)).claims == whole.claims
        assert removed.ok
        assert [(one.instance, one.missing) for one in removed.holes] == [("kitchen", 2)]
        assert "between" not in [one[2] for one in segments(removed.claims, "kitchen")]


async def test_reports_go_on_with_other_keys_of_the_server_and_of_an_instance(
    tmp_path: Path,
) -> None:
    async with on_disk(tmp_path) as system:
        rest, pinned = Caller(system), root_of(system)
        kitchen = Instance(rest, "kitchen")
        await kitchen.enrols()
        await rest.ask("PUT", f"/api/v1/config/{SERVICE}", {"whisper_model": "base.en"})
        await tick()
        now = rfc3339(system.world.clock.now())
        before = await reported(rest, f"at={now}")
        first = checked(before, pinned).claims[SERVICE]["instances"]["kitchen"]

        rotation = {"role": "config", "overlap": "0"}
        rotated = await rest.ask("POST", "/api/v1/trust/rotate", rotation)
        assert system.trust.current.version == 2, rotated.body
        await rest.ask("DELETE", f"/api/v1/devices/{SERVICE}/kitchen")
        other = Instance(rest, "kitchen", key="another")
        await other.enrols()
        await tick()
        later = rfc3339(system.world.clock.now())
        after = await reported(rest, f"from={now}&to={later}")
        verdict = checked(after, pinned)
        assert verdict.ok, verdict.findings
        assert verdict.root_version == 2
        second = verdict.claims[SERVICE]["instances"]["kitchen"]
        assert second["keyid"] != first["keyid"]
        assert second["enrolled_seq"] > first["enrolled_seq"]
        # what was made before goes on verifying under the root of then, and not under a later one
        assert checked(before, pinned).ok
        assert steps(checked(before, system.trust.roots[2])) == {"roots"}


async def test_a_span_after_an_instance_was_revoked_is_proved_although_its_receipts_are_kept(
    tmp_path: Path,
) -> None:
    async with on_disk(tmp_path) as system:
        rest = Caller(system)
        await lived(rest, tmp_path)
        await rest.ask("DELETE", f"/api/v1/devices/{SERVICE}/kitchen")
        await rest.ask("PUT", f"/api/v1/config/{SERVICE}", {"whisper_model": "tiny.en"})
        await tick()
        begin = rfc3339(system.world.clock.now())
        await tick()
        end = rfc3339(system.world.clock.now())
        root = root_of(system)
        asked = (f"from={begin}&to={end}", f"at={end}&service={SERVICE}", f"at={end}")
        verdicts = [checked(await reported(rest, one), root) for one in asked]
    assert [one.findings for one in verdicts] == [(), (), ()]


async def test_what_is_asked_wrong_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with on_disk(tmp_path) as system:
        rest = Caller(system)
        await rest.ask("PUT", f"/api/v1/config/{SERVICE}", {"whisper_model": "base.en"})
        await tick()
        now = rfc3339(system.world.clock.now())
        wrong = {
            "": "give at, or from and to",
            f"at={now}&from={now}&to={now}": "give at, or from and to",
            f"from={now}": "give at, or from and to",
            f"from={now}&to=2026-01-01T00:00:00Z": "before `to`",
            "at=2099-01-01T00:00:00Z": "at: expected a time that has passed",
        }
        malformed = {
            "at=yesterday": "at: expected a time such as",
            f"at={now}&format=html": "unknown query parameter",
        }
        for status, queries in ((422, wrong), (400, malformed)):
            for query, said in queries.items():
                answer = await reported(rest, query)
                assert (answer.status, said in answer.json["detail"]) == (status, True), answer.body
        assert (await reported(rest, f"at={now}&service=nobody")).status == 404
        assert (await reported(rest, f"at={now}&service=tts-worker")).status == 200
        system.view.publishable = False  # no beacon, no proof
        assert (await reported(rest, f"at={now}")).status == 503
        system.view.publishable = True
        monkeypatch.setattr(reports, "MOST_BYTES_OF_EVIDENCE", 100)
        large = await reported(rest, f"at={now}")
        assert (large.status, large.json["type"]) == (422, "/problems/report-too-large")
        narrowed = {"name": "n", "role": "admin", "services": ["stt-*"]}
        token = (await rest.ask("POST", "/api/v1/tokens", narrowed)).json["token"]
        assert (await rest.ask("GET", f"/api/v1/reports?at={now}", token=token)).status == 403
