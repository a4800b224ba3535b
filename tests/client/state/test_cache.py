from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from config_manager.client.rules.kept import Kept
from config_manager.client.rules.root_chain import pin
from config_manager.client.state.cache import Cache, KeptBroken
from config_manager.config import strict_json
from config_manager.config.names import Mark
from config_manager.config.trust import Seen
from config_manager.config.world import World
from tests.kit import clients
from tests.kit import documents as m
from tests.kit import roots as r


def kept(revision: int, payload: bytes | None = None) -> Kept:
    return clients.make_kept(revision, payload, beacon_order=(1, revision))


def make_cache(path: Path, key: bytes = b"k" * 32, date: str | None = None) -> Cache:
    return Cache(
        path,
        m.SERVICE,
        key,
        [m.make_root(not_after={m.key_id(m.CONFIG_KEY): date} if date else None)],
        World(),
    )


def test_nothing_kept_is_none_and_what_is_kept_comes_back(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    assert cache.load() is None
    cache.keep(kept(5))
    assert make_cache(tmp_path).load() == kept(5)
    assert b"whisper" not in (tmp_path / "stt-worker.lkg").read_bytes()


def test_a_power_cut_in_the_newest_generation_falls_back_to_the_one_before(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    cache.keep(kept(5))
    cache.keep(kept(6))
    path = tmp_path / "stt-worker.lkg"
    path.write_bytes(path.read_bytes()[:100])
    assert cache.load() == kept(5)


def test_another_instances_file_is_refused(tmp_path: Path) -> None:
    make_cache(tmp_path).keep(kept(5))
    with pytest.raises(KeptBroken):
        make_cache(tmp_path, key=b"x" * 32).load()


def test_a_thief_with_the_file_key_still_cannot_forge_and_the_marks_survive(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    cache.keep(kept(6, m.update_bytes(6, key=m.STRANGER)))
    with pytest.raises(KeptBroken) as caught:
        cache.load()
    assert caught.value.marks is not None
    assert caught.value.marks.seen is not None
    assert caught.value.marks.seen.mark.revision == 6


def test_a_key_past_its_date_still_starts_the_service_and_says_so(tmp_path: Path) -> None:
    make_cache(tmp_path).keep(kept(5))
    loaded = make_cache(tmp_path, date="2020-01-01T00:00:00Z").load()
    assert loaded is not None
    assert loaded.signer_revoked


def test_what_a_revoked_key_signed_starts_the_service_by_the_root_that_listed_it(
    tmp_path: Path,
) -> None:
    first, second = r.first().root, pin(r.root(2, config=(r.SECOND_CONFIG,))).root
    Cache(tmp_path, m.SERVICE, b"k" * 32, [first], World()).keep(kept(5))
    loaded = Cache(tmp_path, m.SERVICE, b"k" * 32, [first, second], World()).load()
    assert loaded is not None
    assert loaded.signer_revoked
    assert loaded.to_start_with == kept(5).to_start_with
    with pytest.raises(KeptBroken, match="unknown-key"):
        Cache(tmp_path, m.SERVICE, b"k" * 32, [second], World()).load()


def test_marks_by_key_come_back_and_a_file_without_them_is_read_too(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    beacons = {m.key_id(m.BEACON_KEY): (1, 5)}
    whole = replace(kept(5), beacons_by=beacons, root_version=3, has_floor=True)
    cache.keep(whole)
    assert cache.load() == whole
    cache.keep(replace(whole, seen=None, seen_by={}))
    loaded = cache.load()
    assert loaded is not None
    assert (loaded.seen, loaded.seen_by, loaded.has_floor) == (None, {}, True)
    value = strict_json.loads_object(cache._file.read())
    for name in ("seen_by", "beacons_by", "root_version", "has_floor"):
        del value[name]
    cache._file.write(strict_json.dumps({**value, "seen": [1, 5, "d"]}))
    older = cache.load()
    assert older is not None
    assert (older.seen, older.seen_by, older.root_version) == (Seen(Mark(1, 5), "d"), {}, 0)
    assert not older.has_floor
