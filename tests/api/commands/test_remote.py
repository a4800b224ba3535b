"""The operator commands' REST client against servers of every kind, and what the command prints."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from config_manager.api.commands.options import read_token
from config_manager.api.commands.output import clean
from config_manager.api.commands.remote import Server
from config_manager.api.commands.status import status
from config_manager.api.main import cli
from config_manager.api.rest.problems import problem
from config_manager.config.errors import (
    DESCRIPTIONS,
    ConfigManagerError,
    FieldError,
    InvalidValues,
    RevisionConflict,
    ServerSays,
    ServerUnreachable,
    SettingsInvalid,
)


class Fake:
    """A server that answers every request the same, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body: bytes | None = b"{}"
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {k.lower(): v for k, v in self.headers.items()}
                fake.asked.append((self.command, self.path, headers, body))
                if fake.body is None:
                    return  # hang up
                self.send_response(fake.status)
                for name, value in fake.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(fake.body)))
                self.end_headers()
                self.wfile.write(fake.body)

            do_GET = do_PUT = do_POST = do_DELETE = _answer

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    def answers(self, value: Any, status: int = 200, **headers: str) -> None:
        self.body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.status, self.headers = status, headers

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def fake() -> Iterator[Fake]:
    server = Fake()
    yield server
    server.close()


def instance(**fields: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "service": "stt-worker",
        "instance": "kitchen",
        "enrolled": False,
        "wanted": {"revision": 7, "digest": "a"},
        "running": {"epoch_seq": 1, "revision": 7, "digest": "a"},
        "in_sync": True,
        "state": "claimed",
        "why": "it is not enrolled",
        "state_since": "2026-01-01T00:00:00.000Z",
        "since": "2026-01-01T00:00:00.000Z",
        "received_at": "2026-01-01T00:00:00.000Z",
        "freshness": "fresh",
        "source": "broker",
        "overrides": [],
        "last_attempt": {"revision": 7, "stage": "healthy", "reason": None},
        "library": "a test",
        "gone": False,
        "correlation_id": "change-7",
    }
    return {**values, **fields}


def run(fake: Fake, *options: str) -> Result:
    return CliRunner().invoke(
        status, ["--url", fake.url, *options], env={"CONFIG_MANAGER_TOKEN": ""}
    )


# ── asking ─────────────────────────────────────────────────────────────────────────────────────


def test_a_request_carries_token_query_and_body(fake: Fake) -> None:
    fake.answers({"n": 1}, 201, ETag='"7"')
    reply = Server(fake.url + "/", "s3cret").ask(
        "PUT",
        *("api", "a/b ?c"),
        query={"wait": "confirmed", "timeout": None},
        body={"k": "ü"},
        headers={"If-Match": '"6"'},
    )
    assert (reply.status, reply.value, reply.headers["etag"]) == (201, {"n": 1}, '"7"')
    ((method, path, headers, body),) = fake.asked
    assert (method, path) == ("PUT", "/api/a%2Fb%20%3Fc?wait=confirmed")
    assert (headers["authorization"], headers["if-match"]) == ("Bearer s3cret", '"6"')
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == {"k": "ü"}


def test_without_a_token_none_is_sent(fake: Fake) -> None:
    Server(fake.url, None).get("a")
    assert "authorization" not in fake.asked[0][2]


def test_a_redirect_is_not_followed(fake: Fake) -> None:
    fake.answers(b"", 302, Location=fake.url + "/elsewhere")
    with pytest.raises(ServerSays, match="302"):
        Server(fake.url, "s3cret").get("a")
    assert len(fake.asked) == 1


@pytest.fixture
def through(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """A proxy that the environment names for every host."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", fake.url)
    return fake


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "LOCALHOST", "127.0.0.2", "[::1]", "0.0.0.0", "[::]"]
)
def test_the_token_of_a_server_on_this_machine_is_shown_to_no_proxy(
    through: Fake, host: str
) -> None:
    nobody = Server(f"http://{host}:9", "s3cret")
    with pytest.raises(ServerUnreachable):
        nobody.get("a")
    with pytest.raises(ServerUnreachable):
        nobody.health()
    assert through.asked == []


def test_a_server_elsewhere_is_asked_as_the_environment_says(
    through: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = Server("http://config-manager.invalid:8081", "s3cret")
    assert elsewhere.get("a") == {}
    assert through.asked[0][1] == "http://config-manager.invalid:8081/a"
    monkeypatch.setenv("no_proxy", ".invalid")
    with pytest.raises(ServerUnreachable):
        elsewhere.get("a")


@pytest.mark.parametrize(
    "url",
    ["", "localhost", "localhost:8081", "ftp://a", "file:///etc/passwd", "http://", "http://a:b"]
    + ["http://user:pass@a", "http://a?x=1", "http://a#x", "http://[::1", "http://a:99999"],
)
def test_a_url_that_is_none_is_refused_and_not_printed(url: str) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        Server(url, None)
    assert "pass" not in refused.value.detail


@pytest.mark.parametrize("token", ["", "two words", "a\r\nX-Evil: 1", "ü"])
def test_a_token_that_can_be_none_is_refused_and_not_printed(token: str) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        Server("http://a", token)
    assert not token or token not in refused.value.detail


def test_the_file_wins_over_the_environment(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    (tmp_path / "binary").write_bytes(b"\xff")
    environment = {"CONFIG_MANAGER_TOKEN": "from-environment"}
    assert read_token(tmp_path / "token", environment) == "from-file"
    assert read_token(None, environment) == "from-environment"
    assert read_token(None, {}) is None
    for name in ("nothing", "binary", ""):
        with pytest.raises(SettingsInvalid, match="--token-file"):
            read_token(tmp_path / name, environment)


# ── answers ────────────────────────────────────────────────────────────────────────────────────

_OF_THE_SERVER = [
    kind for kind in DESCRIPTIONS if kind not in (RevisionConflict, ConfigManagerError)
]


@pytest.mark.parametrize("kind", _OF_THE_SERVER)
def test_a_problem_ends_the_command_as_the_error_it_was_there(
    fake: Fake, kind: type[ConfigManagerError]
) -> None:
    error: Any = ServerSays("words", "server-says", 500) if kind is ServerSays else kind("words")
    fake.answers(problem(error, "id").body, error.description.status)
    with pytest.raises(ServerSays) as said:
        Server(fake.url, None).get("a")
    assert said.value.description.exit_code == DESCRIPTIONS[kind].exit_code
    assert said.value.description.name == DESCRIPTIONS[kind].name
    assert said.value.detail == "words" or said.value.status == 401


def test_each_wrong_field_is_named(fake: Fake) -> None:
    error = InvalidValues("two are wrong", [FieldError("/a", "too large"), FieldError("/b", "no")])
    fake.answers(problem(error, "id").body, 422)
    with pytest.raises(ServerSays) as said:
        Server(fake.url, None).get("a")
    assert said.value.detail == "two are wrong\n  /a: too large\n  /b: no"


def test_a_problem_that_only_a_newer_server_knows_ends_as_its_status_says(fake: Fake) -> None:
    for code, exit_code in ((401, 5), (403, 5), (404, 6), (412, 7), (422, 2), (503, 1), (418, 1)):
        fake.answers({"type": "/problems/new", "detail": "words"}, code)
        with pytest.raises(ServerSays) as said:
            Server(fake.url, None).get("a")
        assert (said.value.description.name, said.value.description.exit_code) == ("new", exit_code)


def test_an_unknown_token_and_none_are_told_apart(fake: Fake) -> None:
    fake.answers({"type": "/problems/not-authenticated", "detail": "words"}, 401)
    for token, text in ((None, "--token-file"), ("s3cret", "does not know this token")):
        with pytest.raises(ServerSays, match=text):
            Server(fake.url, token).get("a")


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"", b"[]", b"3", b"{}", b'{"type":3,"detail":4}', b"\xff", b'{"type":"a"}']
    + [b'{"type":"a","detail":"b","errors":[1]}', b'{"type":"a","detail":4}'],
)
def test_an_error_that_is_no_problem_document_is_still_an_error(fake: Fake, body: bytes) -> None:
    fake.answers(body, 502)
    with pytest.raises(ServerSays, match="502") as said:
        Server(fake.url, None).get("a")
    assert said.value.description.exit_code == 1


@pytest.mark.parametrize("body", [b"<html>", b"", b"\xff"])
def test_an_answer_that_is_no_json_comes_from_somebody_else(fake: Fake, body: bytes) -> None:
    fake.answers(body)
    with pytest.raises(ServerUnreachable, match="no config-manager"):
        Server(fake.url, None).get("a")


def test_no_answer_says_what_to_do(fake: Fake) -> None:
    fake.body = None
    with pytest.raises(ServerUnreachable, match="config-manager serve"):
        Server(fake.url, None).get("a")
    for url in ("http://127.0.0.1:9", "http://ä..b"):
        with pytest.raises(ServerUnreachable, match="--url"):
            Server(url, None, timeout_s=5).get("a")


# ── what people see ────────────────────────────────────────────────────────────────────────────


def test_a_table_for_people(fake: Fake) -> None:
    fake.answers(
        {
            "instances": [
                instance(),
                instance(
                    instance="long-name",
                    in_sync=False,
                    running=None,
                    enrolled=True,
                    state="foreign",
                    why="it runs revision 9",
                ),
                instance(instance="z", in_sync=False, state="silent", gone=True),
            ],
            "refused": 0,
            "next_after": None,
        }
    )
    result = run(fake)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0].split() == "SERVICE INSTANCE WANTED RUNNING STATE SINCE WHY".split()
    assert lines[1].split()[:6] == ["stt-worker", "long-name", "7", "-", "not", "ours"]
    assert lines[2].split()[:5] == ["stt-worker", "z", "7", "7", "silent"]
    assert lines[3].split()[:5] == ["stt-worker", "kitchen", "7", "7", "unproven"]
    assert {line.index("7") for line in lines[1:3]} == {lines[0].index("WANTED")}
    assert lines[-2] == "1 of 3 run what is wanted"
    assert lines[-1].startswith("1 gone; ")
    assert "config-manager devices forget" in lines[-1]


def refused(stage: str, reason: str | None = None) -> dict[str, Any]:
    return {"last_attempt": {"revision": 8, "stage": stage, "reason": reason}, "in_sync": False}


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "not enrolled"),
        ({"enrolled": True, "state": "in-line", "why": "it runs what is wanted"}, ""),
        ({"enrolled": True, "state": "late", "why": "no answer"}, "no answer"),
        ({"state": "silent", "why": "it stopped", "in_sync": False}, "it stopped; not enrolled"),
        ({"from_before": True}, "not heard since the server's start; not enrolled"),
        ({"in_sync": False}, "not there yet; not enrolled"),
        ({"in_sync": False, "wanted": None}, "deleted; it keeps what it ran; not enrolled"),
        (refused("refused", "model: too large"), "refused 8: model: too large; not enrolled"),
        (refused("deferred", "busy"), "deferred 8: busy; not enrolled"),
        (refused("poisoned"), "poisoned 8; not enrolled"),
        (refused("received"), "not there yet; not enrolled"),
        (
            {"last_attempt": {"revision": 8, "stage": "applied", "reason": None, "deaths": 1}},
            "died of 8 within its bake time; not enrolled",
        ),
        ({"overrides": ["a", "b"]}, "its environment decides a, b; not enrolled"),
        ({"source": "last-known-good"}, "not enrolled"),
        (
            {"source": "last-known-good", "freshness": "stale (no-beacon)"},
            "stale (no-beacon); started from what it kept; not enrolled",
        ),
        (
            {"source": "defaults", "running": None, "wanted": None, "last_attempt": None},
            "on its own defaults; not enrolled",
        ),
    ],
)
def test_why_not(fake: Fake, fields: dict[str, Any], why: str) -> None:
    fake.answers({"instances": [instance(**fields)], "refused": 0, "next_after": None})
    header, row, *_ = run(fake).output.splitlines()
    assert row[header.index("WHY") :] == why


def test_what_others_say_does_not_command_the_terminal(fake: Fake) -> None:
    evil = "\x1b[2J\x9b\r\n\u202e"
    attempt = {"revision": 8, "stage": "refused", "reason": evil}
    fake.answers(
        {
            "instances": [instance(freshness=evil, overrides=[evil], last_attempt=attempt)],
            "refused": 0,
            "next_after": None,
        }
    )
    output = run(fake).output
    assert "\\x1b[2J\\x9b\\r\\n\\u202e" in output
    assert all(c.isprintable() or c == "\n" for c in output)
    assert len(output.splitlines()) == 4
    assert clean("é 7\n", keep="\n") == "é 7\n"


def test_json_for_programs(fake: Fake) -> None:
    answer = {"instances": [instance()], "refused": 3}
    fake.answers({**answer, "next_after": None})
    result = run(fake, "--json", "--service", "stt-worker")
    assert json.loads(result.output) == answer
    assert result.output.count("\n") == 1
    assert fake.asked[0][1] == "/api/v1/status?service=stt-worker&limit=500"


def test_nobody_reported_and_garbage_is_said(fake: Fake) -> None:
    fake.answers({"instances": [], "refused": 2, "next_after": None})
    assert run(fake).output.splitlines() == [
        "no instance has reported yet",
        "2 messages on the brokers were no receipts",
    ]


_LIGHT = """
import sys
from config_manager.api.main import cli
import click
for name in cli.list_commands(click.Context(cli)):
    assert cli.get_command(click.Context(cli), name) is not None
    heavy = {"trio", "structlog", "pydantic", "quart", "httpx", "orjson", "nacl", "yaml"} & set(sys.modules)
    assert not heavy, (name, heavy)
"""


def test_a_command_loads_click_and_the_standard_library_alone() -> None:
    """`--help` and completion look at all of them."""
    done = subprocess.run([sys.executable, "-c", _LIGHT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ── another program at the port, another end of the pipe, another alphabet ─────────────────────

COMMANDS = [
    ("get", "door"),
    ("get", "door", "--json"),
    ("set", "door", "a=1"),
    ("history", "door"),
    ("history", "door", "--json"),
    ("diff", "door"),
    ("rollback", "door", "1"),
    ("plan", "--last"),
    ("plan", "--set", "door", "a=1", "--json"),
    ("apply", "--last", "--yes"),
    ("apply", "p-000000000000"),
    ("plans",),
    ("plans", "show", "p-000000000000"),
    ("plans", "delete", "p-000000000000"),
    ("token", "list"),
    ("token", "list", "--json"),
    ("token", "create", "--name", "a", "--role", "read"),
    ("token", "revoke", "a"),
    ("devices", "list", "--json"),
    ("devices", "token", "--service", "a"),
    ("secret", "list", "--json"),
    ("secret", "versions", "a", "b"),
    ("secret", "reveal", "a", "b", "--reason", "r"),
    ("secret", "rotate-key", "--json"),
    ("report", "--at", "2026-01-01T00:00:00Z"),
    ("status",),
    ("status", "--json"),
    ("changes",),
    ("changes", "--json"),
    ("trace", "7"),
    ("trace", "7", "--follow", "--json"),
    ("drift",),
    ("drift", "--since", "7d", "--json"),
    ("trust", "show"),
    ("trust", "rotate", "config", "--json"),
    ("trust", "pending", "--json"),
    ("audit", "list"),
    ("audit", "verify", "--json"),
    ("audit", "export"),
    ("watch",),
    ("watch", "door", "--after", "1", "--json"),
]


@pytest.mark.parametrize(
    "answer", [b"{}", b'{"status":"UP"}', b"null", b"[]", b"1", b'"ok"', b"[" * 5000]
)
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_another_program_at_the_port_is_told_from_ours(
    fake: Fake, command: tuple[str, ...], answer: bytes
) -> None:
    fake.answers(answer)
    environment = {"CONFIG_MANAGER_TOKEN": "t", "CONFIG_MANAGER_URL": fake.url}
    result = CliRunner().invoke(cli, command, env=environment)
    assert isinstance(result.exception, ServerUnreachable), result.output
    assert "no config-manager" in result.exception.detail
    assert result.output == ""


@pytest.mark.parametrize("answer", [b"{}", b'{"status":"UP"}', b"null", b"[]"])
def test_doctor_finds_another_program_at_the_port(fake: Fake, answer: bytes) -> None:
    fake.answers(answer)
    result = CliRunner().invoke(
        cli, ["doctor", "--url", fake.url], env={"CONFIG_MANAGER_TOKEN": ""}
    )
    assert result.exit_code == 5
    assert "✗ server: what answers at" in result.output


def command_line(fake: Fake, *command: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "config_manager.api.main", *command, "--url", fake.url],
        env={"PATH": "/usr/bin:/bin", "CONFIG_MANAGER_TOKEN": "t", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def a_service_with(value: str) -> dict[str, Any]:
    return {"config": {"a": value}, "defaulted": [], "revision": 0}


@pytest.mark.parametrize(
    "command", [("get", "door"), ("get", "door", "a"), ("get", "door", "--json")]
)
def test_a_reader_who_has_read_enough_is_no_error(fake: Fake, command: tuple[str, ...]) -> None:
    fake.answers(a_service_with("x" * 200_000))
    process = command_line(fake, *command)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert (process.wait(20), process.stderr.read()) == (0, b"")
    process.stderr.close()


def test_what_the_output_has_no_character_for_is_shown_escaped(fake: Fake) -> None:
    fake.answers(a_service_with("→ 日本"))
    process = command_line(fake, "get", "door", PYTHONIOENCODING="latin-1")
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, b"")
    assert b"\\u2192 \\u65e5\\u672c" in output


def test_a_value_for_a_script_is_never_another_one(fake: Fake) -> None:
    fake.answers(a_service_with("→"))
    process = command_line(fake, "get", "door", "a", PYTHONIOENCODING="latin-1")
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, output) == (2, b"")
    assert b"PYTHONIOENCODING=utf-8" in errors
    process = command_line(fake, "get", "door", "a", PYTHONIOENCODING="utf-8")
    assert process.communicate(timeout=20)[0] == "→\n".encode()
