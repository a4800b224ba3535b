"""`config-manager init` and, on the day the keys are lost, `config-manager recover`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kit.processes import COMMAND, Processes

RECOVERY_KEY = re.compile(r"\b(?:[0-9A-HJKMNP-TV-Z]{4}-){13}[0-9A-HJKMNP-TV-Z]{4}\b")


def run(*arguments: str, stdin: str = "") -> tuple[int, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CONFIG_MANAGER_")}
    done = subprocess.run(
        [COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=clean,
    )
    return done.returncode, done.stdout + done.stderr


def files_of(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_init_makes_what_a_first_start_makes_and_the_start_goes_on_with_it(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    data = directory / "data"
    code, said = run("init", "--data-dir", str(data))
    assert code == 0, said
    assert len(RECOVERY_KEY.findall(said)) == 1
    made = files_of(data)
    started = processes.server(directory / "other", "none:")
    assert started.stop() == 0
    # a server that ran keeps a second generation of its cache; this one was given its token
    without = {"config.lkg.previous", "recovery.sealed", "keys/admin.token"}
    assert made.keys() - without == files_of(directory / "other").keys() - without
    for path in (data / "keys").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.read_text().strip() not in said
    server = processes.server(data, "none:")
    after = files_of(data)
    for name, content in made.items():
        if name.startswith(("keys/", "trust/")):
            assert after[name] == content, name
    assert server.put("one", {"a": 1}).status_code == 201
    assert not RECOVERY_KEY.search("\n".join(server.process.text))


def test_the_recovery_key_is_shown_once(shop: tuple[Processes, Path]) -> None:
    _, directory = shop
    data = str(directory / "data")
    first = RECOVERY_KEY.findall(run("init", "--data-dir", data)[1])
    before = files_of(directory / "data")
    code, said = run("init", "--data-dir", data)
    assert code == 0
    assert not RECOVERY_KEY.search(said)
    assert files_of(directory / "data") == before
    code, said = run("init", "--data-dir", data, "--new-recovery-key")
    assert code == 0
    assert RECOVERY_KEY.findall(said) != first
    assert first[0].encode() not in b"".join(files_of(directory / "data").values())


def test_a_data_directory_that_was_only_ever_served_gets_its_recovery_key_by_init(
    shop: tuple[Processes, Path],
) -> None:
    processes, directory = shop
    server = processes.server(directory / "data", "none:")
    assert run("init", "--data-dir", str(server.data_dir))[0] == 4
    assert server.stop() == 0
    code, said = run("init", "--data-dir", str(server.data_dir))
    assert code == 0
    assert RECOVERY_KEY.search(said)


def test_the_day_the_keys_are_lost(shop: tuple[Processes, Path]) -> None:
    """A backup without keys/, the paper with the recovery key, another machine."""
    processes, directory = shop
    data, note = directory / "data", directory / "paper"
    code, said = run("init", "--data-dir", str(data), "--recovery-key-file", str(note))
    assert code == 0
    assert note.stat().st_mode & 0o777 == 0o600
    assert note.read_text().strip() not in said
    server = processes.server(data, "none:")
    server.put("one", {"a": 1})
    body = {"service": "one", "name": "pin", "value": "conspicuous"}
    assert server.http.post("/api/v1/secrets", json=body).status_code == 201
    answer = server.http.post("/api/v1/trust/rotate", json={"role": "config"})
    assert answer.status_code in (200, 201), answer.text
    root = server.get("/api/v1/trust/root").content
    assert server.stop() == 0
    server = processes.server(data, "none:")  # the keys that came since are sealed by a start
    assert server.stop() == 0

    restored = directory / "restored"
    shutil.copytree(data, restored, ignore=shutil.ignore_patterns("keys"))
    shutil.rmtree(data)
    assert run("serve", "--data-dir", str(restored), "--bind", "127.0.0.1:0")[0] == 3
    code, said = run("recover", "--data-dir", str(restored), stdin=note.read_text())
    assert code == 0, said
    assert "db.key" in said
    server = processes.server(restored, "none:")
    assert server.get("/api/v1/config/one").json()["config"]["a"] == 1
    shown = server.http.post("/api/v1/secrets/one/pin/reveal", json={"reason": "a test"})
    assert shown.json()["value"] == "conspicuous"
    assert server.get("/api/v1/trust/root").content == root
    assert server.put("one", {"a": 2}).status_code == 200
    assert server.stop() == 0
    code, said = run("recover", "--data-dir", str(restored), stdin=note.read_text())
    assert (code, "nothing changed" in said) == (0, True)


@pytest.fixture
def lost(shop: tuple[Processes, Path]) -> tuple[Path, str]:
    """A data directory whose keys are gone, and its recovery key."""
    _, directory = shop
    data, note = directory / "data", directory / "paper"
    assert run("init", "--data-dir", str(data), "--recovery-key-file", str(note))[0] == 0
    shutil.rmtree(data / "keys")
    return data, note.read_text()


def test_a_mistyped_and_a_foreign_recovery_key_bring_nothing_back(lost: tuple[Path, str]) -> None:
    data, key = lost
    other = data.parent / "other"
    shown = RECOVERY_KEY.findall(run("init", "--data-dir", str(other))[1])[0]
    mistyped = ("1" if key[0] != "1" else "2") + key[1:]
    for wrong, why in ((mistyped, "mistyped"), (shown, "not the one"), ("", "mistyped")):
        code, said = run("recover", "--data-dir", str(data), stdin=wrong)
        assert (code, why in said) == (5, True), said
        assert not (data / "keys").exists()


def test_keys_that_are_there_and_are_others_stay_as_they_are(lost: tuple[Path, str]) -> None:
    data, key = lost
    (data / "keys").mkdir(mode=0o700)
    (data / "keys" / "db.key").write_text("0" * 64)
    code, said = run("recover", "--data-dir", str(data), stdin=key)
    assert (code, "another key" in said) == (7, True), said
    assert [path.name for path in (data / "keys").iterdir()] == ["db.key"]


def test_without_a_sealed_file_it_says_what_is_missing(lost: tuple[Path, str]) -> None:
    data, key = lost
    (data / "recovery.sealed").unlink()
    code, said = run("recover", "--data-dir", str(data), stdin=key)
    assert (code, "recovery.sealed" in said) == (6, True)


def test_a_recovery_key_file_that_exists_is_not_written_over(shop: tuple[Processes, Path]) -> None:
    _, directory = shop
    note = directory / "paper"
    note.write_text("something")
    data = directory / "data"
    assert run("init", "--data-dir", str(data), "--recovery-key-file", str(note))[0] == 2
    assert not data.exists()
    assert note.read_text() == "something"
