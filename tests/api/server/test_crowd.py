"""Which connection is closed when another one needs room: decided without a socket."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from config_manager.api.server.crowd import FRESH_S, Crowd, Wait

NOW = 1_000.0


@dataclass(eq=False)
class Peer:
    address: str
    wait: Wait | None

    def __repr__(self) -> str:
        return f"{self.address} {self.wait}"


def crowd_of(*peers: Peer, most: int = 100) -> Crowd[Peer]:
    crowd = Crowd[Peer](most)
    for peer in peers:
        crowd.add(peer)
    return crowd


def ago(what: str, seconds: float) -> Wait:
    return Wait(what, NOW - seconds)  # type: ignore[arg-type]


def test_of_the_address_with_the_most_connections_whatever_they_do() -> None:
    honest = [Peer("honest", ago("ask", 60))]
    many = [Peer("many", ago("read", 5 + n)) for n in range(3)]
    assert crowd_of(*honest, *many).in_the_way(NOW) == [many[2]]


@pytest.mark.parametrize("what", ["ask", "arrive", "read"])
def test_the_longest_goes_first(what: str) -> None:
    peers = [Peer("a", ago(what, seconds)) for seconds in (3, 9, 6)]
    assert crowd_of(*peers).in_the_way(NOW) == [peers[1]]


def test_an_idle_one_before_one_that_arrives_and_that_before_one_that_does_not_read() -> None:
    reads, arrives, asks = (
        Peer("a", ago(what, seconds)) for what, seconds in (("read", 9), ("arrive", 8), ("ask", 7))
    )
    crowd = crowd_of(reads, arrives, asks)
    for expected in (asks, arrives, reads):
        assert crowd.in_the_way(NOW) == [expected]
        crowd.discard(expected)


def test_who_has_only_just_come_gets_through_a_crowd_at_his_own_address() -> None:
    just_come = Peer("a", ago("ask", 0.01))
    reads_not = [Peer("a", ago("read", FRESH_S + n)) for n in range(2)]
    assert crowd_of(just_come, *reads_not).in_the_way(NOW) == [reads_not[1]]


def test_where_everything_is_fresh_the_oldest_goes() -> None:
    peers = [Peer("a", ago("read", 0.5)), Peer("a", ago("ask", 0.1))]
    assert crowd_of(*peers).in_the_way(NOW) == [peers[0]]


def test_nobody_goes_who_is_being_answered() -> None:
    busy = [Peer("many", None) for _ in range(5)]
    idle = Peer("one", ago("ask", 2))
    crowd = crowd_of(*busy, idle)
    assert crowd.in_the_way(NOW) == [idle]
    crowd.discard(idle)
    assert crowd.in_the_way(NOW) == []


def test_a_large_crowd_makes_room_for_several_at_once_but_not_of_what_is_fresh() -> None:
    stale = [Peer("a", ago("read", 10 + n)) for n in range(10)]
    fresh = [Peer("a", ago("read", 0.2)) for _ in range(10)]
    crowd = crowd_of(*stale, *fresh, most=2_000)
    assert set(crowd.in_the_way(NOW)) == set(stale)


def test_only_those_who_do_not_read_where_that_is_what_is_short() -> None:
    idle, reads = Peer("a", ago("ask", 60)), Peer("b", ago("read", 5))
    assert crowd_of(idle, reads).in_the_way(NOW, only="read") == [reads]
    assert crowd_of(idle).in_the_way(NOW, only="read") == []


def test_it_counts_each_once_and_forgets_who_has_left() -> None:
    peers = [Peer(address, None) for address in "aab"]
    crowd = crowd_of(*peers, most=3)
    crowd.add(peers[0])
    assert (len(crowd), crowd.is_full) == (3, True)
    for peer in (*peers, peers[0]):
        crowd.discard(peer)
    assert (len(crowd), list(crowd)) == (0, [])
