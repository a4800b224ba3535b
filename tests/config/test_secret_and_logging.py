"""A secret shows nowhere, and nothing that a caller sends forges a line of the log."""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

import config_manager.config.logging
from config_manager.config.json_lines import JsonLines, Timestamps
from config_manager.config.logging import LogFormat, LogLevelName, configure, log_request
from config_manager.config.secret import Secret
from tests.kit.documents import STEADY, json_values

# -- the secret

SHOWN: dict[str, Callable[[Secret], str]] = {
    "str": str,
    "repr": repr,
    "an f-string": lambda secret: f"{secret} {secret!r} {secret!s} {secret!a}",
    "percent": lambda secret: "%s %r %a" % (secret, secret, secret),  # noqa: UP031
    "format": "{0} {0!r}".format,
    "a list": lambda secret: str([secret, (secret,), {"a": secret}]),
    "orjson with a default": lambda secret: orjson.dumps([secret], default=repr).decode(),
    "an exception": lambda secret: repr(ValueError(secret)) + str(KeyError(secret)),
    "its attributes": lambda secret: str(getattr(secret, "__dict__", None)),
}


@pytest.mark.parametrize("way", SHOWN)
def test_a_secret_never_prints(way: str) -> None:
    text = SHOWN[way](Secret("hunter2"))
    assert "hunter2" not in text
    assert ("********" in text) == (way != "its attributes")


@pytest.mark.parametrize(
    "take_out",
    [pickle.dumps, copy.copy, copy.deepcopy, json.dumps, orjson.dumps, bytes, vars, iter, len],
)
def test_a_secret_is_not_taken_out_by_accident(take_out: Callable[[Secret], object]) -> None:
    with pytest.raises(TypeError) as caught:
        take_out(Secret("hunter2"))
    assert "hunter2" not in str(caught.value)


def test_a_format_that_would_pad_or_cut_it_is_refused() -> None:
    with pytest.raises(TypeError):
        f"{Secret('hunter2'):>20}"


def test_only_reveal_opens_it() -> None:
    assert Secret("hunter2").reveal() == "hunter2"


def test_two_secrets_are_equal_only_where_they_are_one() -> None:
    """A comparison of text would leak, by its time, how much of a guess is right."""
    secret = same = Secret("a")
    assert secret == same
    assert secret != Secret("a")
    assert secret != "a"  # type: ignore[comparison-overlap]


# -- the log


class Log:
    """What the process wrote, as bytes."""

    def __init__(self) -> None:
        self._bytes = io.BytesIO()
        self.stream = io.TextIOWrapper(self._bytes, "utf-8", newline="", write_through=True)

    @property
    def raw(self) -> bytes:
        self.stream.flush()
        return self._bytes.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """As a collector reads them: split at line feeds, each strictly JSON."""
        assert not self.raw or self.raw.endswith(b"\n")
        return [json.loads(line, parse_constant=pytest.fail) for line in self.raw.split(b"\n")[:-1]]


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Logging belongs to the process: put back what each test sets up."""
    monkeypatch.setattr(config_manager.config.logging, "_straight", None)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:] = handlers
    root.setLevel(level)


def start(log_format: LogFormat = "json", level: LogLevelName = "debug") -> Log:
    log = Log()
    structlog.reset_defaults()
    configure(log_format, level, log.stream)
    return log


def test_a_line_has_what_the_contract_lists() -> None:
    log = start()
    structlog.get_logger().warning("refused", reason="x")
    [line] = log.lines
    at = datetime.fromisoformat(line.pop("timestamp"))
    assert at.utcoffset() is not None
    assert line == {"level": "warning", "event": "refused", "actor": "main", "reason": "x"}


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_the_access_line_is_a_line_like_every_other(log_format: LogFormat) -> None:
    """It takes a shorter way, which must not show."""
    log = start(log_format)
    structlog.get_logger().info("request", actor="rest", path="/a\nb", status=200)
    log_request(actor="rest", path="/a\nb", status=200)
    one, other = log.raw.decode().splitlines()
    at = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
    assert at.search(one)
    assert at.search(other)
    one, other = at.sub("", one), at.sub("", other)
    assert (json.loads(one) == json.loads(other)) if log_format == "json" else (one == other)


def test_the_access_line_is_left_out_below_its_level() -> None:
    log = start("json", "warning")
    log_request(status=200)
    assert log.raw == b""


@given(st.floats(0, 4e9))
def test_a_timestamp_is_the_time_to_the_microsecond(now: float) -> None:
    said = Timestamps(lambda: now).now()
    assert abs(datetime.fromisoformat(said).timestamp() - now) <= 2e-6


def test_what_is_bound_to_the_chain_is_in_each_line_and_the_line_itself_wins() -> None:
    log = start()
    structlog.contextvars.bind_contextvars(actor="storing", request_id="r", correlation_id="r")
    structlog.get_logger().info("one")
    structlog.get_logger().info("two", actor="signing")
    assert [(x["actor"], x["request_id"], x["correlation_id"]) for x in log.lines] == [
        ("storing", "r", "r"),
        ("signing", "r", "r"),
    ]


@pytest.mark.parametrize(
    ("level", "said"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_what_is_below_the_level_is_not_written(
    log_format: LogFormat, level: LogLevelName, said: list[str]
) -> None:
    log = start(log_format, level)
    for name in ("debug", "info", "warning", "error"):
        getattr(structlog.get_logger(), name)(f"it-{name}")
    written = log.raw.decode()
    assert [n for n in ("debug", "info", "warning", "error") if f"it-{n}" in written] == said
    assert written.count("\n") == len(said)


def test_an_exception_is_one_line_with_its_traceback_and_no_local_variables() -> None:
    log = start()
    password = "hunter2"
    try:
        Secret(password).nothing  # type: ignore[attr-defined]  # noqa: B018
    except AttributeError:
        structlog.get_logger().exception("crashed")
    [line] = log.lines
    assert line["level"] == "error"
    assert line["exception"].startswith("Traceback")
    assert "hunter2" not in log.raw.decode()


def test_people_see_a_traceback_without_local_variables_too() -> None:
    log = start("console")
    password = f"hunter{2}"
    try:
        raise ValueError(str(Secret(password)))
    except ValueError:
        structlog.get_logger().exception("crashed")
    assert b"Traceback" in log.raw
    assert b"hunter2" not in log.raw


FORGERIES = {
    "LF": "a\n{}",
    "CR LF": 'a\r\n{"level":"info","event":"ready"}',
    "CR": "a\rready",
    "a closing quote": '","event":"ready","x":"',
    "a closing brace": '"}\n{"event":"ready"}',
    "NEL": "a\x85ready",
    "LS": "a\u2028ready",
    "PS": "a\u2029ready",
    "vertical tab and form feed": "a\x0b\x0cready",
    "cursor up, erase line": "\x1b[1A\x1b[2Kready",
    "C1 control sequence": "\x9b2Kready",
    "backspace": "a\b\b\bready",
    "text that runs backwards": "\u202eydaer",
    "NUL": "a\0b",
    "a backslash": "a\\nready",
}


@pytest.mark.parametrize("story", FORGERIES)
def test_a_value_cannot_forge_a_line_for_machines(story: str) -> None:
    log, value = start(), FORGERIES[story]
    structlog.contextvars.bind_contextvars(request_id=value)
    structlog.get_logger().info(value, path=value, nested=[{value: value}])
    [line] = log.lines
    assert line["event"] == line["path"] == line["request_id"] == value
    assert line["nested"] == [{value: value}]
    assert line["level"] == "info"


@pytest.mark.parametrize("story", FORGERIES)
def test_a_value_cannot_forge_a_line_for_people(story: str) -> None:
    log, value = start("console"), FORGERIES[story]
    structlog.contextvars.bind_contextvars(request_id=value)
    structlog.get_logger().info(value, path=value, nested=[{value: value}])
    written = log.raw.decode()
    assert written.endswith("\n")
    assert written[:-1].isprintable()


def test_people_read_ordinary_text_as_it_is() -> None:
    log = start("console")
    structlog.get_logger().info("bereit für dich", url="http://127.0.0.1:8081")
    assert "bereit für dich" in log.raw.decode()
    assert "url=http://127.0.0.1:8081" in log.raw.decode()


ODD: dict[str, Any] = {
    "a lone surrogate": "\ud800",
    "a file name that is not UTF-8": b"\xff".decode("utf-8", "surrogateescape"),
    "a large integer": 2**70,
    "keys that are numbers": {1: 2},
    "keys that are tuples": {(1, 2): 3},
    "a surrogate deep inside": [{"a": ["\udfff"]}],
    "an object": object(),
    "bytes": b"\xff",
    "a secret": Secret("hunter2"),
    "an infinity": float("inf"),
}


@pytest.mark.parametrize("story", ODD)
def test_no_value_is_too_odd_to_be_logged(story: str) -> None:
    """A line that cannot be written must not fail what it tells of."""
    log = start()
    structlog.get_logger().info("event", value=ODD[story], after=1)
    [line] = log.lines
    assert (line["event"], line["after"], line["level"]) == ("event", 1, "info")
    assert b"hunter2" not in log.raw
    log = start("console")
    structlog.get_logger().info("event", value=ODD[story], after=1)
    assert b"after=1" in log.raw
    assert b"hunter2" not in log.raw


@STEADY
@given(st.text(), st.text(st.characters()) | json_values)
def test_whatever_is_logged_is_one_line_with_our_level(event: str, value: object) -> None:
    log = start()
    structlog.get_logger().error(event, value=value)
    [line] = log.lines
    assert (line["level"], line["event"], line["value"]) == ("error", event, value)


# -- the client's lines


def client_log() -> tuple[logging.Logger, Log]:
    log = Log()
    logger = logging.Logger("client")  # noqa: LOG001  of its own: not in the process's tree
    logger.addHandler(JsonLines(log.stream))
    return logger, log


def test_the_clients_line_has_its_fields() -> None:
    logger, log = client_log()
    logger.info("not this", extra={"fields": {"event": "applied", "revision": 3}})
    [line] = log.lines
    assert (line["event"], line["revision"], line["level"]) == ("applied", 3, "info")
    assert datetime.fromisoformat(line["timestamp"])


@pytest.mark.parametrize("story", FORGERIES)
def test_a_librarys_line_becomes_one_of_ours_and_forges_none(story: str) -> None:
    logger, log = client_log()
    logger.critical("said %s", FORGERIES[story])
    [line] = log.lines
    assert line["event"] == f"said {FORGERIES[story]}"


@pytest.mark.parametrize("story", ODD)
def test_no_value_is_too_odd_for_the_client(story: str) -> None:
    logger, log = client_log()
    logger.info("x", extra={"fields": {"event": "applied", "value": ODD[story]}})
    assert [line["event"] for line in log.lines] == ["applied"]
