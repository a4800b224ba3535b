"""The trust root over REST: shown to everybody, changed by administrators."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, ClassVar

from pydantic import Field, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from config_manager.actors import messages
from config_manager.actors.messages import AddSigner, RevokeKey, RotateRole, TakeRoot
from config_manager.api.rest.models import (
    KEY_32,
    SIGNATURE,
    TEXT,
    Answer,
    Body,
    KeyId,
    Reader,
    about,
    in_base64,
    read,
    text,
)
from config_manager.api.rest.operations import operation
from config_manager.api.rest.parameters import Path
from config_manager.api.rest.request import Api, ApiRequest, ApiResponse, json_response
from config_manager.api.rest.writing import ADMINISTRATION, terms_of
from config_manager.config import wire
from config_manager.config.durations import parse_duration
from config_manager.config.errors import MalformedRequest, NotFound
from config_manager.config.public_keys import KEY_BYTES
from config_manager.config.roots import Needs
from config_manager.config.trust import RoleName

_MAX_DIGITS = 9
_DEFAULT_OVERLAP_S = 86_400.0
_HOW_TO_SIGN = (
    "sign `envelope` where those keys are kept (config-manager trust sign --key KEY "
    "--in FILE --out FILE), then bring it back: config-manager trust apply FILE"
)


# ── what it looks like ─────────────────────────────────────────────────────────────────────────


class _Signature(Answer):
    """Ed25519, over DSSE's pre-authentication encoding."""

    keyid: KeyId
    sig: Annotated[str, about("64 bytes in base64")]


class EnvelopeAnswer(Answer):
    """A signed document (DSSE)."""

    payloadType: Annotated[str, about("what the payload is; docs/wire.md lists them")]  # noqa: N815  DSSE's name
    payload: Annotated[str, about("the exact bytes that were signed, in base64")]
    signatures: list[_Signature]
    correlation_id: Annotated[str, about("of the request that it was made for; not signed")] = ""


class _RootSignature(Body):
    """A root key's signature: 64 bytes in base64."""

    keyid: Annotated[str, WithJsonSchema({**TEXT, "pattern": "^[0-9a-f]{64}$"})]
    sig: Annotated[str, WithJsonSchema(SIGNATURE)]


class RootEnvelope(Body):
    """A version of the trust root that was signed elsewhere. It is kept as the very bytes that were sent."""

    payloadType: Annotated[str, WithJsonSchema({**TEXT, "const": wire.ROOT})]  # noqa: N815
    payload: Annotated[str, WithJsonSchema({**TEXT, "pattern": "^([A-Za-z0-9+/]{4})*$"})]
    signatures: Annotated[list[_RootSignature], Field(min_length=1, max_length=4)]


class RotateRequest(Body):
    """Whose key shall be another."""

    REFUSED: ClassVar[str] = "the root was not changed"

    role: Annotated[RoleName, about("what the key signs")]
    overlap: Annotated[
        float,
        Reader(
            lambda value: 0.0 if value in ("0", "0s") else parse_duration(str(value)),
            {
                "type": "string",
                "pattern": "^(0|[1-9][0-9]{0,2}[smhdw])$",
                "description": "how long the old key stays good; 0: not at all; left out: 24h",
            },
        ),
    ] = _DEFAULT_OVERLAP_S


def _parse_public(value: Any) -> bytes:
    try:
        return in_base64(value if isinstance(value, str) else "", KEY_BYTES)
    except ValueError:
        raise ValueError("expected an Ed25519 public key: 32 bytes in base64") from None


def _parse_threshold(value: Any) -> int | None:
    if value is not None and type(value) is not int:
        raise ValueError("expected a whole number")
    return value


class SignerRequest(Body):
    """One more root key."""

    REFUSED: ClassVar[str] = "the root was not changed"

    public: Annotated[
        bytes,
        Reader(
            _parse_public, {**KEY_32, "description": "an Ed25519 public key, 32 bytes in base64"}
        ),
    ]
    threshold: Annotated[
        int | None,
        Reader(
            _parse_threshold,
            {
                "type": ["integer", "null"],
                "minimum": 1,
                "maximum": 3,
                "description": "how many root keys have to sign; null: as many as before",
            },
        ),
    ] = None


class RevokeRequest(Body):
    """Which key no longer counts."""

    REFUSED: ClassVar[str] = "the root was not changed"

    keyid: Annotated[
        str,
        Reader(
            lambda value: text(value, "expected a key's id, or at least its first 8 digits"),
            {
                "type": "string",
                "pattern": "^[0-9a-f]{8,64}$",
                "description": "the key's id, or its first 8 digits",
            },
        ),
    ]


class RoleKeys(Answer):
    """The keys of a role, and how many of them have to sign."""

    keyids: list[KeyId]
    threshold: int


class NeededSignatures(Answer):
    """Signatures that a root version still needs, by the root before it or by itself."""

    version: Annotated[int, about("of the root whose keys have to sign")]
    threshold: Annotated[int, about("how many of them")]
    missing: Annotated[int, about("signatures that are still to come")]
    keyids: Annotated[list[str], about("the keys, any of which may sign")]


class PendingAnswer(Answer):
    """A root version that waits for signatures."""

    envelope: Annotated[EnvelopeAnswer, about("what is to be signed, with the signatures so far")]
    needs: list[NeededSignatures]
    how: Annotated[str, about("what to do, for people")]


class PendingRootAnswer(Answer):
    """The root version that waits for signatures, if one does."""

    pending: Annotated[PendingAnswer | None, about("null: none waits")]


class RootChangeAnswer(Answer):
    """A new version of the trust root."""

    version: Annotated[int, about("of the new root")]
    adopted: Annotated[bool, about("false: it waits for signatures, which `pending` names")]
    roles: Annotated[dict[str, RoleKeys], about("role → its keys")]
    pending: Annotated[
        PendingAnswer | SkipJsonSchema[None],
        about("what is still to be signed, if it is not adopted"),
    ] = None


# ── calls ──────────────────────────────────────────────────────────────────────────────────────


def _parse_root_version(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise MalformedRequest("a root's version is a number, such as 1")
    return int(text)


_VERSION = Path(
    "version",
    "1 is the first",
    {"type": "integer", "minimum": 0, "maximum": 10**_MAX_DIGITS - 1},
    _parse_root_version,
)


_ADOPTED_OR_NOT = "200: it is adopted and published. 202: it waits for signatures of root keys that are kept elsewhere."
_changes_root = partial(
    operation, answers={200: RootChangeAnswer, 202: RootChangeAnswer}, takes=ADMINISTRATION
)


@operation(
    "The current trust root's envelope",
    answers={200: EnvelopeAnswer},
    description="Byte for byte as brokers retain it. `config-manager client trust init --root` pins it.",
)
async def trust_root(request: ApiRequest, api: Api) -> ApiResponse:  # noqa: ARG001
    trust = api.system.trust
    return ApiResponse(200, trust.roots[trust.current.version])


@operation(
    "One version of the trust root",
    answers={200: EnvelopeAnswer},
    problems=(404,),
    takes=(_VERSION,),
    description="Byte for byte as brokers retain it. A client that is behind follows the versions one by one.",
)
async def trust_root_version(request: ApiRequest, api: Api) -> ApiResponse:
    version = _VERSION.of(request)
    root = api.system.trust.roots.get(version)
    if root is None:
        raise NotFound(
            f"there is no root version {version}; the newest is {api.system.trust.current.version}"
        )
    return ApiResponse(200, root)


@operation(
    "The root version that waits for signatures, and whose",
    answers={200: PendingRootAnswer},
    description="`how` says how the missing signatures are made and brought back.",
)
async def pending_root(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    pending = api.system.trust.pending
    shown = None if pending is None else _pending(pending.envelope, pending.needs)
    return json_response(PendingRootAnswer(pending=shown))


@_changes_root(
    "A new key for a role; a new version of the trust root",
    problems=(409,),
    body=RotateRequest,
    description=_ADOPTED_OR_NOT,
)
async def rotate_key(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    body = read(request, RotateRequest)
    message = RotateRole(role=body.role, overlap_s=body.overlap, terms=terms_of(request))
    return _changed(await api.system.trusting.ask(message, request.context))


@_changes_root(
    "One more root key, and how many of them have to sign",
    problems=(409,),
    body=SignerRequest,
    description=_ADOPTED_OR_NOT,
)
async def add_signer(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    body = read(request, SignerRequest)
    message = AddSigner(public=body.public, threshold=body.threshold, terms=terms_of(request))
    return _changed(await api.system.trusting.ask(message, request.context))


@_changes_root(
    "Drop a key from the trust root at once",
    problems=(404, 409),
    body=RevokeRequest,
    description=_ADOPTED_OR_NOT + " What the key signed is no longer believed.",
)
async def revoke_key(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    body = read(request, RevokeRequest)
    message = RevokeKey(key=body.keyid, terms=terms_of(request))
    return _changed(await api.system.trusting.ask(message, request.context))


@_changes_root(
    "Bring a root version that was signed elsewhere",
    problems=(409,),
    body=RootEnvelope,
    description=_ADOPTED_OR_NOT + " Nobody's word is taken for it: the signatures decide.",
)
async def apply_root(request: ApiRequest, api: Api) -> ApiResponse:
    request.json_object()
    message = TakeRoot(envelope=request.body, terms=terms_of(request))
    return _changed(await api.system.trusting.ask(message, request.context))


def _changed(change: messages.RootChange) -> ApiResponse:
    answer = RootChangeAnswer.of(change.root, adopted=not change.needs)
    if not change.needs:
        return json_response(answer)
    pending = _pending(change.envelope, change.needs)
    return json_response(answer.model_copy(update={"pending": pending}), 202)


def _pending(envelope: wire.Envelope, needs: tuple[Needs, ...]) -> PendingAnswer:
    return PendingAnswer.model_validate(
        {"envelope": envelope.to_object(), "needs": needs, "how": _HOW_TO_SIGN}
    )
