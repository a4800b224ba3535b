"""An unexpected error is logged with its traceback, and no traceback shows what was in hand."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Literal

import click
import pytest

from config_manager.api import main as command
from config_manager.config.logging import configure
from config_manager.storage.decisions.intents import SetSecret
from tests.kit.asgi import Caller, running

VALUE = "conspicuous-in-hand"


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_an_actor_that_crashes_with_a_secret_in_hand_logs_no_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_format: Literal["json", "console"]
) -> None:
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, write_through=True)
    configure(log_format, "debug", stream)

    def crash(*_: Any, **__: Any) -> Any:
        in_hand = VALUE
        raise RuntimeError(f"drill, {len(in_hand)} characters in hand")

    async with running(tmp_path) as system:
        monkeypatch.setattr(SetSecret, "decide", crash)
        body = {"service": "door", "name": "pin", "value": VALUE}
        answer = await Caller(system).ask("POST", "/api/v1/secrets", body)
    said = written.getvalue()
    assert answer.status == 503
    assert b"Traceback" in said
    assert b"in crash" in said
    assert VALUE.encode() not in said + answer.body


def test_a_command_that_fails_unexpectedly_prints_no_local_variable(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def fails() -> None:
        in_hand = VALUE
        raise RuntimeError(f"drill, {len(in_hand)} characters in hand")

    monkeypatch.setitem(command.cli.commands, "fails", fails)
    monkeypatch.setattr("sys.argv", ["config-manager", "fails"])
    with pytest.raises(SystemExit) as caught:
        command.main()
    out, err = capfd.readouterr()
    assert caught.value.code == 1
    assert "Traceback" in err
    assert "in fails" in err
    assert VALUE not in out + err
