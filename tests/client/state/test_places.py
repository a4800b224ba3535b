"""What a start says where it may not read or write: as a real user without rights."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from pydantic_settings import BaseSettings

from config_manager.client.drivers.opening import Options, prepare
from config_manager.client.rules.root_chain import follow_on
from config_manager.client.state.claim import Claim
from config_manager.client.state.identity import keep_root, load_identity, trust_init
from config_manager.client.state.places import default_state_dir, expanded
from config_manager.config.errors import KeyFileUnsafe, SettingsInvalid
from config_manager.config.world import World
from tests.kit import documents as m
from tests.kit import roots as r
from tests.kit.client_story import Settings

UID = 4711
NOBODY_ELSE = "set CONFIG_MANAGER_STATE_DIR to a directory that uid 4711 may write"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")

AS_ANOTHER = """
import os, sys
sys.path[:0] = {path!r}
import pydantic, trio
import config_manager.client.drivers.trio_driver, config_manager.client.commands.client, config_manager.client.commands.enrolling
import config_manager.client.commands.formats, config_manager.config.logging
from config_manager.api.main import main
from config_manager.client import Config
from config_manager.client.testing import FakePublisher
from config_manager.config.errors import ConfigManagerError

class Settings(pydantic.BaseModel):
    n: int = 0

with FakePublisher("warm").open_in_threads(Settings, first_wait_s=0):
    pass
os.chdir("/")
os.setgroups([])
os.setgid({uid})
os.setuid({uid})
{what}
"""
"""All is imported before, because the library may lie where that user reads nothing."""

OPEN = """
try:
    with Config(Settings, service="stt-worker", mqtt_url="none:", env_file=None, first_wait_s=0) as config:
        print("open", config.instance)
except ConfigManagerError as error:
    print(type(error).__name__, error)
"""

CLIENT = "sys.argv = ['config-manager', 'client', *{arguments!r}]\nmain()"


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may pass: the tests' own are root's alone."""
    with TemporaryDirectory(prefix="config-manager-places-") as directory:
        place = Path(directory)
        place.chmod(0o755)
        (place / "root.json").write_bytes(m.root_bytes())
        (place / "root.json").chmod(0o644)
        yield place


def run_as_another(what: str, **environment: object) -> tuple[int, str]:
    given = {name: str(value) for name, value in environment.items()}
    done = subprocess.run(
        [sys.executable, "-c", AS_ANOTHER.format(path=sys.path, uid=UID, what=what)],
        env={"PATH": os.environ["PATH"], **given},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def opened_as_another(**environment: object) -> str:
    code, told = run_as_another(OPEN, **environment)
    assert code == 0
    assert "--state" not in told
    assert "--root" not in told
    return told.strip()


# ── directories and files that are somebody else's ─────────────────────────────────────────────


@as_root
def test_a_state_directory_of_another_user_is_told_with_both_users_and_what_helps(
    place: Path,
) -> None:
    state = place / "state"
    trust_init(state, place / "root.json")
    expected = (
        f"belongs to root (uid 0), this process is uid 4711: chown it, run as that user, or "
        f"{NOBODY_ELSE}"
    )
    told = opened_as_another(CONFIG_MANAGER_STATE_DIR=state)
    assert told == f"SettingsInvalid {state}/root.json can't be read: {state} {expected}"
    # the directory may be passed, and what lies in it not be read: still nobody is sent to pin a root
    state.chmod(0o755)
    told = opened_as_another(CONFIG_MANAGER_STATE_DIR=state)
    assert told == f"SettingsInvalid {state}/root.json can't be read: {state}/root.json {expected}"
    (state / "root.json").chmod(0o644)
    told = opened_as_another(CONFIG_MANAGER_STATE_DIR=state)
    assert told == f"SettingsInvalid {state}/keys/sign.key can't be read: {state}/keys {expected}"
    os.chown(state / "keys", UID, UID)
    told = opened_as_another(CONFIG_MANAGER_STATE_DIR=state)
    assert told.endswith(f"can't be read: {state}/keys/sign.key {expected}")
    for path in (state, *state.rglob("*")):
        os.chown(path, UID, UID)
    assert opened_as_another(CONFIG_MANAGER_STATE_DIR=state).startswith("open ")


@as_root
def test_a_directory_that_cannot_be_written_is_told_where_a_root_is_to_be_pinned(
    place: Path,
) -> None:
    state = place / "state"
    given = {"CONFIG_MANAGER_STATE_DIR": state, "CONFIG_MANAGER_ROOT": place / "root.json"}
    # nothing there: the directory above is root's, and stays so
    assert opened_as_another(**given) == (
        f"SettingsInvalid {state} can't be written: {place} belongs to root (uid 0), "
        f"this process is uid 4711: {NOBODY_ELSE}"
    )
    state.mkdir(0o755)
    assert opened_as_another(**given) == (
        f"SettingsInvalid {state} can't be written: {state} belongs to root (uid 0), this process "
        f"is uid 4711: chown it, run as that user, or {NOBODY_ELSE}"
    )
    os.chown(state, UID, UID)
    state.chmod(0o500)
    assert opened_as_another(**given) == (
        f"SettingsInvalid {state} can't be written: {state} has mode 0500: run chmod u+rwx {state}"
    )
    state.chmod(0o700)
    assert opened_as_another(**given).startswith("open ")


@as_root
def test_a_root_that_cannot_be_read_is_told_and_where_it_comes_from(place: Path) -> None:
    (place / "root.json").chmod(0o600)
    told = opened_as_another(
        CONFIG_MANAGER_STATE_DIR=place / "s", CONFIG_MANAGER_ROOT=place / "root.json"
    )
    assert told.startswith(
        f"SettingsInvalid the trust root {place}/root.json can't be read: {place}/root.json belongs "
        "to root (uid 0), this process is uid 4711: chown it, or run as that user; "
    )
    assert "curl http://server:8081/api/v1/trust/root" in told


@as_root
def test_a_user_without_a_home_is_told_to_name_a_directory(place: Path) -> None:
    assert opened_as_another() == f"SettingsInvalid uid 4711 has no home directory: {NOBODY_ELSE}"
    root = place / "root.json"
    assert opened_as_another(HOME="/", CONFIG_MANAGER_ROOT=root) == (
        "SettingsInvalid /.local/state/config-manager can't be written: / belongs to root (uid 0), "
        f"this process is uid 4711: {NOBODY_ELSE}"
    )
    told = opened_as_another(CONFIG_MANAGER_STATE_DIR="~/state")
    assert told == "SettingsInvalid ~/state: uid 4711 has no such home directory; write it out"


@as_root
@pytest.mark.parametrize(
    "arguments",
    [
        ["get", "--service", "stt-worker"],
        ["run", "--service", "stt-worker", "--mqtt-url", "none:"],
        ["run", "--service", "stt-worker", "--mqtt-url", "none:", "--", "true"],
        ["enroll", "--service", "stt-worker", "--url", "http://127.0.0.1:1", "--token-file", "-"],
        ["trust", "init", "--root", "{}/root.json"],
    ],
    ids=" ".join,
)
def test_the_commands_say_the_same_and_end_with_2(place: Path, arguments: list[str]) -> None:
    state = place / "state"
    trust_init(state, place / "root.json")
    given = [argument.replace("{}", str(place)) for argument in arguments]
    code, told = run_as_another(
        CLIENT.format(arguments=given), CONFIG_MANAGER_STATE_DIR=state, CONFIG_MANAGER_URL=""
    )
    assert code == 2
    assert f"{state} belongs to root (uid 0), this process is uid 4711: chown it" in told


@as_root
def test_what_was_kept_and_cannot_be_read_ends_get_with_2_and_no_token_is_used_for_nothing(
    place: Path,
) -> None:
    state = place / "state"
    trust_init(state, place / "root.json")
    for path in (state, *state.rglob("*")):
        os.chown(path, UID, UID)
    (state / "stt-worker.lkg").touch(0o600)
    where = ["--state", str(state), "--service", "stt-worker"]
    code, told = run_as_another(CLIENT.format(arguments=["get", *where]))
    assert code == 2
    assert f"{state}/stt-worker.lkg belongs to root (uid 0)" in told
    state.chmod(0o500)
    enroll = ["enroll", *where, "--url", "http://127.0.0.1:1", "--token-file", "/none"]
    code, told = run_as_another(CLIENT.format(arguments=enroll))
    assert code == 2
    assert f"{state} has mode 0500: run chmod u+rwx {state}" in told


@as_root
def test_what_root_makes_in_a_services_directory_is_the_services(place: Path) -> None:
    state = place / "state"
    state.mkdir(0o700)
    os.chown(state, UID, UID)
    trust_init(state, place / "root.json")
    keep_root(state, follow_on(load_identity(state).chain[-1], r.root(2)), World())
    assert {path.stat().st_uid for path in state.rglob("*")} == {UID}
    assert opened_as_another(CONFIG_MANAGER_STATE_DIR=state).startswith("open ")


# ── what is not there ──────────────────────────────────────────────────────────────────────────


def test_no_trust_root_says_how_to_name_one_and_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        prepare(Settings, Options(service="a", state_dir=tmp_path), world=World())
    for named in (
        f"{tmp_path} holds no trust root",
        "CONFIG_MANAGER_ROOT",
        "root=",
        "data/trust/root.json",
        "curl http://server:8081/api/v1/trust/root",
        "trust init",
    ):
        assert named in caught.value.detail
    assert "--" not in caught.value.detail


def test_a_root_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"none\.json can't be read: No such file.*curl "):
        trust_init(tmp_path / "state", tmp_path / "none.json")
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("name", ["keys/seal.key", "instance"])
def test_a_file_that_was_lost_is_named_and_what_helps(tmp_path: Path, name: str) -> None:
    (tmp_path / "root.json").write_bytes(m.root_bytes())
    trust_init(tmp_path / "state", tmp_path / "root.json")
    (tmp_path / "state" / name).unlink()
    with pytest.raises(SettingsInvalid, match=f"{name} is missing.*backup.*STATE_DIR"):
        load_identity(tmp_path / "state")


@pytest.mark.parametrize("state", ["file", "file/state"])
def test_a_state_directory_that_is_a_file_is_called_one(tmp_path: Path, state: str) -> None:
    (tmp_path / "root.json").write_bytes(m.root_bytes())
    (tmp_path / "file").touch()
    expected = rf"{tmp_path}/file is no directory: set CONFIG_MANAGER_STATE_DIR"
    with pytest.raises(SettingsInvalid, match=expected):
        load_identity(tmp_path / state)
    with pytest.raises(SettingsInvalid, match=expected):
        trust_init(tmp_path / state, tmp_path / "root.json")


def test_a_key_that_the_group_may_read_is_refused_with_the_command(tmp_path: Path) -> None:
    (tmp_path / "root.json").write_bytes(m.root_bytes())
    trust_init(tmp_path / "state", tmp_path / "root.json")
    key = tmp_path / "state/keys/sign.key"
    key.chmod(0o660)
    with pytest.raises(KeyFileUnsafe, match=rf"mode 0660\); run: chmod 600 {key}"):
        load_identity(tmp_path / "state")


# ── what root did in a service's directory ─────────────────────────────────────────────────────

TWO_WRITERS = """
import logging
from pathlib import Path
from config_manager.client.state.claim import Claim, Onlooker

logging.basicConfig(level="WARNING", format="%(message)s")
state = Path({state!r})
first, second = Claim(state, "stt-worker"), Claim(state, "stt-worker")
print("takes", [claim.take() for claim in (first, second, first, second)])
print("free", Onlooker(state, "stt-worker").take())
"""


def state_of_another(place: Path) -> Path:
    state = place / "state"
    state.mkdir(0o700)
    os.chown(state, UID, UID)
    return state


@as_root
def test_a_lock_that_root_made_is_for_the_directorys_owner(place: Path) -> None:
    state = state_of_another(place)
    root_claim = Claim(state, "stt-worker")
    assert root_claim.take()
    root_claim.close()
    with World().disk.lock(state):
        pass
    for name in ("stt-worker.lock", ".lock"):
        status = (state / name).stat()
        assert (status.st_uid, status.st_mode & 0o777) == (UID, 0o600)
    _, told = run_as_another(TWO_WRITERS.format(state=str(state)))
    assert told == "takes [True, False, True, False]\nfree False\n"


@as_root
def test_where_the_lock_cannot_be_opened_nobody_writes_and_each_says_so_once(place: Path) -> None:
    state = state_of_another(place)
    (state / "stt-worker.lock").touch(0o600)  # as an earlier version's root made it
    _, told = run_as_another(TWO_WRITERS.format(state=str(state)))
    said = (
        f"kept file not ours to write service=stt-worker detail={state}/stt-worker.lock belongs to root "
        f"(uid 0), this process is uid {UID}: chown it, or run as that user; until then this process "
        "keeps nothing on disk\n"
    )
    assert told == "takes [False, False, False, False]\nfree False\n" + 2 * said


@as_root
def test_where_there_can_be_no_lock_a_process_goes_on_without(place: Path) -> None:
    state = place / "state"
    state.mkdir(0o755)
    _, told = run_as_another(TWO_WRITERS.format(state=str(state)))
    assert told == "takes [True, True, True, True]\nfree True\n"


@as_root
@pytest.mark.parametrize("name", ["keys", "roots"])
def test_root_follows_no_link_that_a_directorys_owner_planted(place: Path, name: str) -> None:
    state, victim = state_of_another(place), place / "victim"
    second = r.root(2, config=(r.SECOND_CONFIG,))
    if name == "roots":
        trust_init(state, place / "root.json")
        (place / "root.json").write_bytes(second)
    victim.mkdir()
    (state / name).symlink_to(victim)
    os.chown(state / name, UID, UID, follow_symlinks=False)
    expected = (
        f"{state} can't be written: {state}/{name} is a link of uid {UID}'s, which root does not"
    )
    with pytest.raises(SettingsInvalid, match=expected):
        trust_init(state, place / "root.json")
    assert list(victim.iterdir()) == []


# ── how a place is named ───────────────────────────────────────────────────────────────────────


def test_a_colon_belongs_to_the_directory_but_in_systemds_list() -> None:
    for environment, found in (
        ({"CONFIG_MANAGER_STATE_DIR": "/a/b:c"}, "/a/b:c"),
        ({"STATE_DIRECTORY": "/a/b:/c"}, "/a/b"),
        ({"XDG_STATE_HOME": "/a:b"}, "/a:b/config-manager"),
        ({"HOME": "/a:b"}, "/a:b/.local/state/config-manager"),
    ):
        assert default_state_dir(environment) == found


def test_without_any_variable_it_is_below_the_users_home() -> None:
    home = pwd.getpwuid(os.geteuid()).pw_dir
    for environment in ({}, {"HOME": ""}):
        assert default_state_dir(environment) == f"{home}/.local/state/config-manager"


def test_the_home_directory_is_meant_wherever_a_place_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root.json").write_bytes(m.root_bytes())
    assert default_state_dir({"CONFIG_MANAGER_STATE_DIR": "~/cm"}) == str(tmp_path / "cm")
    assert default_state_dir({"XDG_STATE_HOME": "~/s"}) == str(tmp_path / "s/config-manager")
    for options, environment in (
        (Options(service="a", state_dir="~/a", root="~/root.json"), {}),
        (Options(service="a", state_dir="~/b"), {"CONFIG_MANAGER_ROOT": "~/root.json"}),
    ):
        prepare(Settings, options, world=World(), environment=environment)
    assert {path.name for path in tmp_path.iterdir()} == {"root.json", "a", "b"}
    with pytest.raises(SettingsInvalid, match="no such home directory"):
        expanded("~nobody-of-this-name/x")


def test_a_working_directory_that_is_gone_and_an_env_file_of_nobody_are_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for deeper in (0, 2):

        class Settings(BaseSettings):
            model_config = {"env_file": ".env", "env_file_depth": deeper}

        options = Options(service="a", state_dir=tmp_path)
        with pytest.raises(SettingsInvalid, match="holds no trust root"):
            prepare(Settings, options, world=World())
    options = Options(service="a", state_dir=tmp_path, env_file="~nobody-of-this-name/.env")
    with pytest.raises(SettingsInvalid, match="no such home directory"):
        prepare(Settings, options, world=World())
    for options in (
        Options(service="a", state_dir="state"),
        Options(service="a", state_dir="state", root="root.json"),
    ):
        with pytest.raises(SettingsInvalid, match=r"holds no trust root|root\.json can't be read"):
            prepare(Settings, options, world=World())


def test_an_empty_variable_names_no_root(tmp_path: Path) -> None:
    options = Options(service="a", state_dir=tmp_path)
    with pytest.raises(SettingsInvalid, match="holds no trust root"):
        prepare(Settings, options, world=World(), environment={"CONFIG_MANAGER_ROOT": ""})
