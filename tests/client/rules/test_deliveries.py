"""Secrets as an instance meets them: sealed to it, applied with what names them, never shown."""

from __future__ import annotations

import base64
import json
import logging
import random
from collections.abc import Callable
from typing import Any

import pytest
from nacl.public import PrivateKey
from nacl.signing import SigningKey
from pydantic import BaseModel, SecretStr, model_validator

from config_manager.client.rules.deliveries import Deliveries
from config_manager.config import wire
from config_manager.config.documents.root import Root
from config_manager.config.documents.sealed import Sealed, SealedValue
from config_manager.config.sealing import seal
from config_manager.config.secret import Secret
from tests.kit import documents as m
from tests.kit import roots as r
from tests.kit.client_story import Story, disk_with

TOPIC = wire.sealed_topic(m.SERVICE, "robot-1")
SEAL_KEY = PrivateKey(b"e" * 32)


class Guarded(BaseModel):
    """A service that needs a password."""

    whisper_model: str = "tiny"
    n: int = 0
    password: SecretStr = SecretStr("")


def sealed(
    revision: int,
    key: SigningKey = m.CONFIG_KEY,
    *,
    to: PrivateKey = SEAL_KEY,
    service: str = m.SERVICE,
    instance: str = "robot-1",
    kind: str = wire.SEALED,
    **secrets: tuple[int, str],
) -> bytes:
    """A signed message; secrets: name=(version, value)."""
    empty = Sealed(service, instance, 1, revision, {})
    values: dict[str, SealedValue] = {
        name: seal(Secret(value), sealed=empty, name=name, version=version,
                   public=bytes(to.public_key))
        for name, (version, value) in secrets.items()
    }  # fmt: skip
    document = Sealed(service, instance, 1, revision, values)
    return m.sign(kind, document.to_bytes(), key).to_bytes()


def guarded(revision: int = 5, **how: Any) -> Story:
    return Story(disk_with(revision), model=Guarded, enrolled=True, asks=False, **how)


def password(story: Story) -> str:
    held: SecretStr = story.current.values.password
    return held.get_secret_value()


def names(version: int) -> dict[str, dict[str, int]]:
    return {"secrets": {"password": version}}


def test_configuration_and_secrets_are_applied_together_whichever_comes_first() -> None:
    one = guarded().gets(6, **names(1))
    assert (one.stage, one.why, one.n) == ("deferred 6", "waiting for secrets", 5)
    one.receives(sealed(6, password=(1, "hunter2")), TOPIC)
    assert (one.n, password(one), one.swaps) == (6, "hunter2", [6])

    other = guarded().receives(sealed(6, password=(1, "hunter2")), TOPIC)
    assert (other.n, password(other)) == (5, "")
    other.gets(6, **names(1))
    assert (other.n, password(other), other.swaps) == (6, "hunter2", [6])


def test_a_callback_is_asked_once_with_both() -> None:
    story = Story(disk_with(5), model=Guarded, enrolled=True)
    story.gets(6, **names(1)).receives(sealed(6, password=(1, "hunter2")), TOPIC)
    (change,) = story.calls
    assert change.keys == {"n", "password"}
    story.says()
    for _ in range(3):
        story.receives(sealed(6, password=(1, "hunter2")), TOPIC).gets(6, **names(1))
    assert story.asked == [6]


def test_a_newer_value_waits_for_the_configuration_that_names_it() -> None:
    story = guarded().gets(6, **names(1)).receives(sealed(6, password=(1, "old")), TOPIC)
    story.receives(sealed(7, password=(2, "new")), TOPIC)
    assert password(story) == "old"
    story.gets(7, **names(2))
    assert (password(story), story.n) == ("new", 7)


def test_a_restart_without_network_has_its_secrets() -> None:
    story = guarded().gets(6, **names(1)).receives(sealed(6, password=(1, "hunter2")), TOPIC)
    again = story.lives(20).died()
    assert (again.n, password(again)) == (6, "hunter2")
    # and so it has while the next version has come, and its configuration has not
    story = again.receives(sealed(7, password=(2, "new")), TOPIC).lives(20)
    assert password(story.died()) == "hunter2"


def test_on_disk_there_is_no_plaintext() -> None:
    story = guarded().gets(6, **names(1)).receives(sealed(6, password=(1, "hunter2-marked")), TOPIC)
    assert password(story.lives(20)) == "hunter2-marked"
    for content in story.disk.files.values():
        assert b"hunter2-marked" not in content
    for envelope in story.kept.sealed:
        assert b"hunter2-marked" not in envelope.payload


def test_who_is_not_enrolled_runs_without_and_says_so() -> None:
    story = Story(disk_with(5), model=Guarded, asks=False).gets(6, **names(1))
    assert (story.n, password(story)) == (6, "")
    assert story.why is not None
    assert "not enrolled" in story.why
    # enrolled while it runs, it gets them without a new revision
    story.receives(sealed(6, password=(1, "hunter2")), TOPIC)
    assert password(story) == "hunter2"


def test_secrets_that_come_while_the_callback_is_asked_without_them_are_offered_afterwards() -> (
    None
):
    story = Story(disk_with(5), model=Guarded).gets(6, **names(1))
    story.receives(sealed(6, password=(1, "hunter2")), TOPIC).says()
    assert (story.swaps, password(story)) == ([6], "")
    story.says()
    assert (story.swaps, password(story), story.why) == ([6, 6], "hunter2", None)


def test_what_waits_for_its_secrets_is_refused_once_its_signer_is_revoked() -> None:
    story = Story(disk_with(5), model=Guarded, enrolled=True, asks=False).gets(6, **names(1))
    assert story.stage == "deferred 6"
    story.receives(r.root(2, config=(m.SECOND_CONFIG,)), r.topic(2))
    assert (story.stage, story.why) == ("refused 6", "unknown-key: its signer was revoked")


def test_who_got_secrets_once_waits_for_them_after_a_restart_too() -> None:
    story = Story(disk_with(5), model=Guarded, asks=False)
    story.receives(sealed(6, password=(1, "hunter2")), TOPIC)
    again = story.lives(20).died().gets(6, **names(1)).gets(7, **names(2))
    assert (again.n, again.stage, again.why) == (6, "deferred 7", "waiting for secrets")


def test_a_configuration_and_its_secrets_that_overtook_their_root_are_applied_together() -> None:
    story = Story(disk_with(5), model=Guarded, asks=False)
    story.receives(m.update_bytes(6, key=m.SECOND_CONFIG, **names(1)))
    story.receives(sealed(6, m.SECOND_CONFIG, password=(1, "hunter2")), TOPIC)
    story.receives(r.root(2, config=(m.SECOND_CONFIG, m.CONFIG_KEY)), r.topic(2))
    assert (story.swaps, password(story)) == ([6], "hunter2")


def test_no_secret_is_believed_by_an_older_root_than_was_trusted_once() -> None:
    """Its file is gone: a revoked key must not be good again because of that."""
    before = Story(disk_with(5), model=Guarded, enrolled=True, asks=False)
    before.receives(r.root(2, config=(m.SECOND_CONFIG,)), r.topic(2))
    story = before.lives(20).died()
    story.receives(sealed(6, password=(1, "the thief's")), TOPIC)
    story.receives(r.root(2, config=(m.SECOND_CONFIG,)), r.topic(2))
    story.receives(m.update_bytes(6, key=m.SECOND_CONFIG, **names(1)))
    assert (story.stage, story.why) == ("deferred 6", "waiting for secrets")
    story.receives(sealed(6, m.SECOND_CONFIG, password=(1, "hunter2")), TOPIC)
    assert password(story) == "hunter2"


def test_the_environment_still_wins_and_is_said_to_shadow(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    story = guarded(environment={"STT_WORKER_PASSWORD": "from-the-env"})
    story.gets(6, **names(1)).receives(sealed(6, password=(1, "hunter2-marked")), TOPIC)
    assert password(story) == "from-the-env"
    why = story.current.explanations["password"]
    assert (why.origin, why.shadowed) == ("environment", "********")
    shown = f"{why} {story.current!r} {story.current.values!r} {story.receipts!r} {story.events!r}"
    assert "marked" not in shown
    assert "from-the-env" not in shown
    assert "marked" not in caplog.text


def test_what_is_explained_of_a_secret_is_never_its_value() -> None:
    story = guarded().gets(6, **names(1)).receives(sealed(6, password=(1, "hunter2")), TOPIC)
    why = story.current.explanations["password"]
    assert (why.origin, why.value, why.revision) == ("delivered", "********", 6)
    assert "hunter2" not in str(why)


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "unsigned": (lambda: sealed(9, password=(1, "x")).replace(b'"sig":"', b'"sig":"AAAA'), "bad-signature"),
    "a stranger's": (lambda: sealed(9, m.STRANGER, password=(1, "x")), "unknown-key"),
    "by the beacon's key": (lambda: sealed(9, m.BEACON_KEY, password=(1, "x")), "unknown-key"),
    "for another service": (lambda: sealed(9, service="tts-worker", password=(1, "x")), "wrong-service"),
    "for another instance": (lambda: sealed(9, instance="robot-2", password=(1, "x")), "wrong-service"),
    "sealed to another key": (
        lambda: sealed(9, to=PrivateKey(b"x" * 32), password=(1, "x")), "malformed",
    ),
    "another kind": (lambda: sealed(9, kind=wire.CONFIG_UPDATE, password=(1, "x")), "wrong-type"),
    "older": (lambda: sealed(5, password=(1, "x")), "rolled-back"),
    "too large": (lambda: b" " * (wire.MAX_ENVELOPE_BYTES + 1), "too-large"),
    "not JSON": (lambda: b"{", "malformed"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_ours_is_refused_and_what_runs_goes_on(case: str) -> None:
    story = guarded().gets(6, **names(1)).receives(sealed(6, password=(1, "hunter2")), TOPIC)
    make, reason = BAD[case]
    story.receives(make(), TOPIC)
    assert story.refused() == [reason]
    assert story.instance.subscriber.refusals[reason] == 1  # type: ignore[index]
    assert (story.n, password(story)) == (6, "hunter2")
    assert password(story.lives(20).died()) == "hunter2"


def test_an_empty_message_takes_nothing_away() -> None:
    story = guarded().gets(6, **names(1)).receives(sealed(6, password=(1, "hunter2")), TOPIC)
    story.receives(b"", TOPIC)
    assert (story.refused(), password(story)) == ([], "hunter2")


def test_sealed_anew_for_the_same_revision_is_taken() -> None:
    """Sealing is random: revoked and enrolled again, the bytes differ."""
    story = guarded().gets(6, **names(1)).receives(sealed(6, password=(1, "hunter2")), TOPIC)
    story.receives(sealed(6, password=(1, "hunter2")), TOPIC)
    assert story.refused() == []


def test_a_thief_can_not_make_another_key_vouch_for_what_he_sealed() -> None:
    """A signature that names the key and does not verify is none, also once the stolen key is revoked."""
    both = Root.parse(m.make_root(1, config=(m.CONFIG_KEY, m.SECOND_CONFIG)).to_bytes())
    after = Root.parse(m.make_root(2, config=(m.SECOND_CONFIG,)).to_bytes())
    stolen = json.loads(sealed(99, password=(1, "x")))
    named = wire.keyid(m.SECOND_CONFIG.verify_key.encode())
    stolen["signatures"].append({"keyid": named, "sig": base64.b64encode(bytes(64)).decode()})
    held = Deliveries(m.SERVICE, "robot-1", bytes(SEAL_KEY), (), [both])
    assert held.receive(json.dumps(stolen).encode(), both, m.NOW)
    assert held.receive(sealed(7, m.SECOND_CONFIG, password=(1, "hunter2")), after, m.NOW)


def test_no_mutant_of_a_sealed_message_changes_what_runs() -> None:
    message = sealed(7, password=(1, "other"))
    rng = random.Random(4)
    story = guarded().gets(6, **names(1)).receives(sealed(6, password=(1, "hunter2")), TOPIC)
    for _ in range(2_000):
        mutant = bytearray(message)
        for _ in range(rng.randrange(1, 4)):
            mutant[rng.randrange(len(mutant))] ^= 1 << rng.randrange(8)
        story.receives(bytes(mutant), TOPIC)
        assert password(story) == "hunter2"


def test_secrets_that_come_while_another_waits_for_a_restart_take_nothing_back() -> None:
    story = Story(
        disk_with(5, secrets={"password": 1}), model=Guarded, asks=False,
        restart_required=frozenset({"whisper_model"}),
    )  # fmt: skip
    story.gets(6, secrets={"password": 1})
    waits = {"whisper_model": "large", "n": 7}
    story.gets(7, secrets={"password": 1}, config=waits)
    assert (story.n, story.stage) == (6, "restart-required 7")
    story.receives(sealed(7, password=(1, "hunter2")), TOPIC)
    assert (story.n, password(story)) == (6, "hunter2")
    assert story.swaps == sorted(story.swaps)


# ── a model that does not fit without them ─────────────────────────────────────────────────────


class Locked(Guarded):
    """From 6 on it needs the password."""

    @model_validator(mode="after")
    def _is_locked(self) -> Locked:
        if self.n >= 6 and not self.password.get_secret_value():
            raise ValueError("no password")
        return self


@pytest.mark.parametrize("comes_first", ["the configuration", "its secrets", "no configuration"])
@pytest.mark.parametrize("enrolled", [True, False])
def test_what_a_start_could_not_run_without_its_secrets_runs_once_they_come(
    comes_first: str, enrolled: bool
) -> None:
    story = Story(disk_with(6, **names(1)), model=Locked, enrolled=enrolled, asks=False)
    assert (story.n, story.stage) == (0, "refused 6")
    if comes_first == "the configuration":
        story.gets(6, **names(1))
        assert story.stage == ("deferred 6" if enrolled else "refused 6")
    story.receives(sealed(6, password=(1, "hunter2")), TOPIC)
    if comes_first == "its secrets":
        story.gets(6, **names(1))
    assert (story.n, password(story), story.swaps) == (6, "hunter2", [6])
    assert story.lives(10).on_disk == (6, None)


def test_who_is_enrolled_later_is_offered_again_what_did_not_fit_without_its_secrets() -> None:
    story = Story(disk_with(5), model=Locked, asks=False).gets(6, **names(1))
    assert (story.n, story.stage) == (5, "refused 6")
    story.receives(sealed(6, password=(1, "hunter2")), TOPIC)
    assert (story.n, password(story), story.stage) == (6, "hunter2", "applied 6")


def test_secrets_that_come_late_bring_back_nothing_that_was_overtaken() -> None:
    story = Story(disk_with(5), model=Locked, asks=False).gets(6, **names(1))
    story.gets(7, deleted=True, config={}).receives(sealed(6, password=(1, "hunter2")), TOPIC)
    assert (story.n, story.stage) == (5, "refused 6")


# ── sealed by a thief ──────────────────────────────────────────────────────────────────────────

ROTATED = r.root(2, config=(m.SECOND_CONFIG, m.CONFIG_KEY))
REVOKED = r.root(3, config=(m.SECOND_CONFIG,))
STOLEN = sealed(6, password=(1, "the thief's"))
RIGHT = sealed(6, m.SECOND_CONFIG, password=(1, "hunter2"))
ROOTS = (
    m.make_root(),
    *(Root.parse(wire.parse_envelope(one).payload) for one in (ROTATED, REVOKED)),
)


def rotated() -> Story:
    return guarded().receives(ROTATED, r.topic(2))


def named(story: Story) -> Story:
    """It gets a configuration that today's key signed and that names a password."""
    return story.receives(m.update_bytes(6, key=m.SECOND_CONFIG, **names(1)))


def test_a_configuration_takes_no_secret_that_only_a_revoked_key_vouches_for() -> None:
    story = named(rotated().receives(STOLEN, TOPIC).receives(REVOKED, r.topic(3)))
    assert (story.stage, story.why) == ("deferred 6", "waiting for secrets")
    assert password(story.receives(RIGHT, TOPIC)) == "hunter2"


def test_what_waits_lets_go_of_a_secret_once_its_signer_is_revoked() -> None:
    story = named(rotated().receives(STOLEN, TOPIC).holds())
    story.receives(REVOKED, r.topic(3)).lets_go().lives(5)
    assert (story.stage, story.why, password(story)) == ("deferred 6", "waiting for secrets", "")
    assert password(story.receives(RIGHT, TOPIC)) == "hunter2"


def test_what_runs_with_a_thiefs_secret_goes_on_until_the_right_one_comes() -> None:
    story = named(rotated().receives(STOLEN, TOPIC)).receives(REVOKED, r.topic(3))
    assert password(story.lives(5)) == "the thief's"
    story.receives(RIGHT, TOPIC)
    assert (password(story), story.swaps) == ("hunter2", [6, 6])


def test_where_the_right_one_is_here_already_the_root_alone_brings_it_back() -> None:
    story = named(rotated().receives(RIGHT, TOPIC).receives(STOLEN, TOPIC))
    assert password(story) == "the thief's"
    assert password(story.receives(REVOKED, r.topic(3))) == "hunter2"


def test_a_start_prefers_the_secrets_of_todays_keys_to_others_and_others_to_none() -> None:
    update = m.make_update(6, **names(1))
    for kept, found in ((STOLEN,), "the thief's"), ((STOLEN, RIGHT), "hunter2"):
        envelopes = [wire.parse_envelope(one) for one in kept]
        held = Deliveries(m.SERVICE, "robot-1", bytes(SEAL_KEY), envelopes, ROOTS)
        values = held.values(update, ROOTS[-1], at_a_start=True)
        assert values is not None
        assert values["password"].reveal() == found


def test_what_a_thief_sealed_displaces_nothing_that_runs_needs() -> None:
    held = Deliveries(m.SERVICE, "robot-1", bytes(SEAL_KEY), (), ROOTS[:2])
    assert held.receive(RIGHT, ROOTS[1], m.NOW)
    for revision in (7, 8):
        assert held.receive(sealed(revision, password=(1, "the thief's")), ROOTS[1], m.NOW)
    for revision in (7, 8):
        newer = sealed(revision, m.SECOND_CONFIG, password=(revision, "newer"))
        assert held.receive(newer, ROOTS[2], m.NOW)
    values = held.values(m.make_update(6, **names(1)), ROOTS[2])
    assert values is not None
    assert values["password"].reveal() == "hunter2"


def test_whoever_signs_the_same_secrets_again_vouches_for_them_too() -> None:
    both = ROOTS[1]
    only_first = Root.parse(m.make_root(3, config=(m.CONFIG_KEY,)).to_bytes())
    held = Deliveries(m.SERVICE, "robot-1", bytes(SEAL_KEY), (), [both])
    again = wire.parse_envelope(STOLEN)
    for key in (m.CONFIG_KEY, m.SECOND_CONFIG):
        assert held.receive(m.sign(wire.SEALED, again.payload, key).to_bytes(), both, m.NOW)
    assert not held.receive(STOLEN, both, m.NOW), "nothing new"
    assert held.values(m.make_update(6, **names(1)), only_first) is not None
