"""Where the time goes: each part of one PUT by itself, in this process, beside the disk's fsync."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import trio

from bench.figures import Figure, median
from config_manager.actors.measuring import Measures
from config_manager.actors.signing import sign
from config_manager.actors.storing.writer import tools_of
from config_manager.config import strict_json, trust, wire
from config_manager.config.documents.config_update import ConfigUpdate
from config_manager.config.services import SAMPLE_CATALOGUE
from config_manager.config.world import World, rfc3339
from config_manager.storage.decisions.decider import Decider
from config_manager.storage.decisions.intents import Put
from config_manager.storage.decisions.shapes import Shapes
from config_manager.storage.decisions.terms import Terms
from config_manager.storage.decisions.vouching import Vouching
from config_manager.storage.keys.secret_box import SecretBoxes
from config_manager.storage.sql.sql_store import SqlStore
from config_manager.storage.state import Commit, Committed

_BODY = b'{"whisper_model":"base.en","vad_speech_pad_ms":200}'
_SEED = bytes(range(32))


def run(directory: Path, *, rounds: int) -> Iterator[Figure]:
    """Medians of `rounds` times many calls, in microseconds."""
    world = World()
    epoch = world.randomness.uuid()
    now = world.clock.now()
    key = world.randomness.token(32)
    vouching = Vouching(key)
    tools = tools_of(
        Shapes(SAMPLE_CATALOGUE),
        SecretBoxes(key, world.randomness, successor=None),
        vouching,
        key,
        world,
    )
    store = SqlStore.open(
        directory / "parts.db",
        world.randomness.token(32),
        vouching=vouching,
        epoch_id=epoch,
        at=rfc3339(now),
        fresh=True,
    )
    with store.snapshot() as snapshot:
        state = snapshot.kept().committed

    def decide(before: Committed, number: int) -> Commit:
        put = Put(service="stt-worker", values={"vad_speech_pad_ms": 100 + number % 900})
        terms = Terms("bench")
        decider = Decider(tools, before, store)
        change = decider.decide(put, terms, now=now, correlation_id=epoch)[1]
        assert change is not None
        return change

    def commit(count: int) -> None:
        nonlocal state
        batch: list[Commit] = []
        for number in range(count):
            batch.append(decide(state, number))
            state = batch[-1].after
        store.commit(batch)

    change = decide(state, 1)
    payload = change.services[0].payload
    envelope = sign(_SEED, wire.CONFIG_UPDATE, payload, epoch)
    raw = envelope.to_bytes()

    yield _timed("fsync of one page", _fsync(directory / "page"), rounds, 200)
    yield _timed("strict JSON of a body", lambda: strict_json.loads(_BODY), rounds, 5_000)
    yield _timed("decide: validate, merge, hash, encode", lambda: decide(state, 2), rounds, 2_000)
    yield _timed("commit of one (decided, durable)", lambda: commit(1), rounds, 200)
    yield _timed("commit of 16 (decided, durable)", lambda: commit(16), rounds, 40)
    yield _timed("sign", lambda: sign(_SEED, wire.CONFIG_UPDATE, payload, epoch), rounds, 2_000)
    yield _timed("envelope to bytes", envelope.to_bytes, rounds, 5_000)
    yield _timed("client: open an envelope", lambda: trust.open_envelope(raw), rounds, 5_000)
    yield _timed("client: parse an update", lambda: ConfigUpdate.parse(payload), rounds, 2_000)
    measures = Measures()
    route = "/api/v1/config/{service}"
    yield _timed(
        "metrics: a request is counted",
        lambda: measures.answered("GET", route, 200, 0.0003),
        rounds,
        20_000,
    )
    yield _timed(
        "metrics: a duration", lambda: measures.commit_seconds.observe(0.003), rounds, 20_000
    )
    yield _timed("Trio: hop to a thread and back", None, rounds, 0, trio.run(_hops, rounds))
    store.close()


def _fsync(file: Path) -> Callable[[], None]:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    page = os.urandom(4096)

    def once() -> None:
        os.pwrite(descriptor, page, 0)
        os.fdatasync(descriptor)

    return once


async def _hops(rounds: int) -> list[float]:
    found: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(500):
            await trio.to_thread.run_sync(int)
        found.append((time.perf_counter() - began) / 500)
    return found


def _timed(
    name: str,
    call: Callable[[], object] | None,
    rounds: int,
    count: int,
    found: Sequence[float] = (),
) -> Figure:
    each = list(found)
    if call is not None:
        for _ in range(rounds):
            began = time.perf_counter()
            for _ in range(count):
                call()
            each.append((time.perf_counter() - began) / count)
    return Figure(name, median(each) * 1e6, "µs", max(each) * 1e6)
