"""`config-manager watch`: what it makes of a stream, and where it goes on after one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from config_manager.api.commands.remote import Server
from config_manager.api.main import cli
from config_manager.config.errors import ServerSays, ServerUnreachable

REVISION = {
    "revision": 7,
    "config_epoch": "e",
    "epoch_seq": 1,
    "at": "2026-01-02T03:04:05.678Z",
    "by": "ada",
    "action": "put",
    "reason": "quiet\x1b[2J",
    "correlation_id": "c",
    "services": ["door", "gate"],
}
DRIFT = {
    "event": "began",
    "service": "door",
    "instance": "front",
    "state": "foreign",
    "since": "2026-01-02T03:04:05.678Z",
    "revision": 7,
    "correlation_id": "c",
}
HEALTH = {"ok": False, "mode": "read-only", "reasons": ["the disk is full"]}


def told(kind: str, data: Any, event_id: int | None = None) -> str:
    named = "" if event_id is None else f"id: {event_id}\n"
    return f"event: {kind}\n{named}data: {json.dumps(data)}\n\n"


Part = str | Exception


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Result, list[str | None]]]:
    """Runs the command against streams of these parts, one after the other, then Ctrl-C. Its result, and what each
    connection sent as Last-Event-ID."""

    def run(*streams: list[Part], options: tuple[str, ...] = ()) -> tuple[Result, list[str | None]]:
        left, sent = list(streams), list[str | None]()

        def stream(_: Server, *path: str, **more: Any) -> Iterator[str]:
            assert path == ("api", "v1", "watch")
            if not left:
                raise KeyboardInterrupt
            sent.append(more["headers"].get("Last-Event-ID"))
            for part in left.pop(0):
                if isinstance(part, Exception):
                    raise part
                yield from part.split("\n")[:-1]

        monkeypatch.setattr(Server, "stream", stream)
        monkeypatch.setattr("time.sleep", lambda _: None)
        return CliRunner().invoke(cli, ["watch", *options]), sent

    return run


AWAY = ServerUnreachable("no answer")


def test_each_event_is_a_line_and_what_others_wrote_is_shown_and_not_obeyed(watching: Any) -> None:
    parts = [
        "retry: 1000\nid: 6\n\n",
        ":\n\n",
        told("health", HEALTH),
        told("revision", REVISION, 7),
        told("drift", DRIFT),
        told("behind", {"from": 7, "to": 4000}, 4000),
        told("of-a-later-version", {"x": 1}),
    ]
    result, sent = watching(parts)
    assert result.exit_code == 0
    health, revision, drift, behind, later = result.output.splitlines()
    assert health.endswith("health  not ok, read-only; the disk is full")
    assert revision == "2026-01-02 03:04:05  r7  door, gate: put by ada (quiet\\x1b[2J)"
    assert drift.endswith("drift began  door/front not ours, r7 is wanted")
    assert "r7" in behind
    assert "r4000" in behind
    assert "of-a-later-version" in later
    as_json, _ = watching(parts, options=("--json",))
    lines = [json.loads(line) for line in as_json.output.splitlines()]
    assert [line["type"] for line in lines][:3] == ["health", "revision", "drift"]
    assert lines[1] == {"type": "revision", **REVISION}
    assert lines[2] == {"type": "drift", **DRIFT}
    assert sent == [None]


def test_it_goes_on_where_it_was_however_the_last_stream_ended(watching: Any) -> None:
    result, sent = watching(
        ["retry: 1000\nid: 6\n\n" + told("health", HEALTH)],
        [told("revision", REVISION, 7), "event: revision\nid: 8\nda", AWAY],
        [AWAY],
        [ServerSays("too many", "too-many-streams", 503)],
        [":\nid: 12\n\n"],
        [told("revision", REVISION, 13)],
        options=("--after", "3"),
    )
    assert sent == ["3", "6", "7", "7", "7", "12"]
    assert result.exit_code == 0
    assert result.stdout.count("  r7  ") == 2
    assert result.stderr.count("trying again") == 1, "once for each time that it is away"


@pytest.mark.parametrize(
    "streams",
    [
        [[AWAY]],
        [[told("health", HEALTH)], [ServerSays("no", "not-authenticated", 401)]],
        [[ServerSays("no", "too-many-streams", 503)]],
        [["event: health\ndata: {\n\n"]],
    ],
    ids=["never there", "the token is gone", "no room from the start", "no data of ours"],
)
def test_it_ends_where_trying_again_would_not_help(
    watching: Any, streams: list[list[Part]]
) -> None:
    result, sent = watching(*streams)
    assert isinstance(result.exception, ServerUnreachable | ServerSays)
    assert len(sent) == len(streams)
