"""The audit of a real server, verified three ways while somebody with the key edits its database."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from config_manager.config import strict_json, wire
from config_manager.config.audit import chain
from config_manager.config.documents.beacon import Beacon
from config_manager.config.sealed_file import derive_key
from config_manager.storage.sql import database
from config_manager.storage.witness import _mac
from tests.kit.processes import MOSQUITTO, TOKEN, Processes, Server, listening
from tests.kit.shell import in_process

KEEPALIVE = "system/keepalive/config-manager"


class Auditor:
    """A data directory, its server, the commands, and a hand with the database's key."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.data = server.data_dir

    def run(self, *command: str) -> tuple[int, str]:
        ended = in_process("audit", *command, CONFIG_MANAGER_TOKEN=TOKEN)
        return ended.code, ended.said.rstrip("\n")

    def ask(self, *command: str) -> tuple[int, str]:
        return self.run(*command, "--url", self.server.url)

    def stopped(self, *more: str, data: Path | None = None) -> tuple[int, str]:
        return self.run("verify", "--data-dir", str(data or self.data), *more)

    def of_file(self, file: Path, root: Path | None = None) -> tuple[int, str]:
        root = root or self.data / "trust" / "root.json"
        return self.run("verify", "--file", str(file), "--root", str(root))


def sql(data: Path, *statements: str) -> list[tuple[Any, ...]]:
    """What the last of them answers."""
    rows: list[tuple[Any, ...]] = []
    key = bytes.fromhex((data / "keys" / "db.key").read_text())
    with closing(database.connect(data / "config.db", key)) as connection:
        for statement in statements:
            rows = connection.execute(statement).fetchall()
    return rows


def rewrite(data: Path, first: int) -> None:
    """Another author from this row on, every hash and the counter made to fit."""
    key = bytes.fromhex((data / "keys" / "db.key").read_text())
    with closing(database.connect(data / "config.db", key)) as connection:
        rows = connection.execute("SELECT seq, body, hash FROM audit ORDER BY seq").fetchall()
        previous = rows[first - 2][2]
        for seq, body, _ in rows[first - 1 :]:
            edited = strict_json.dumps({**json.loads(body), "by": "mallory", "previous": previous})
            previous = chain(previous, edited)
            connection.execute(
                "UPDATE audit SET body = ?, hash = ? WHERE seq = ?", (edited, previous, seq)
            )
        connection.execute("UPDATE counters SET audit_head = ?", (previous,))


@pytest.fixture(scope="module")
def auditor(module_shop: tuple[Processes, Path]) -> Auditor:
    """A stopped server with ten rows in its audit, and an export of them."""
    processes, directory = module_shop
    server = processes.server(directory / "data", "none:")
    auditor = Auditor(server)
    for number in range(9):
        server.put("door", {"n": number}, params={"reason": f"because {number}"})
    code, text = auditor.ask("export", "--out", str(directory / "export.jsonl"))
    assert code == 0, text
    assert server.stop() == 0
    return auditor


@pytest.fixture
def copy(auditor: Auditor, tmp_path: Path) -> Path:
    """A copy of the stopped data directory, for one test to spoil."""
    shutil.copytree(auditor.data, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def export(auditor: Auditor, tmp_path: Path) -> Path:
    return Path(shutil.copy(auditor.data.parent / "export.jsonl", tmp_path / "export.jsonl"))


# ── the server ─────────────────────────────────────────────────────────────────────────────────


def test_the_running_server_lists_verifies_and_names_a_row_that_somebody_edits(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    server = processes.server(directory / "data", "none:")
    auditor = Auditor(server)
    for number in range(5):
        server.put("door", {"n": number}, params={"reason": f"because {number}"})
    code, text = auditor.ask("list", "--last", "2")
    lines = text.splitlines()
    assert (code, len(lines)) == (0, 3)
    assert lines[2].split()[0] == "6"
    assert lines[2].split()[3:] == ["bootstrap", "127.0.0.1", "put", "door:", "n", "because", "4"]
    code, text = auditor.ask("list", "--after", "0", "--json")
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["seq"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[3]["body"]["by"] == "bootstrap"
    code, text = auditor.ask("verify")
    assert (code, text.splitlines()[0][:6], rows[5]["hash"] in text) == (0, "6 rows", True)
    assert auditor.ask("verify", "--contains", rows[2]["hash"])[0] == 0
    assert auditor.ask("verify", "--contains", "0" * 64)[0] == 5
    sql(server.data_dir, "UPDATE audit SET body = CAST(body || ' ' AS BLOB) WHERE seq = 4")
    code, text = auditor.ask("verify")
    assert (code, "row 4 (altered)" in text) == (5, True)
    code, text = auditor.ask("verify", "--json")
    verdict = json.loads(text.splitlines()[0])
    assert (code, verdict["ok"], verdict["problem"]["seq"]) == (5, False, 4)
    assert auditor.stopped()[0] == 4, "its data directory is in use"
    out = directory / "export.jsonl"
    code, text = auditor.ask("export", "--out", str(out))
    assert (code, "nothing is exported" in text) == (5, True)
    assert not list(directory.glob("export*"))


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
def test_the_beacons_carry_the_head_that_verify_compares_with(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    broker = processes.broker(directory / "broker")
    server = processes.server(directory / "data", broker.url)
    auditor = Auditor(server)

    with listening(broker.port, KEEPALIVE) as listener:

        def beacon(fits: Callable[[Beacon], bool]) -> Beacon:
            def inside(payload: bytes) -> Beacon | None:
                envelope = json.loads(payload)["data"].get("beacon")
                if envelope is None:
                    return None
                return Beacon.parse(wire.envelope_from_object(envelope).payload)

            found = listener.message(
                KEEPALIVE, lambda data: (b := inside(data)) is not None and fits(b)
            )
            made = inside(found)
            assert made is not None
            return made

        first = beacon(lambda _: True)
        body = {"name": "ci", "role": "read"}
        assert server.http.post("/api/v1/tokens", json=body).status_code == 201
        second = beacon(lambda b: b.audit_head != first.audit_head)
        assert (first.revision, second.revision) == (0, 0), "an administration is no revision"
        assert auditor.ask("verify", "--contains", second.audit_head)[0] == 0
        code, text = auditor.ask("verify", "--contains", first.audit_head, "--json")
        assert (code, json.loads(text)["head"]) == (0, second.audit_head)
        rewrite(server.data_dir, 2)
        code, text = auditor.ask("verify")
        assert (code, "head" in text) == (5, True)
        third = beacon(lambda b: b.order > second.order)
        assert third.audit_head == second.audit_head, "what was edited is never signed"
    assert server.stop() == 0
    code, text = auditor.stopped("--contains", second.audit_head)
    assert code == 5


# ── a stopped data directory ───────────────────────────────────────────────────────────────────


def test_a_stopped_data_directory_verifies_and_is_left_as_it_was(
    auditor: Auditor, copy: Path
) -> None:
    before = (copy / "config.db").read_bytes()
    code, text = auditor.stopped(data=copy)
    assert code == 0, text
    assert text.splitlines()[0].startswith("10 rows")
    assert "instance.json" in text
    assert (copy / "config.db").read_bytes() == before


def test_one_that_was_killed_verifies_too(shop: tuple[Processes, Path]) -> None:
    processes, directory = shop
    server = processes.server(directory / "data", "none:")
    auditor = Auditor(server)
    for number in range(5):
        server.put("door", {"n": number})
    server.kill()
    assert (directory / "data" / "config.db-wal").stat().st_size > 0
    code, text = auditor.stopped()
    assert (code, text.splitlines()[0][:6]) == (0, "6 rows"), text


@pytest.mark.parametrize(
    ("statements", "says"),
    [
        (["UPDATE audit SET body = CAST(replace(body, 'because', 'no cause') AS BLOB) WHERE seq = 4"], "row 4 (altered)"),
        (["UPDATE audit SET hash = printf('%064d', 0) WHERE seq = 10"], "row 10 (altered)"),
        (["DELETE FROM audit WHERE seq = 5"], "row 5 (removed)"),
        (
            ["DELETE FROM audit WHERE seq = 5"]
            + [f"UPDATE audit SET seq = {n - 1} WHERE seq = {n}" for n in range(6, 11)]
            + ["UPDATE counters SET audit_seq = 9"],
            "row 5 (removed)",
        ),
        (
            [
                "DELETE FROM audit WHERE seq > 7",
                "UPDATE counters SET audit_seq = 7",
                "UPDATE counters SET audit_head = (SELECT hash FROM audit WHERE seq = 7)",
            ],
            "row 8 (removed)",
        ),
        (
            ["UPDATE audit SET seq = -seq WHERE seq IN (3, 6)"]
            + ["UPDATE audit SET seq = 6 WHERE seq = -3", "UPDATE audit SET seq = 3 WHERE seq = -6"],
            "row 3 (reordered)",
        ),
        (["UPDATE counters SET audit_head = 'x'"], "row 10 (head)"),
    ],
)  # fmt: skip
def test_an_edit_in_a_stopped_data_directory_is_found_and_named(
    auditor: Auditor, copy: Path, statements: list[str], says: str
) -> None:
    sql(copy, *statements)
    code, text = auditor.stopped(data=copy)
    assert (code, says in text) == (5, True), text


def test_an_audit_that_was_rewritten_to_fit_is_not_the_one_that_the_witness_noted(
    auditor: Auditor, copy: Path
) -> None:
    rewrite(copy, 4)
    code, text = auditor.stopped(data=copy)
    assert (code, "row 10 (head): instance.json knows another row 10" in text) == (5, True), text
    (copy / "instance.json").unlink()
    code, text = auditor.stopped(data=copy)
    assert (code, "its end was not written by this server" in text) == (5, True), text
    kept = json.loads((auditor.data.parent / "export.jsonl").read_text().splitlines()[-1])["hash"]
    assert auditor.stopped("--contains", kept, data=copy)[0] == 5, "but who kept a head does"


def test_what_can_not_be_opened_is_exit_3_and_changes_nothing(
    auditor: Auditor, copy: Path, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.key"
    wrong.write_text("ab" * 32)
    wrong.chmod(0o600)
    assert auditor.stopped("--db-key-file", str(wrong), data=copy)[0] == 3
    assert auditor.stopped(data=tmp_path / "nothing")[0] == 3
    assert not (tmp_path / "nothing").exists()
    value = json.loads((copy / "instance.json").read_text())
    (copy / "instance.json").write_text(json.dumps({**value, "audit_seq": 4}))
    assert auditor.stopped(data=copy)[0] == 3
    (copy / "config.db").write_bytes(b"")
    assert auditor.stopped(data=copy)[0] == 3
    assert (copy / "config.db").read_bytes() == b""


def test_a_witness_forged_without_its_key_is_refused(auditor: Auditor, copy: Path) -> None:
    rewrite(copy, 4)
    ((seq, head),) = sql(copy, "SELECT audit_seq, audit_head FROM counters")
    value = json.loads((copy / "instance.json").read_text())
    del value["mac"]
    value |= {"audit_seq": seq, "audit_head": head}
    mac = _mac(derive_key(b"g" * 32, "instance-witness"), value)
    (copy / "instance.json").write_text(json.dumps({**value, "mac": mac.hex()}))
    assert auditor.stopped(data=copy)[0] == 3


# ── an export ──────────────────────────────────────────────────────────────────────────────────


def test_an_export_verifies_anywhere_with_the_root_alone(auditor: Auditor, export: Path) -> None:
    assert stat.S_IMODE((auditor.data.parent / "export.jsonl").stat().st_mode) == 0o600
    code, text = auditor.of_file(export)
    assert code == 0, text
    assert text.startswith("10 rows")
    assert "bootstrap exported it at" in text
    lines = export.read_text().splitlines()
    assert json.loads(json.loads(lines[4])["body"])["reason"] == "because 2"


def edited(export: Path, edit: Callable[[list[str]], object]) -> None:
    lines = export.read_text().splitlines(keepends=True)
    edit(lines)
    export.write_text("".join(lines))


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda lines: lines.__setitem__(4, lines[4].replace("because", "no cause")), "row 4 (altered)"),
        (lambda lines: lines.pop(6), "row 6 (removed)"),
        (lambda lines: lines.pop(), "row 10 (removed)"),
        (lambda lines: lines.insert(3, lines.pop(8)), "row 3 (reordered)"),
        (lambda lines: lines.append(lines[10]), "row 10 (reordered)"),
        (lambda lines: lines.__setitem__(7, "{}\n"), "line 8 of the export"),
        (lambda lines: lines.__setitem__(7, "[" * 100_000 + "\n"), "line 8 of the export"),
        (lambda lines: lines.pop(0), "the first line, the export's signed end"),
        (lambda lines: lines.clear(), "the first line, the export's signed end"),
        (
            lambda lines: lines.__setitem__(
                0, lines[0].replace('"payload":"', '"payload":"e30')
            ),
            "the first line, the export's signed end",
        ),
    ],
)  # fmt: skip
def test_an_edit_in_an_export_is_found_and_named(
    auditor: Auditor, export: Path, edit: Callable[[list[str]], object], says: str
) -> None:
    edited(export, edit)
    code, text = auditor.of_file(export)
    assert (code, says in text) == (5, True), text


def test_an_export_of_another_publisher_is_refused(
    auditor: Auditor, export: Path, shop: tuple[Processes, Path]
) -> None:
    processes, directory = shop
    other = processes.server(directory / "other", "none:")
    code, text = auditor.of_file(export, other.data_dir / "trust" / "root.json")
    assert (code, "unknown-key" in text) == (5, True)


def test_an_export_is_not_written_over_a_file_and_also_goes_to_a_pipe(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    server = processes.server(directory / "data", "none:")
    auditor = Auditor(server)
    server.put("door", {"bell": "ä\u2028"})
    (directory / "there").write_text("mine")
    assert auditor.ask("export", "--out", str(directory / "there"))[0] == 2
    assert (directory / "there").read_text() == "mine"
    code, text = auditor.ask("export")
    assert code == 0
    (directory / "piped").write_text(text + "\n")
    assert auditor.of_file(directory / "piped")[0] == 0


@pytest.mark.parametrize(
    "options", [["--file", "a"], ["--root", "a"], ["--data-dir", ".", "--file", "a", "--root", "b"]]
)
def test_options_that_do_not_go_together_are_exit_2(auditor: Auditor, options: list[str]) -> None:
    assert auditor.run("verify", *options)[0] == 2
