"""Each kind of signed document: its exact bytes, its way back, and what its reader refuses."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config_manager.config import strict_json, wire
from config_manager.config.documents.beacon import Beacon
from config_manager.config.documents.config_update import (
    MAX_VARIANT_DEPTH,
    ConfigUpdate,
    Variant,
)
from config_manager.config.documents.fields import NotADocument, UnknownCritical
from config_manager.config.documents.receipt import Attempt, Receipt, Running
from config_manager.config.documents.report import Report
from config_manager.config.documents.root import KeyRole, Root, RootKey
from config_manager.config.documents.snapshot import Snapshot
from config_manager.config.names import Mark
from tests.kit import documents as m

GOLDEN = Path(__file__).parent / "golden"


class Document(Protocol):
    def to_bytes(self) -> bytes: ...


Parse = Callable[[bytes], Document]
KINDS: dict[str, tuple[Document, Parse]] = {
    "config-update": (m.UPDATE, ConfigUpdate.parse),
    "config-update-with-variants": (m.UPDATE_WITH_VARIANTS, ConfigUpdate.parse),
    "snapshot": (m.SNAPSHOT, Snapshot.parse),
    "beacon": (m.BEACON, Beacon.parse),
    "root": (m.make_root(), Root.parse),
    "receipt": (m.RECEIPT, Receipt.parse),
    "receipt-with-content": (m.RECEIPT_WITH_CONTENT, Receipt.parse),
    "report": (m.REPORT, Report.parse),
}

_UPDATE = (
    "format service topic config_epoch epoch_seq revision previous issued_at not_after config "
    "defaulted secrets deleted correlation_id critical"
)
_RECEIPT = (
    "service instance boot_seq seq running last_attempt source freshness overrides schema library "
    "correlation_id gone at"
)
FIELDS = {
    "config-update": _UPDATE,
    "config-update-with-variants": _UPDATE + " content variants",
    "snapshot": "config_epoch epoch_seq revision services",
    "beacon": "config_epoch epoch_seq revision snapshot root_version audit_head boot_seq seq "
    "issued_at valid_s",
    "root": "version issued_at keys roles",
    "receipt": _RECEIPT,
    "receipt-with-content": _RECEIPT,
    "report": "format from to made_at made_by evidence_sha256 services",
}
"""As the contract lists them."""

_UPDATE_MAY_LACK = {"previous", "not_after", "defaulted", "critical", "content", "variants"}
_RECEIPT_MAY_LACK = {"running", "last_attempt", "overrides", "correlation_id"}
NEED_NOT_BE_THERE = {
    "config-update": _UPDATE_MAY_LACK,
    "config-update-with-variants": _UPDATE_MAY_LACK,
    "receipt": _RECEIPT_MAY_LACK,
    "receipt-with-content": _RECEIPT_MAY_LACK,
}


def changed(kind: str, /, **changes: Any) -> bytes:
    """A document with members changed, or (`...`) left out."""
    value = {**json.loads(KINDS[kind][0].to_bytes()), **changes}
    return json.dumps({k: v for k, v in value.items() if v is not ...}).encode()


@pytest.mark.parametrize("kind", KINDS)
def test_the_golden_bytes_are_what_we_write_and_what_we_read(kind: str) -> None:
    document, parse = KINDS[kind]
    golden = (GOLDEN / f"{kind}.json").read_bytes()
    assert document.to_bytes() == golden
    assert parse(golden) == document


@pytest.mark.parametrize("kind", KINDS)
def test_a_document_has_the_fields_of_the_contract_and_no_others(kind: str) -> None:
    assert list(json.loads(KINDS[kind][0].to_bytes())) == FIELDS[kind].split()


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_that_nobody_knows_is_ignored(kind: str) -> None:
    document, parse = KINDS[kind]
    assert parse(changed(kind, tomorrow={"x": [1]}, critical=[])) == document


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_that_must_be_known_is_refused_unless_it_is(kind: str) -> None:
    document, parse = KINDS[kind]
    known = FIELDS[kind].split()
    for name in ("tomorrow", "", "Service", "config "):
        with pytest.raises(UnknownCritical, match="unknown to this version"):
            parse(changed(kind, critical=[known[0], name], tomorrow=1))
    assert type(parse(changed(kind, critical=known))) is type(document)


@pytest.mark.parametrize("critical", ["service", {"service": 1}, [1], [None], [["service"]], 1])
@pytest.mark.parametrize("kind", KINDS)
def test_critical_is_a_list_of_names(kind: str, critical: object) -> None:
    with pytest.raises(NotADocument, match="critical: expected a list of strings"):
        KINDS[kind][1](changed(kind, critical=critical))


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in KINDS for name in FIELDS[kind].split()]
)
def test_a_field_of_the_wrong_type_or_left_out_is_named(kind: str, name: str) -> None:
    document, parse = KINDS[kind]
    good = json.loads(document.to_bytes())[name]
    wrong: list[object] = [
        value
        for value in ("x", 1.5, -1, True, [1], {"x": "y"})
        if type(value) is not type(good) or type(value) in (int, list, dict)
    ]
    if good is None:  # optional, and empty in the sample: a string
        wrong.remove("x")
    if isinstance(good, dict) and name == "config":
        wrong.remove({"x": "y"})
    for value in wrong:
        with pytest.raises(NotADocument, match=rf"^{name}[.:]"):
            parse(changed(kind, **{name: value}))
    if name in NEED_NOT_BE_THERE.get(kind, ()):
        assert type(parse(changed(kind, **{name: ...}))) is type(document)
    else:
        for value in (None, ...):
            with pytest.raises(NotADocument, match=f"^{name}:"):
                parse(changed(kind, **{name: value}))


INTEGERS = [
    (kind, name)
    for kind in KINDS
    for name, value in json.loads(KINDS[kind][0].to_bytes()).items()
    if type(value) is int and name != "format"
]


@pytest.mark.parametrize(("kind", "name"), INTEGERS)
def test_an_integer_is_0_to_2_53_minus_1(kind: str, name: str) -> None:
    parse = KINDS[kind][1]
    for good in (0, 2**53 - 1):
        assert getattr(parse(changed(kind, **{name: good})), name) == good
    for bad in (-1, 2**53, 1.0, "1", False):
        with pytest.raises(NotADocument, match="an integer of 0 to"):
            parse(changed(kind, **{name: bad}))
    with pytest.raises(NotADocument, match="beyond"):
        parse(changed(kind, **{name: 2**63}))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"null", b"{", b'{"a":1,"a":1}', b'{"a":NaN}', b"[" * 100_000]
)
def test_what_is_no_strict_json_object_is_no_document(kind: str, payload: bytes) -> None:
    with pytest.raises(NotADocument):
        KINDS[kind][1](payload)


def test_every_document_class_orders_as_it_is_compared() -> None:
    assert m.UPDATE.mark == Mark(3, 17)
    assert replace(m.UPDATE, epoch_seq=4, revision=1).mark > m.UPDATE.mark
    assert (m.BEACON.order, m.RECEIPT.order) == ((4, 9), (4, 9))
    assert replace(m.BEACON, boot_seq=5, seq=0).order > m.BEACON.order


def test_only_format_1_is_read() -> None:
    with pytest.raises(NotADocument, match="format: expected 1"):
        ConfigUpdate.parse(changed("config-update", format=2))


@pytest.mark.parametrize(("opening", "closing"), [(b'{"a":', b"}"), (b"[", b"]")])
def test_a_configuration_as_deep_as_a_request_may_be_is_read_by_its_client(
    opening: bytes, closing: bytes
) -> None:
    depth = strict_json.MAX_DEPTH - 1
    body = b'{"deep":' + opening * depth + b"0" + closing * depth + b"}"
    update = replace(m.UPDATE, config=strict_json.loads_object(body))
    assert ConfigUpdate.parse(update.to_bytes()) == update


@pytest.mark.parametrize("number", [2**53, -(2**53)])
def test_the_integers_that_earlier_servers_took_and_signed_are_read_and_no_larger_one(
    number: int,
) -> None:
    update = replace(m.UPDATE, config={"n": [{"deep": number}]})
    assert ConfigUpdate.parse(update.to_bytes()) == update
    beyond = replace(m.UPDATE, config={"n": [{"deep": number + (1 if number > 0 else -1)}]})
    with pytest.raises(NotADocument, match="beyond"):
        ConfigUpdate.parse(beyond.to_bytes())


VARIANT = {"schemas": ["ab"], "config": {}, "defaulted": []}


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ({"content": ""}, "content: expected 1 to 40 characters"),
        ({"content": "x" * 41}, "content: expected 1 to 40 characters"),
        ({"content": 41}, "content: expected a string"),
        ({"variants": None}, "variants: expected a list of objects"),
        ({"variants": ["ab"]}, "variants: expected an object"),
        ({"variants": [VARIANT] * 9}, "variants: expected at most 8"),
        ({"variants": [{**VARIANT, "schemas": [1]}]}, "variants.schemas: expected a list"),
        ({"variants": [{**VARIANT, "config": []}]}, "variants.config: expected an object"),
        ({"variants": [{**VARIANT, "defaulted": None}]}, "variants.defaulted: expected a list"),
    ],
)
def test_a_content_or_variant_outside_its_bounds_is_named(
    member: dict[str, object], message: str
) -> None:
    with pytest.raises(NotADocument) as caught:
        ConfigUpdate.parse(changed("config-update", **member))
    assert message in str(caught.value)


def test_a_content_of_40_characters_and_8_variants_are_read_and_neither_need_be_there() -> None:
    full = replace(m.UPDATE, content="é" * 40, variants=(Variant(("ab",), {"n": 1}, ()),) * 8)
    assert ConfigUpdate.parse(full.to_bytes()) == full
    assert ConfigUpdate.parse(changed("config-update", content=None)).content is None
    variant = {"schemas": [], "config": {}, "tomorrow": 1}
    read = ConfigUpdate.parse(changed("config-update", variants=[variant]))
    assert read.variants == (Variant((), {}, ()),)


@pytest.mark.parametrize(("more", "fits"), [(0, True), (1, False)])
def test_a_variant_may_nest_two_levels_less_than_a_configuration(more: int, fits: bool) -> None:
    deep: Any = 0
    for _ in range(MAX_VARIANT_DEPTH - 1 + more):
        deep = [deep]
    update = replace(m.UPDATE, variants=(Variant(("ab",), {"deep": deep}, ()),))
    if fits:
        assert ConfigUpdate.parse(update.to_bytes()) == update
    else:
        with pytest.raises(NotADocument, match="nested deeper than 33"):
            ConfigUpdate.parse(update.to_bytes())


@pytest.mark.parametrize("secrets", [{"key": "1"}, {"key": -1}, {"key": None}, {"key": 2**53}])
def test_a_secret_is_named_with_its_version(secrets: object) -> None:
    with pytest.raises(NotADocument, match="secrets: expected an integer"):
        ConfigUpdate.parse(changed("config-update", secrets=secrets))


@pytest.mark.parametrize(
    "pair", [[], [1], [1, "d", 2], [1, 2], ["1", "d"], [True, "d"], [-1, "d"], "1d", None, {}]
)
def test_a_snapshot_lists_a_revision_and_a_digest_for_each_service(pair: object) -> None:
    with pytest.raises(NotADocument, match="services: expected"):
        Snapshot.parse(changed("snapshot", services={"a": [1, "d"], "b": pair}))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("running", {}, "running.epoch_seq"),
        ("running", {"epoch_seq": 1, "revision": 1}, "running.digest"),
        ("running", {"epoch_seq": 1, "revision": "1", "digest": ""}, "running.revision"),
        ("running", [], "running: expected an object"),
        ("last_attempt", {}, "last_attempt.revision"),
        ("last_attempt", {"revision": 1}, "last_attempt.stage"),
        ("last_attempt", {"revision": 1, "stage": "applied", "reason": 1}, "last_attempt.reason"),
        ("last_attempt", {"revision": 1, "stage": "applied", "at": 1}, "last_attempt.at"),
        (
            "last_attempt",
            {"revision": 1, "stage": "applied", "took_ms": -1},
            "last_attempt.took_ms",
        ),
        ("overrides", ["a", 1], "overrides: expected a list of strings"),
    ],
)
def test_a_receipt_names_what_is_wrong_inside(name: str, value: object, message: str) -> None:
    with pytest.raises(NotADocument) as caught:
        Receipt.parse(changed("receipt", **{name: value}))
    assert message in str(caught.value)


def test_a_receipt_may_say_that_nothing_runs_and_nothing_was_tried() -> None:
    nothing = replace(m.RECEIPT, running=None, last_attempt=None, correlation_id="a", gone=True)
    assert Receipt.parse(nothing.to_bytes()) == nothing


# -- the root


ID = m.key_id(m.CONFIG_KEY)


def root_with(**changes: Callable[[dict[str, Any]], object]) -> bytes:
    value = json.loads(m.make_root().to_bytes())
    for name, change in changes.items():
        change(value[name])
    return json.dumps(value).encode()


BAD_ROOTS: dict[str, tuple[bytes, str]] = {
    "a key under another id": (
        root_with(keys=lambda keys: keys.update({"0" * 64: keys[ID]})),
        "is not the digest of its key",
    ),
    "a key that is a string": (root_with(keys=lambda keys: keys.update({ID: "x"})), "an object"),
    "a key without its type": (root_with(keys=lambda keys: keys[ID].pop("keytype")), ".keytype:"),
    "a key that is not base64": (
        root_with(keys=lambda keys: keys[ID].update(public="_" * 44)),
        "public is not base64",
    ),
    "a key of 31 bytes": (
        root_with(keys=lambda keys: keys[ID].update(public=base64.b64encode(bytes(31)).decode())),
        "public is not 32 bytes",
    ),
    "a date that is a number": (
        root_with(keys=lambda keys: keys[ID].update(not_after=1)),
        "not_after: expected a string",
    ),
    "no role for beacons": (root_with(roles=lambda r: r.pop("beacon")), "roles: beacon missing"),
    "no roles": (root_with(roles=lambda r: r.clear()), "roles: root, config, beacon missing"),
    "a role that is a list": (root_with(roles=lambda r: r.update(root=[])), "roles.root: expected"),
    "a threshold of none": (
        root_with(roles=lambda r: r["root"].update(threshold=0)),
        "roles.root: threshold 0 of 1",
    ),
    "a threshold over its keys": (
        root_with(roles=lambda r: r["root"].update(threshold=2)),
        "roles.root: threshold 2 of 1",
    ),
    "a threshold that counts one key twice": (
        root_with(roles=lambda r: r["root"].update(threshold=2, keyids=[ID, ID])),
        "roles.root: threshold 2 of 2",
    ),
    "a threshold that is true": (
        root_with(roles=lambda r: r["root"].update(threshold=True)),
        "roles.root.threshold: expected an integer",
    ),
    "a role without keys": (
        root_with(roles=lambda r: r["config"].update(keyids=[])),
        "roles.config: threshold 1 of 0",
    ),
}


@pytest.mark.parametrize("story", BAD_ROOTS)
def test_a_root_that_contradicts_itself_is_refused(story: str) -> None:
    payload, message = BAD_ROOTS[story]
    with pytest.raises(NotADocument) as caught:
        Root.parse(payload)
    assert message in str(caught.value)


def test_a_key_of_a_type_we_cannot_check_is_a_key_we_do_not_have() -> None:
    other = {"keytype": "ml-dsa-65", "public": "AA=="}
    root = Root.parse(root_with(keys=lambda keys: keys.update({"0" * 64: other})))
    assert root == m.make_root()


def test_a_role_that_nobody_knows_is_kept_aside_and_does_no_harm() -> None:
    extra = {"keyids": [ID], "threshold": 1}
    root = Root.parse(root_with(roles=lambda roles: roles.update(targets=extra)))
    assert root.roles["targets"] == KeyRole((ID,), 1)
    assert {**root.roles, **m.make_root().roles} == root.roles


# -- round trips of whatever a writer can say

numbers = st.integers(0, 2**53 - 1)
optional = st.none() | m.texts
names = st.lists(m.texts, max_size=3).map(tuple)
contents = st.none() | m.texts.filter(bool)


@st.composite
def roots(draw: st.DrawFn) -> Root:
    publics = draw(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=4))
    keys = {wire.keyid(public): RootKey(public, draw(optional)) for public in publics}
    roles = {}
    for name in ("root", "config", "beacon"):
        ids = draw(st.lists(st.sampled_from(sorted(keys)), min_size=1, unique=True))
        roles[name] = KeyRole(tuple(ids), draw(st.integers(1, len(ids))))
    return Root(draw(numbers), draw(m.texts), keys, roles)


DOCUMENTS: dict[str, st.SearchStrategy[Document]] = {
    "config-update": st.builds(
        ConfigUpdate,
        service=m.texts, topic=m.texts, config_epoch=m.texts, epoch_seq=numbers, revision=numbers,
        previous=optional, issued_at=m.texts, config=m.json_objects, defaulted=names,
        secrets=st.dictionaries(m.texts, numbers, max_size=3), deleted=st.booleans(),
        correlation_id=m.texts, not_after=optional, content=contents,
        variants=st.lists(st.builds(Variant, names, m.json_objects, names), max_size=3).map(tuple),
    ),
    "snapshot": st.builds(
        Snapshot,
        m.texts, numbers, numbers,
        st.dictionaries(m.texts, st.tuples(numbers, m.texts), max_size=3),
    ),
    "beacon": st.builds(
        Beacon,
        m.texts, numbers, numbers, m.texts, numbers, m.texts, numbers, numbers, m.texts, numbers,
    ),
    "root": roots(),
    "receipt": st.builds(
        Receipt,
        service=m.texts, instance=m.texts, boot_seq=numbers, seq=numbers,
        running=st.none() | st.builds(Running, numbers, numbers, m.texts, contents),
        last_attempt=st.none()
        | st.builds(
            Attempt, numbers, st.sampled_from(["applied", "refused"]), optional, numbers, contents,
            optional, st.none() | numbers,
        ),
        source=st.sampled_from(["broker", "last-known-good", "defaults"]), freshness=m.texts,
        overrides=names, schema=m.texts, library=m.texts, correlation_id=optional,
        gone=st.booleans(), at=m.texts,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DOCUMENTS)
@m.STEADY
@given(data=st.data())
def test_what_a_writer_says_a_reader_hears(kind: str, data: st.DataObject) -> None:
    document = data.draw(DOCUMENTS[kind])
    parse = KINDS[kind][1]
    assert parse(document.to_bytes()) == document
    assert parse(document.to_bytes()).to_bytes() == document.to_bytes()


@pytest.mark.parametrize("kind", KINDS)
@m.STEADY
@given(value=m.json_objects, data=st.data())
def test_any_signed_object_is_a_document_or_is_not(
    kind: str, value: dict[str, object], data: st.DataObject
) -> None:
    """A key that leaked must not also be able to crash who reads."""
    swapped = {
        name: data.draw(m.json_values)
        for name in data.draw(st.lists(st.sampled_from(FIELDS[kind].split()), max_size=2))
    }
    try:
        document = KINDS[kind][1](changed(kind, **(value | swapped)))
    except (NotADocument, UnknownCritical) as error:
        assert str(error)
    else:
        assert KINDS[kind][1](document.to_bytes()) == document


def test_every_class_is_covered_by_a_golden_file() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == {*KINDS, "envelope"}
    assert len(fields(Receipt)) == len(FIELDS["receipt"].split())
