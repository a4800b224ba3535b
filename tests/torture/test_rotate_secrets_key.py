"""A rotation of the secrets key that dies at every line: the next start brings it to its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import trio
from pydantic import SecretStr

from config_manager.actors.actor import Context
from config_manager.actors.messages import RotateSecretsKey, Write
from config_manager.actors.mqtt.aiomqtt_transport import AiomqttTransport
from config_manager.actors.system import System, running_system
from config_manager.config.secret import Secret
from config_manager.config.services import SAMPLE_CATALOGUE
from config_manager.config.settings import Settings
from config_manager.config.world import World
from config_manager.storage.decisions.intents import SetSecret
from config_manager.storage.decisions.secret_values import RevealSecret
from config_manager.storage.decisions.terms import Terms
from config_manager.storage.keys.key_ring import KeyRing
from config_manager.storage.keys.recovery import FILE, Recovery, open_sealed
from config_manager.storage.keys.secret_box import key_id_of
from config_manager.storage.sql import database
from tests.kit.dying import dies

VERSIONS = 3
HERE = Context("a-test")


@asynccontextmanager
async def started(data: Path) -> AsyncIterator[System]:
    settings = Settings(
        data_dir=data, mqtt_url="none:", bootstrap_token=SecretStr("a-token-of-this-test")
    )
    async with running_system(
        settings, catalogue=SAMPLE_CATALOGUE, transport=AiomqttTransport(), world=World()
    ) as system:
        yield system


async def reads_everything(system: System) -> None:
    for number in range(1, VERSIONS + 1):
        ask = RevealSecret(service="door", name="pin", version=number)
        write = Write(ask, Terms("me", "a test"))
        assert (await system.storing.ask(write, HERE)).value.reveal() == f"value-{number}"


async def idle(system: System) -> None:
    with trio.fail_after(20):
        while system.rotation().state != "idle":
            await trio.sleep(0.005)


def key_ids_in(data: Path) -> set[str]:
    key = bytes.fromhex((data / "keys" / "db.key").read_text())
    with closing(database.connect(data / "config.db", key)) as connection:
        return {row[0] for row in connection.execute("SELECT DISTINCT key_id FROM secrets")}


@pytest.mark.torture
@pytest.mark.timeout(1800)
async def test_killed_at_any_line_every_secret_stays_readable_and_the_rotation_ends(
    tmp_path: Path,
) -> None:
    template, copies = tmp_path / "template", tmp_path / "copies"
    async with started(template) as system:
        for number in range(1, VERSIONS + 1):
            value = Secret(f"value-{number}")
            change = SetSecret(service="door", name="pin", value=value)
            await system.storing.ask(Write(change, Terms("me")), HERE)
    recovery_key = Recovery(KeyRing.open(template, World()), World()).begin().reveal()
    deaths = dies("rotate-secrets-key", template, copies)
    assert deaths > 150, "it died at the lines that matter"
    mixed = begun = 0
    for line in range(1, deaths + 1):
        data = copies / str(line)
        needed = key_ids_in(data)
        sealed = open_sealed((data / FILE).read_bytes(), recovery_key)
        recoverable = {key_id_of(key) for name, key in sealed.items() if "secrets" in name}
        assert needed <= recoverable, line
        mixed += len(needed) > 1
        async with started(data) as system:
            await reads_everything(system)
            await idle(system)
            if system.rotation().rotation is None:
                await system.rotating.ask(RotateSecretsKey(terms=Terms("me")), HERE)
                await idle(system)
            else:
                begun += 1
            await reads_everything(system)
        now = bytes.fromhex((data / "keys" / "secrets.key").read_text())
        assert key_ids_in(data) == {key_id_of(now)}, line
        assert [p.name for p in (data / "keys").glob("secrets*")] == ["secrets.key"], line
        assert open_sealed((data / FILE).read_bytes(), recovery_key)["secrets.key"] == now, line
    assert mixed > 10, "it died between pages"
    assert 20 < begun < deaths - 20
    print(f"{deaths} deaths, {begun} of them after its begin, {mixed} between pages")
