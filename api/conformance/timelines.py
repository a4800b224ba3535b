"""The timelines of docs/vectors.json, in real time: what a client says, and when."""

from __future__ import annotations

import base64
import json
from functools import partial

import trio

from config_manager.api.conformance.cases import Line, Unmet, in_words
from config_manager.api.conformance.rig import Rig
from config_manager.api.conformance.stories import Scene, Story
from config_manager.api.conformance.vectors import Case, VectorPublisher, load, root_names, seed
from config_manager.config import wire

_EARLY_S = 5.0
"""What is due then may be said already: the client's time began before we heard it speak."""
_LATE_S = 15.0
_SHOWN = ("event", "reason", "revision")
_CONFIGURATIONS = wire.CONFIG_FILTER.removesuffix("+")


def _message(name: str) -> tuple[str, bytes]:
    given = load()["timeline_messages"][name]
    return given["topic"], given["message"].encode()


def _is_dated(name: str) -> bool:
    topic, message = _message(name)
    if not topic.startswith(_CONFIGURATIONS):
        return False
    payload = json.loads(base64.b64decode(json.loads(message)["payload"]))
    return payload["not_after"] is not None


def why_skipped(case: Case) -> str | None:
    if any(step.get("service_refuses") for step in case["steps"]):
        return "a client that prints takes everything"
    if any("gives" in step and _is_dated(step["gives"]) for step in case["steps"]):
        return "a date of it has passed"
    return None


async def _begin(case: Case, rig: Rig) -> None:
    """What it keeps is kept, and it does not run; the broker holds nothing."""
    if case["kept"] is None:
        await rig.new_directory()
        return
    _, message = _message(case["kept"])
    # a beacon below all others: a client that heard none would wait for a quarter of a minute
    await seed(rig, case["trusted"], message, boot_seq=0, seq=0)
    await rig.stop()
    roots = (load()["documents"][name]["topic"] for name in root_names(case["trusted"])[1:])
    for topic in (rig.publisher.topic, wire.SNAPSHOT_TOPIC, *roots):
        await rig.send(b"", topic, retain=True)


async def _play(case: Case, rig: Rig) -> None:
    await rig.start()
    if case["kept"] is not None:
        rig.since(await rig.line("applied"))
    expected: list[Line] = [line for step in case["steps"] for line in step["says"]]
    began = trio.current_time()
    due = 0
    for step, following in zip(case["steps"], [*case["steps"][1:], None], strict=True):
        await trio.sleep(max(0.0, began + step["at"] - trio.current_time()))
        if "gives" in step:
            await _give(rig, step["gives"])
        due += len(step["says"])
        await rig.until(partial(_has_said, rig, due), _LATE_S)
        if step["says"]:  # what comes late puts off the rest
            began = max(began, trio.current_time() - step["at"])
        said = _shown(rig)
        is_early = following is not None and following["at"] - step["at"] <= _EARLY_S
        at_most = len(expected) if is_early else due
        if said != expected[: len(said)] or not due <= len(said) <= at_most:
            wanted = in_words(expected[:due])
            raise Unmet(f"{in_words(said)} until {step['at']:g} s, not {wanted}")


def _has_said(rig: Rig, number: int) -> bool:
    return len(_shown(rig)) >= number


async def _give(rig: Rig, name: str) -> None:
    topic, message = _message(name)
    if topic == rig.publisher.topic:
        rig.permit(message)
    # also the keepalive: a client may have started, and not have subscribed yet
    await rig.send(message, topic, retain=True)


def _shown(rig: Rig) -> list[Line]:
    return [{name: line[name] for name in _SHOWN if name in line} for line in rig.said]


def timeline_scenes(_: float) -> tuple[Scene, ...]:
    return tuple(
        Scene(
            (
                Story(
                    case["name"],
                    in_words(line for step in case["steps"] for line in step["says"]),
                    partial(_play, case),
                    why_skipped(case),
                ),
            ),
            VectorPublisher,
            partial(_begin, case),
        )
        for case in load()["timelines"]
    )
