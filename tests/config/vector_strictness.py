"""Updates that are odd in one thing: strict JSON, envelopes, fields, sizes."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from config_manager.config import strict_json, wire
from config_manager.config.names import OUR_ID
from tests.config.vector_documents import SERVICE, UPDATE, keyid, sign

Odd = tuple[str, str, str | None, dict[str, Any]]
"""Name, message, the refusal's reason (None: taken), what else the case says."""

PLAIN = replace(
    UPDATE, config_epoch="1", config={"n": 1}, defaulted=(), secrets={}, correlation_id="req-1"
)
_TEXT = PLAIN.to_bytes().decode()


def _signed(payload: bytes, *by: str) -> str:
    return sign(wire.CONFIG_UPDATE, payload, *by or ("config",)).to_bytes().decode()


def _with(**changes: Any) -> str:
    return _signed(strict_json.dumps(json.loads(_TEXT) | changes))


def _without(*names: str) -> str:
    left = {key: value for key, value in json.loads(_TEXT).items() if key not in names}
    return _signed(strict_json.dumps(left))


def _config(text: str) -> str:
    """The value of the key `n`, as it is to be written."""
    return _signed(_TEXT.replace('"n":1', f'"n":{text}').encode())


def _enveloped(change: Callable[[dict[str, Any]], object], payload: bytes | None = None) -> str:
    made = json.loads(_signed(payload or PLAIN.to_bytes(), "config"))
    change(made)
    return strict_json.dumps(made).decode()


def odd_updates() -> Iterator[Odd]:
    for name, message, reason in (*_sizes_and_envelopes(), *_signatures(), *_json(), *_fields()):
        yield name, message, reason, {}
    good = _signed(PLAIN.to_bytes())
    most = wire.MAX_ENVELOPE_BYTES
    yield "256 KiB", good, None, {"padded_to": most}
    yield "256 KiB and a byte", good, "too-large", {"padded_to": most + 1}


Case = tuple[str, str, str | None]


def _sizes_and_envelopes() -> Iterator[Case]:
    good = _signed(PLAIN.to_bytes())
    slashed = replace(PLAIN, config={"n": "???>>>~~~"}).to_bytes()
    assert set("+/") & set(base64.b64encode(slashed).decode())

    def signature(made: dict[str, Any]) -> dict[str, Any]:
        first: dict[str, Any] = made["signatures"][0]
        return first

    def url_safe(made: dict[str, Any]) -> None:
        made["payload"] = made["payload"].replace("+", "-").replace("/", "_")

    yield "an envelope in a list", f"[{good}]", "malformed"
    twice = good.replace("{", '{"payloadType":"' + wire.CONFIG_UPDATE + '",', 1)
    yield "a member twice in the envelope", twice, "malformed"
    yield (
        "NUL in a member of the envelope that nobody knows",
        _enveloped(lambda made: made.update(note="a\0b")),
        "malformed",
    )
    yield (
        "a member of the envelope that nobody knows",
        _enveloped(lambda made: made.update(note="hello")),
        None,
    )
    yield (
        "an envelope without signatures",
        _enveloped(lambda made: made.update(signatures=[])),
        "malformed",
    )
    yield (
        "five signatures",
        _enveloped(lambda made: made.update(signatures=made["signatures"] * 5)),
        "malformed",
    )
    yield "base64 with the alphabet for URLs", _enveloped(url_safe, slashed), "malformed"
    yield (
        "base64 without its padding",
        _enveloped(lambda made: signature(made).update(sig=signature(made)["sig"].rstrip("="))),
        "malformed",
    )
    yield (
        "base64 with a line break",
        _enveloped(lambda made: signature(made).update(sig=signature(made)["sig"] + "\n")),
        "malformed",
    )
    yield (
        "a signature without keyid",
        _enveloped(lambda made: signature(made).pop("keyid")),
        "malformed",
    )
    yield (
        "a key id in capitals",
        _enveloped(lambda made: signature(made).update(keyid=keyid("config").upper())),
        "unknown-key",
    )


def _signatures() -> Iterator[Case]:
    both = json.loads(_signed(PLAIN.to_bytes(), "config", "instance"))
    good, strange = both["signatures"]
    bad = {**good, "sig": base64.b64encode(bytes(64)).decode()}
    short = {**good, "sig": base64.b64encode(base64.b64decode(good["sig"])[:63]).decode()}

    def by(*signatures: dict[str, str]) -> str:
        return strict_json.dumps({**both, "signatures": signatures}).decode()

    yield "a signature of 63 bytes", by(short), "bad-signature"
    yield "a bad signature beside one by nobody we know", by(strange, bad), "bad-signature"
    yield "a good signature beside one by nobody we know", by(strange, good), None
    yield "a good signature beside a bad one of the same key", by(bad, good), None


def _json() -> Iterator[Case]:
    def nested(levels: int) -> str:
        return "[" * (levels - 1) + "]" * (levels - 1)

    yield (
        "a member twice in the payload",
        _signed(_TEXT.replace("{", '{"revision":7,', 1).encode()),
        "malformed",
    )
    yield (
        "a key twice in the configuration, once escaped",
        _config('{"a":1,"\\u0061":2}'),
        "malformed",
    )
    yield "NaN", _config("NaN"), "malformed"
    yield "1e400: more than a double holds", _config("1e400"), "malformed"
    yield "a lone surrogate", _config('"\\ud800"'), "malformed"
    yield "a pair of surrogates", _config('"\\ud83d\\ude00"'), None
    yield "NUL", _config('"a\\u0000b"'), "malformed"
    yield "not UTF-8", _signed(_TEXT.encode().replace(b'"n":1', b'"n":"\xff"')), "malformed"
    yield "a byte order mark", _signed(b"\xef\xbb\xbf" + _TEXT.encode()), "malformed"
    yield "a payload in a list", _signed(f"[{_TEXT}]".encode()), "malformed"
    yield "a configuration of 32 levels", _config(nested(32)), None
    yield "a configuration of 33 levels", _config(nested(33)), "malformed"
    yield "2^53 - 1, nested", _config('[{"a":[9007199254740991,-9007199254740991]}]'), None
    yield "2^53 + 1, nested", _config('[{"a":[9007199254740993]}]'), "malformed"
    yield "-(2^53 + 1), nested", _config('[{"a":[-9007199254740993]}]'), "malformed"
    yield "2^63", _config("9223372036854775808"), "malformed"
    yield (
        "written with a fraction or an exponent: doubles",
        _config("[9007199254740993.0,1e300,-0.5]"),
        None,
    )


def _fields() -> Iterator[Case]:
    for name in ("format", "revision", "secrets", "correlation_id"):
        yield f"without {name}", _without(name), "malformed"
    yield (
        "without what may be left out",
        _without("previous", "not_after", "defaulted", "critical"),
        None,
    )
    yield (
        "fields that are not judged",
        _with(config_epoch="one", issued_at="yesterday", previous="the one before"),
        None,
    )
    yield "a field that nobody knows", _with(rollout="10%"), None
    yield "format 2", _with(format=2), "malformed"
    yield "a revision as text", _with(revision="7"), "malformed"
    yield (
        "a revision with a fraction",
        _signed(_TEXT.replace('"revision":7', '"revision":7.0').encode()),
        "malformed",
    )
    yield "a revision below 0", _with(revision=-1), "malformed"
    yield "deleted is null", _with(deleted=None), "malformed"
    yield "a version of a secret as text", _with(secrets={"key": "1"}), "malformed"
    yield "critical is null", _with(critical=None), "malformed"
    yield (
        "critical names fields that every reader knows",
        _with(critical=["config", "critical", "format", "not_after"]),
        None,
    )
    yield (
        "critical names what we do not know, and so is the format",
        _with(critical=["rollout"], format=2),
        "unsupported-critical",
    )
    yield (
        "another service's, on another service's topic, older",
        _with(service=OUR_ID, topic="system/config/" + OUR_ID, revision=1),
        "wrong-service",
    )
    yield "past its not_after: taken, and stale", _with(not_after="2026-01-01T00:00:00Z"), None


assert PLAIN.service == SERVICE
