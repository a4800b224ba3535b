"""What an instance says of itself: its receipts, as they lie on the broker.

A server learns an instance's key when it enrols. This instance does not enrol. So the kit checks the form, that one
key signs all of them, and that they are true.
"""

from __future__ import annotations

from collections.abc import Callable

from config_manager.actors.mqtt.port import Message
from config_manager.api.conformance.cases import Unmet
from config_manager.api.conformance.rig import APPLIED_S, INSTANCE, Rig
from config_manager.api.conformance.stories import Play, Scene, Story
from config_manager.config import wire
from config_manager.config.documents.config_update import Variant
from config_manager.config.documents.receipt import Receipt, Running

_FRESHNESS = ("fresh", "unknown", "clock-unknown", "stale (")


def _read(payload: bytes) -> tuple[Receipt, frozenset[str]]:
    """A receipt, and the keys that its signatures name. Raises Unmet if it is none."""
    try:
        envelope = wire.parse_envelope(payload)
        if envelope.payload_type != wire.RECEIPT:
            raise Unmet(f"a receipt of the type {envelope.payload_type}")
        return Receipt.parse(envelope.payload), envelope.signers
    except ValueError as error:
        raise Unmet(f"no receipt: {error}") from None


def _all(rig: Rig) -> list[tuple[Receipt, frozenset[str]]]:
    return [_read(message.payload) for message in _messages(rig)]


def _messages(rig: Rig) -> list[Message]:
    topic = wire.status_topic(rig.publisher.service, INSTANCE)
    return [one for one in rig.heard if one.topic == topic and one.payload]


async def _until_one(rig: Rig, what: str, wanted: Callable[[Receipt], bool]) -> Receipt:
    """The newest, once it is as wanted."""

    def newest() -> Receipt | None:
        receipts = _all(rig)
        return receipts[-1][0] if receipts and wanted(receipts[-1][0]) else None

    await rig.until(lambda: newest() is not None, APPLIED_S, ends_with_client=False)
    found = newest()
    if found is None:
        raise Unmet(f"{len(_messages(rig))} receipts, the last of them without {what}")
    return found


def _says_what_runs(rig: Rig) -> Callable[[Receipt], bool]:
    p = rig.publisher
    running = Running(1, p.revision, wire.digest(p.payload(p.revision)))
    return lambda receipt: receipt.running == running and not receipt.gone


async def _what_runs(rig: Rig) -> None:
    await rig.goes_on()
    receipt = await _until_one(rig, "what runs", _says_what_runs(rig))
    if (receipt.service, receipt.instance) != (rig.publisher.service, INSTANCE):
        raise Unmet(f"a receipt of {receipt.service}/{receipt.instance}")
    if not receipt.freshness.startswith(_FRESHNESS):
        raise Unmet(f"freshness {receipt.freshness!r}")


async def _takes_its_variant(rig: Rig) -> None:
    """That of the schema which it published; what everybody takes, if it published none."""
    p = rig.publisher
    schema = (await _until_one(rig, "what runs", _says_what_runs(rig))).schema
    topic = wire.schema_topic(p.service, schema)
    await rig.retained(topic)
    # it may be published just now, and then it is not said to be retained
    is_published = any(one.topic == topic for one in rig.heard)
    everyones, own, others = ({"whose": whose} for whose in ("everybody's", "its own", "another's"))
    variants = (Variant(("0" * 64,), others, ()), Variant((schema,), own, ()))
    p.revision += 1
    message = p.update(p.revision, config=everyones, variants=variants)
    rig.permit(message, own if is_published else everyones)
    await rig.send(message, retain=True)
    await rig.applied(p.revision)
    await rig.goes_on()


async def _kept(rig: Rig) -> Receipt:
    """As a later subscriber gets it from the broker."""
    found = await rig.retained(wire.status_topic(rig.publisher.service, INSTANCE))
    if not found:
        raise Unmet("no retained receipt")
    return _read(found)[0]


async def _retained(rig: Rig) -> None:
    if not _says_what_runs(rig)(await _kept(rig)):
        raise Unmet("the retained receipt does not say what runs")


async def _rising(rig: Rig) -> None:
    await rig.goes_on()
    await _until_one(rig, "what runs", _says_what_runs(rig))
    orders = [_read(one.payload)[0].order for one in _messages(rig) if not one.retained]
    if orders != sorted(set(orders)):
        raise Unmet(f"(boot_seq, seq) {orders}")


def _starts_again(end: Play) -> Play:
    """Gone, and there again with a higher boot_seq and the same key."""

    async def play(rig: Rig) -> None:
        before = await _until_one(rig, "what runs", _says_what_runs(rig))
        await end(rig)
        await _until_one(rig, "gone", lambda receipt: receipt.gone)
        if not (await _kept(rig)).gone:
            raise Unmet("the retained receipt does not say that it is gone")
        await rig.start()
        after = await _until_one(rig, "what runs", _says_what_runs(rig))
        if after.boot_seq <= before.boot_seq:
            raise Unmet(f"boot_seq {after.boot_seq} after {before.boot_seq}")
        if len({keys for _, keys in _all(rig)}) != 1:
            raise Unmet("signed by another key than before")

    return play


RECEIPTS = (
    Scene(
        (
            Story("what runs", "service, instance, running", _what_runs),
            Story("kept by the broker", "retained", _retained),
            Story("one after the other", "(boot_seq, seq) rises", _rising),
            Story("of variants its own", "applied", _takes_its_variant),
            Story("stopped and started", "gone, then a higher boot_seq", _starts_again(Rig.stop)),
            Story("killed and started", "gone, then a higher boot_seq", _starts_again(Rig.kill)),
        )
    ),
)
