"""People and programs at a real server, by its commands: tokens made, used, listed, revoked."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.kit.processes import TOKEN, Processes, Server
from tests.kit.shell import InProcess


class Operator:
    """The commands against one server."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def run(self, *command: str, token: str = TOKEN) -> tuple[int, str]:
        ended = InProcess(self.server, token).run(*command)
        return ended.code, ended.said.rstrip("\n")

    def json(self, *command: str, token: str = TOKEN) -> Any:
        code, text = self.run(*command, "--json", token=token)
        assert code == 0, text
        return json.loads(text)


@pytest.fixture(scope="module")
def operator(module_shop: tuple[Processes, Path]) -> Operator:
    processes, directory = module_shop
    return Operator(processes.server(directory / "data", "none:"))


CI = ("token", "create", "--name", "ci", "--role", "write", "--services", "d*", "--expires", "90d")


def test_a_token_is_made_used_listed_and_revoked_at_once(operator: Operator) -> None:
    made = operator.json(*CI)
    assert (made["services"], made["role"]) == (["d*"], "write")
    headers = {"Authorization": f"Bearer {made['token']}"}
    assert operator.server.put("door", {"a": 1}, headers=headers).json()["updated_by"] == "ci"
    assert operator.server.put("router", {}, headers=headers).status_code == 403
    code, text = operator.run("token", "list")
    assert code == 0
    assert [line.split()[:3] for line in text.splitlines()] == [
        ["NAME", "ROLE", "SERVICES"],
        ["bootstrap", "admin", "every"],
        ["ci", "write", "d*"],
    ]
    assert operator.run(*CI)[0] == 7
    assert operator.run("token", "list", token=made["token"])[0] == 5
    code, text = operator.run("token", "revoke", "ci", "--reason", "he left")
    assert (code, text) == (0, "ci is revoked: the next request with its token is refused")
    assert operator.server.put("door", {}, headers=headers).status_code == 401
    assert operator.run("token", "revoke", "ci")[0] == 6


def test_a_token_for_a_file_is_only_in_that_file(operator: Operator, tmp_path: Path) -> None:
    path = tmp_path / "token"
    command = ("token", "create", "--name", "box", "--role", "read", "--out", str(path))
    code, text = operator.run(*command)
    token = path.read_text().strip()
    assert code == 0
    assert token not in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    headers = {"Authorization": f"Bearer {token}"}
    assert operator.server.get("/api/v1/config", headers=headers).status_code == 200
    assert operator.run(*command)[0] == 2, "a file that is there is not written over"
    other = tmp_path / "other"
    assert operator.run(*command[:-1], str(other))[0] == 7
    assert not other.exists()


def test_a_refusal_says_in_the_log_who_and_from_where(operator: Operator) -> None:
    made = operator.json("token", "create", "--name", "looker", "--role", "read")
    server = operator.server
    for name, token, by, error in (
        ("known", made["token"], "looker", "forbidden"),
        ("unknown", "a-guess", "anonymous", "not-authenticated"),
    ):
        server.put("door", {}, headers={"Authorization": f"Bearer {token}", "X-Request-ID": name})
        line = server.process.event("request", request_id=name)
        assert (line["by"], line["error"], line["client"]) == (by, error, "127.0.0.1")


def test_who_came_and_who_was_refused_is_written_down_at_the_latest_when_stopping(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    server = processes.server(directory / "data", "none:")
    operator = Operator(server)
    token = operator.json("token", "create", "--name", "ci", "--role", "read")["token"]
    server.process.event("request", status=201)
    headers = {"Authorization": f"Bearer {token}"}
    assert server.put("door", {}, headers=headers).status_code == 403
    assert server.stop() == 0
    assert server.process.event("administered", action="access.refused")["by"] == "ci"
    server.start()
    shown = {one["name"]: one for one in operator.json("token", "list")["tokens"]}
    assert shown["ci"]["last_used_at"] is not None


def test_no_line_of_the_log_shows_a_token(operator: Operator) -> None:
    made = operator.json("token", "create", "--name", "quiet", "--role", "read")
    operator.run("token", "list", token=made["token"])
    log = "\n".join(operator.server.process.text)
    assert '"administered"' in log
    assert made["token"] not in log
    assert TOKEN not in log
