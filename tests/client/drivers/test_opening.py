"""What a start takes from arguments, environment and defaults, and what it does without a disk."""

from __future__ import annotations

import errno
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner
from pydantic import BaseModel, Field

from config_manager.client import Config, open_config
from config_manager.client.commands.client import client
from config_manager.client.drivers import asyncio_driver, trio_driver
from config_manager.client.drivers.opening import (
    DEFAULT_MQTT_URL,
    FIRST_WAIT_S,
    REQUIRED_WAIT_S,
    OptionArguments,
    Options,
    Prepared,
    prepare,
)
from config_manager.client.state.identity import trust_init
from config_manager.config.errors import (
    InvalidName,
    NothingDelivered,
    RootRefused,
    SettingsInvalid,
)
from config_manager.config.world import SystemDisk, World
from tests.kit import clients
from tests.kit import documents as m
from tests.kit.client_story import Settings


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "root.json").write_bytes(m.root_bytes())
    trust_init(tmp_path / "state", tmp_path / "root.json")
    return tmp_path / "state"


def opened(
    state: Path | None,
    *,
    model: type[BaseModel] = Settings,
    environment: dict[str, str] | None = None,
    world: World | None = None,
    **options: Any,
) -> Prepared[Any]:
    given: dict[str, Any] = {"service": m.SERVICE, "env_file": None, **options}
    return prepare(
        model,
        Options(state_dir=state, **given),
        world=world or World(),
        environment=environment or {},
    )


def keep(prepared: Prepared[Any], revision: int) -> None:
    """As if this revision had been applied and proved."""
    prepared.cache.keep(clients.make_kept(revision))


# ── names and places ───────────────────────────────────────────────────────────────────────────


def test_with_no_more_than_a_service_everything_else_has_a_default(state: Path) -> None:
    prepared = opened(state)
    assert prepared.mqtt_url == DEFAULT_MQTT_URL == "mqtt://localhost:1883"
    assert prepared.name == (state / "instance").read_text().strip()
    assert (prepared.has_kept, prepared.broken) == (False, None)
    assert prepared.instance.effective.values == Settings()
    assert prepared.client_id.startswith(f"cm-stt-worker-{prepared.name}-")
    assert "." not in prepared.client_id  # nats-server takes no dots


def test_two_processes_of_one_instance_have_client_ids_of_their_own(state: Path) -> None:
    assert opened(state).client_id != opened(state).client_id


def test_the_environment_says_where_and_who_and_the_caller_has_the_last_word(
    state: Path,
) -> None:
    environment = {
        "CONFIG_MANAGER_STATE_DIR": str(state),
        "CONFIG_MANAGER_MQTT_URL": "mqtt://broker:1884",
        "CONFIG_MANAGER_INSTANCE": "robot-7",
    }
    said = opened(None, environment=environment)
    assert (said.identity.state_dir, said.mqtt_url, said.name) == (
        state, "mqtt://broker:1884", "robot-7",
    )  # fmt: skip
    wrong = {**environment, "CONFIG_MANAGER_STATE_DIR": "/nowhere"}
    own = opened(state, environment=wrong, mqtt_url="none:", instance="robot-8")
    assert (own.identity.state_dir, own.mqtt_url, own.name) == (state, "none:", "robot-8")


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({"CONFIG_MANAGER_STATE_DIR": "{}/a", "STATE_DIRECTORY": "{}/b"}, "a"),
        ({"STATE_DIRECTORY": "{}/b:{}/c", "XDG_STATE_HOME": "{}"}, "b"),  # systemd lists several
        ({"CONFIG_MANAGER_STATE_DIR": "", "STATE_DIRECTORY": "{}/b"}, "b"),
        ({"XDG_STATE_HOME": "{}"}, "config-manager"),
    ],
)
def test_the_state_directory_is_the_first_that_is_named(
    tmp_path: Path, environment: dict[str, str], found: str
) -> None:
    (tmp_path / "root.json").write_bytes(m.root_bytes())
    there = {name: text.replace("{}", str(tmp_path)) for name, text in environment.items()}
    prepared = opened(None, environment=there, root=tmp_path / "root.json")
    assert prepared.identity.state_dir == tmp_path / found


def test_a_root_that_is_named_is_pinned_once_and_what_is_pinned_stays(tmp_path: Path) -> None:
    named, state = tmp_path / "root.json", tmp_path / "state"
    named.write_bytes(m.root_bytes())
    by_environment = {"CONFIG_MANAGER_ROOT": str(named)}
    first = opened(state, environment=by_environment)
    named.write_bytes(m.root_bytes(m.make_root(version=2)))  # whoever can write it later: no matter
    assert opened(state, environment=by_environment).identity == first.identity
    assert opened(state, root=tmp_path / "gone.json").identity == first.identity
    assert opened(state).identity == first.identity


def test_what_is_no_root_is_not_pinned(tmp_path: Path) -> None:
    (tmp_path / "root.json").write_bytes(m.update_bytes(1))
    with pytest.raises(RootRefused):
        opened(tmp_path / "state", root=tmp_path / "root.json")
    with pytest.raises(SettingsInvalid, match="trust init"):
        opened(tmp_path / "state")


def test_a_model_may_name_its_service(state: Path) -> None:
    class Named(Settings):
        SERVICE: ClassVar[str] = "tts-worker"

    assert opened(state, model=Named, service=None).service == "tts-worker"
    assert opened(state, model=Named, service="stt-worker").service == "stt-worker"


def test_no_service_is_an_error_that_shows_the_call(state: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"open_config\(Settings, service="):
        opened(state, service=None)


@pytest.mark.parametrize("name", ["../etc", "a/b", "A", "epoch", "config-manager", "x" * 64])
def test_names_outside_the_grammar_reach_no_path_and_no_topic(state: Path, name: str) -> None:
    before = sorted(state.rglob("*"))
    with pytest.raises(InvalidName):
        opened(state, service=name)
    with pytest.raises(InvalidName):
        opened(state, instance=name)
    assert sorted(state.rglob("*")) == before


# ── overrides ──────────────────────────────────────────────────────────────────────────────────


def test_the_prefix_is_the_services_name_unless_it_is_said(state: Path) -> None:
    environment = {"STT_WORKER_N": "1", "MY_N": "2", "N": "3"}
    for prefix, n in ((None, 1), ("MY_", 2), ("", 3), ("OTHER_", 0)):
        prepared = opened(state, environment=environment, prefix=prefix)
        assert prepared.instance.effective.values.n == n


def test_an_env_file_is_read_and_the_environment_beats_it(state: Path, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "# a comment\nexport STT_WORKER_N=1\nSTT_WORKER_WHISPER_MODEL='a b'\n"
    )
    values = opened(state, env_file=tmp_path / ".env").instance.effective.values
    assert (values.n, values.whisper_model) == (1, "a b")
    beaten = opened(state, env_file=tmp_path / ".env", environment={"STT_WORKER_N": "2"})
    assert beaten.instance.effective.values.n == 2
    assert beaten.instance.effective.overrides == ("n", "whisper_model")


def test_the_env_file_is_the_one_in_the_working_directory_unless_it_is_said(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("STT_WORKER_N=1\n")
    options = Options(service=m.SERVICE, state_dir=state)
    prepared = prepare(Settings, options, world=World(), environment={})
    assert prepared.instance.effective.values.n == 1
    assert opened(state, env_file=None).instance.effective.values.n == 0


def test_an_env_file_that_is_not_there_is_no_error_and_one_that_is_not_text_is(
    state: Path, tmp_path: Path
) -> None:
    assert opened(state, env_file=tmp_path / "none").instance.effective.values.n == 0
    assert opened(state, env_file=tmp_path).instance.effective.values.n == 0
    (tmp_path / "odd").write_bytes(b"STT_WORKER_N=\xff\n")
    with pytest.raises(SettingsInvalid, match="odd: not UTF-8"):
        opened(state, env_file=tmp_path / "odd")


def test_a_variable_that_does_not_fit_stops_the_start_by_name(state: Path) -> None:
    with pytest.raises(SettingsInvalid, match="^STT_WORKER_N: "):
        opened(state, environment={"STT_WORKER_N": "many"})


def test_defaults_and_overrides_that_do_not_fit_together_stop_the_start(state: Path) -> None:
    class Needy(BaseModel):
        url: str

    with pytest.raises(SettingsInvalid, match="Needy: url: Field required; give it a default"):
        opened(state, model=Needy)
    assert opened(state, model=Needy, environment={"STT_WORKER_URL": "x"}).name


def test_keys_are_restart_required_by_option_or_in_the_model(state: Path) -> None:
    class Marked(Settings):
        port: int = Field(default=1, json_schema_extra={"x-restart-required": True})
        host: str = Field(default="a", json_schema_extra={"x-restart-required": False})

    prepared = opened(state, model=Marked, restart_required=frozenset({"n"}))
    assert prepared.instance._policy.restart_required == {"n", "port"}


# ── the first start, and require ───────────────────────────────────────────────────────────────


def test_the_first_start_ever_runs_on_the_models_defaults_and_says_so(state: Path) -> None:
    prepared = opened(state)
    assert (prepared.instance.source, prepared.instance.freshness) == ("defaults", "unknown")
    prepared.check_required()  # nobody required it
    (swap,) = prepared.instance.start(0.0)
    assert swap.effective.values == Settings()  # type: ignore[union-attr]


def test_require_turns_the_same_into_an_error_that_says_what_to_look_at(state: Path) -> None:
    prepared = opened(state, require=True)
    with pytest.raises(NothingDelivered, match=r"stt-worker requires .* 20 s: .*broker reachable"):
        prepared.check_required()


def test_require_is_satisfied_by_what_was_kept(state: Path) -> None:
    keep(opened(state), 5)
    prepared = opened(state, require=True)
    prepared.instance.start(0.0)
    prepared.check_required()
    assert (prepared.has_kept, prepared.instance.source) == (True, "last-known-good")
    assert prepared.instance.effective.values.n == 5


def test_require_is_not_satisfied_by_something_kept_that_no_longer_fits(state: Path) -> None:
    class Other(BaseModel):
        n: str = "default"

    keep(opened(state), 5)
    prepared = opened(state, model=Other, require=True)
    prepared.instance.start(0.0)
    with pytest.raises(NothingDelivered, match="fit the model"):
        prepared.check_required()


def test_who_requires_a_configuration_waits_longer_for_it() -> None:
    assert Options().wait_s == FIRST_WAIT_S
    assert Options(require=True).wait_s == REQUIRED_WAIT_S > FIRST_WAIT_S
    assert Options(require=True, first_wait_s=0.0).wait_s == 0.0


def test_the_names_of_options_are_known_to_type_checkers() -> None:
    assert list(OptionArguments.__annotations__) == [field.name for field in fields(Options)]
    with pytest.raises(TypeError, match="servce"):
        Config(Settings, servce="x").__enter__()  # type: ignore[call-arg]

    def mistakes() -> None:
        """For mypy, which checks this file too, and complains where what it ignores is no mistake."""
        Config(Settings, bake_s="long")  # type: ignore[arg-type]
        asyncio_driver.open_config(Settings, servce="x")  # type: ignore[call-arg]
        trio_driver.open_config(Settings, servce="x")  # type: ignore[call-arg]
        open_config(Settings, servce="x")  # type: ignore[call-arg]
        open_config(Settings, apply=len)  # type: ignore[arg-type]

    assert callable(mistakes)


# ── sick disks ─────────────────────────────────────────────────────────────────────────────────


class SickDisk(SystemDisk):
    """Refuses what it is told to: reading the kept files, or any writing."""

    def __init__(self, *, reads: bool = True, writes: bool = True) -> None:
        super().__init__()
        self.reads, self.writes = reads, writes

    def read(self, path: Path) -> bytes:
        if not self.reads and ".lkg" in path.name:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return super().read(path)

    def write_atomic(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        if not self.writes:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        super().write_atomic(path, data, mode=mode)


def test_a_full_disk_starts_from_what_was_kept(state: Path) -> None:
    keep(opened(state), 5)
    prepared = opened(state, world=World(disk=SickDisk(writes=False)))
    prepared.instance.start(0.0)
    assert prepared.instance.effective.values.n == 5


def test_kept_files_that_cannot_be_read_cost_what_was_kept_but_not_the_start(state: Path) -> None:
    keep(opened(state), 5)
    prepared = opened(state, world=World(disk=SickDisk(reads=False)))
    assert (prepared.has_kept, prepared.instance.source) == (False, "defaults")
    assert "Input/output error" in (prepared.broken or "")


def test_a_damaged_file_is_said_and_both_generations_gone_is_a_first_start(state: Path) -> None:
    before = opened(state)
    keep(before, 5)
    keep(before, 6)
    both = list(state.glob("*.lkg*"))
    assert len(both) == 2
    for path in both:
        path.write_bytes(b"x")
    prepared = opened(state)
    assert "does not verify" in (prepared.broken or "")
    assert prepared.instance.source == "defaults"


# ── the number of this start ───────────────────────────────────────────────────────────────────


def boot(state: Path, clock: float, *, disk: SystemDisk | None = None) -> int:
    world = World(clock=clients.SetClock(clock), disk=disk or SystemDisk())
    return opened(state, world=world).instance._account.boot_seq


def test_each_start_has_a_higher_number_whatever_the_clock_does(state: Path) -> None:
    numbers = [boot(state, clock) for clock in (m.NOW, m.NOW, m.NOW + 5, 0.0, -5.0, 1000.0)]
    assert numbers == sorted(set(numbers))


def test_the_first_start_of_a_clock_from_1970_has_a_number(state: Path) -> None:
    assert [boot(state, -5.0), boot(state, 0.0)] == [1, 2]


@pytest.mark.parametrize("content", [b"", b"x", b"-3", b"9" * 30, b"9" * 5000, b"\xff"])
def test_a_lost_number_goes_on_by_the_clock(state: Path, content: bytes) -> None:
    before = boot(state, m.NOW)
    (state / "stt-worker.boot").write_bytes(content)
    assert before < boot(state, m.NOW + 60) < 2**53
    assert boot(state, m.NOW + 60) == m.NOW + 61


def test_starts_on_a_full_disk_rise_too_and_so_does_the_one_after_them(state: Path) -> None:
    clocks = (m.NOW, m.NOW + 60, m.NOW + 120, m.NOW + 180)
    full = SickDisk(writes=False)
    numbers = [
        boot(state, clock, disk=full if 0 < index < 3 else None)
        for index, clock in enumerate(clocks)
    ]
    assert numbers == sorted(set(numbers))


def test_the_generation_before_is_taken_aloud(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = opened(state)
    keep(first, 4)
    keep(first, 5)
    first.claim.close()
    newest = state / f"{m.SERVICE}.lkg"
    newest.write_bytes(newest.read_bytes()[:100])

    printed = CliRunner().invoke(client, ["get", "--state", str(state), "--service", m.SERVICE])
    assert printed.exit_code == 0, printed.output
    assert printed.stderr == (
        "the newest kept file does not verify; this is the one before (revision 4)\n"
    )
    assert "verify" not in printed.stdout

    again = opened(state)
    assert again.has_kept
    (said,) = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert said.startswith("older kept file taken service=stt-worker revision=4 ")
    keep(again, 5)
    again.claim.close()
    caplog.clear()
    opened(state)
    assert "older kept file" not in caplog.text
