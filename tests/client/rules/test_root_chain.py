from __future__ import annotations

import json
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from config_manager.client.rules import root_chain
from config_manager.client.rules.root_chain import Link, RootChain, Turned, follow_on, pin
from config_manager.config import wire
from config_manager.config.trust import Distrust
from tests.kit import roots as r
from tests.kit.documents import NOW, STEADY, key_id

SECOND = r.root(2, config=(r.SECOND_CONFIG,))
THIRD = r.root(3, r.ROOT_KEY, r.SECOND_ROOT, root=(r.SECOND_ROOT,), config=(r.SECOND_CONFIG,))
FOURTH = r.root(4, r.SECOND_ROOT, root=(r.SECOND_ROOT,), config=(r.THIRD_CONFIG,))
CHAIN = {2: SECOND, 3: THIRD, 4: FOURTH}


def offer(chain: RootChain, version: int, data: bytes, now: float = NOW) -> list[str]:
    """What came of it, in words."""
    return [
        f"trusts {step.root.version}" if isinstance(step, Link) else step.verdict.reason
        for step in chain.offer(r.topic(version), data, now)
    ]


def walked(*versions: int) -> RootChain:
    chain = RootChain([r.first()])
    for version in versions:
        assert offer(chain, version, CHAIN[version]) == [f"trusts {version}"]
    return chain


@pytest.mark.parametrize("order", list(permutations((2, 3, 4))))
def test_three_versions_in_any_order_lead_to_the_newest(order: tuple[int, ...]) -> None:
    chain = RootChain([r.first()])
    said = [word for version in order for word in offer(chain, version, CHAIN[version])]
    assert said == ["trusts 2", "trusts 3", "trusts 4"]
    assert chain.newest.version == 4


def test_a_version_comes_with_the_bytes_to_keep() -> None:
    (link,) = RootChain([r.first()]).offer(r.topic(2), SECOND, NOW)
    assert isinstance(link, Link)
    assert link.data == SECOND
    assert follow_on(r.first(), link.data) == link


def test_what_is_known_is_nothing_however_its_envelope_is_spelled() -> None:
    chain = walked(2, 3, 4)
    spelled = json.dumps(json.loads(THIRD), indent=1).encode()
    assert [offer(chain, v, d) for v, d in ((1, r.root(1)), (2, SECOND), (3, spelled))] == [[]] * 3


def test_versions_before_the_pinned_one_are_nothing() -> None:
    chain = RootChain([pin(THIRD)])
    assert offer(chain, 2, SECOND) == []
    assert offer(chain, 1, b"junk") == []
    assert offer(chain, 4, FOURTH) == ["trusts 4"]


REFUSED: dict[str, tuple[str, int, bytes]] = {
    "signed by a stranger": ("unknown-key", 2, r.root(2, r.STRANGER)),
    "signed by its new key alone": (
        "unknown-key",
        2,
        r.root(2, r.SECOND_ROOT, root=(r.SECOND_ROOT,)),
    ),
    "signed by the configuration key": ("unknown-key", 2, r.root(2, r.CONFIG_KEY)),
    "on another version's topic": ("wrong-topic", 2, r.root(3)),
    "held for another version's topic": ("wrong-topic", 3, r.root(4)),
    "the pinned one on the next topic": ("wrong-topic", 2, r.root(1)),
    "empty": ("malformed", 2, b""),
    "empty, ahead of its turn": ("malformed", 7, b""),
    "empty in the place of the pinned one": ("malformed", 1, b""),
    "too large": ("too-large", 2, b" " * (wire.MAX_ENVELOPE_BYTES + 1)),
    "ahead of its turn, not even signed by itself": ("unknown-key", 3, r.root(3, r.STRANGER)),
    "a fork of the pinned one": ("equivocation", 1, r.root(1, config=(r.STRANGER,))),
    "a stranger's pinned one": ("unknown-key", 1, r.root(1, r.STRANGER, root=(r.STRANGER,))),
}


@pytest.mark.parametrize("story", REFUSED)
def test_what_does_not_follow_is_refused_and_changes_nothing(story: str) -> None:
    reason, version, data = REFUSED[story]
    chain = RootChain([r.first()])
    assert offer(chain, version, data) == [reason]
    assert offer(chain, 2, SECOND) == ["trusts 2"]


@pytest.mark.parametrize("name", ["0", "02", "-1", "+", "", "two", "2/3", "9" * 17, "٢"])
def test_a_topic_that_names_no_version_is_refused(name: str) -> None:
    chain = RootChain([r.first()])
    (turned,) = chain.offer(wire.ROOTS_PREFIX + name, SECOND, NOW)
    assert isinstance(turned, Turned)
    assert turned.verdict.reason == "wrong-topic"


def test_a_fork_is_an_equivocation_whenever_it_comes() -> None:
    fork = r.root(2, config=(r.STRANGER,))
    later = walked(2, 3)
    assert offer(later, 2, fork) == ["equivocation"]
    assert later.newest.roles["config"].keyids == (key_id(r.SECOND_CONFIG),)
    together = RootChain([r.first()])
    rival = r.root(3, r.ROOT_KEY, config=(r.STRANGER,))
    assert offer(together, 3, rival) == []
    assert offer(together, 3, r.root(3, r.ROOT_KEY)) == []
    assert offer(together, 2, r.root(2)) == ["trusts 2", "trusts 3", "equivocation"]


def test_a_fork_that_a_stranger_made_is_no_equivocation() -> None:
    assert offer(walked(2), 2, r.root(2, r.STRANGER, root=(r.STRANGER,))) == ["unknown-key"]


def test_a_rival_ahead_of_its_turn_does_not_stand_in_the_way_of_the_right_one() -> None:
    chain = RootChain([r.first()])
    rival = r.root(3, r.STRANGER, root=(r.STRANGER,))
    assert offer(chain, 3, rival) == []
    assert offer(chain, 3, THIRD) == []
    assert offer(chain, 2, SECOND) == ["trusts 2", "unknown-key", "trusts 3"]


def test_a_key_past_its_date_signs_no_next_root() -> None:
    chain = RootChain([pin(r.root(1, not_after={key_id(r.ROOT_KEY): "2026-06-01T00:00:00Z"}))])
    assert offer(chain, 2, SECOND) == ["unknown-key"]


def test_what_is_held_is_bounded_and_the_nearest_stay() -> None:
    chain = RootChain([r.first()])
    last = root_chain.MAX_HELD + 60
    for version in range(last, 1, -1):
        said = offer(chain, version, r.root(version))
        assert len(said) == (root_chain.MAX_HELD if version == 2 else 0)
    assert chain.newest.version == root_chain.MAX_HELD + 1


def test_what_is_held_is_bounded_in_bytes() -> None:
    chain = RootChain([r.first()])
    for version in range(3, 12):
        padded = json.dumps({**json.loads(r.root(version)), "pad": "x" * 250_000}).encode()
        assert offer(chain, version, padded) == []
    assert sum(len(d) for rivals in chain._held.values() for d in rivals) <= 1024 * 1024
    assert min(chain._held) == 3


def test_rivals_for_one_version_are_bounded_and_the_newest_stay() -> None:
    chain = RootChain([r.first()])
    for n in range(50):
        assert offer(chain, 3, r.root(3, r.STRANGER, root=(r.STRANGER,), thresholds={}, config=(
            SigningKey(bytes([100 + n]) * 32),))) == []  # fmt: skip
    assert offer(chain, 3, THIRD) == []
    said = offer(chain, 2, SECOND)
    assert said.count("unknown-key") == root_chain.MAX_RIVALS - 1
    assert said[-1] == "trusts 3"


def test_a_chain_from_disk_does_not_ask_the_clock() -> None:
    dated = {key_id(r.ROOT_KEY): "2020-01-01T00:00:00Z"}
    assert follow_on(pin(r.root(1, not_after=dated)), r.root(2)).root.version == 2
    with pytest.raises(Distrust):
        pin(r.root(1, not_after=dated), NOW)


@STEADY
@given(st.sampled_from(range(6)), st.binary(max_size=40), st.integers(0, 600), st.integers(0, 3))
def test_no_bytes_raise_and_no_mutation_is_trusted_as_something_else(
    version: int, insert: bytes, at: int, cut: int
) -> None:
    chain = RootChain([r.first()])
    mutant = SECOND[:at] + insert + SECOND[at + cut :]
    chain.offer(r.topic(version), insert, NOW)
    for step in chain.offer(r.topic(version), mutant, NOW):
        assert isinstance(step, Turned) or step.digest == wire.parse_envelope(SECOND).digest
