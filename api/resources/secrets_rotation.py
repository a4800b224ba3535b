"""The secrets key over REST: rotated, and how far that is."""

from __future__ import annotations

from typing import Annotated

from config_manager.actors.messages import RotateSecretsKey
from config_manager.actors.secrets_rotating import RotationReport, RotationState
from config_manager.api.rest.models import Answer, Time, about
from config_manager.api.rest.operations import operation
from config_manager.api.rest.request import NO_STORE, Api, ApiRequest, ApiResponse, json_response
from config_manager.api.rest.writing import ADMINISTRATION, terms_of


class KeyRotation(Answer):
    """How far a rotation of the secrets key is."""

    state: Annotated[
        RotationState,
        about("idle: none runs, the rest is about the last one; blocked: `to_do` says why"),
    ]
    done: Annotated[int, about("versions under the new key")]
    total: Annotated[int, about("all versions")]
    unreadable: Annotated[int, about("versions that no key here opens")]
    key_id: Annotated[str, about("of the key that seals now")]
    old_key_id: Annotated[str | None, about("of the key before; null: there was no rotation")]
    new_key_id: Annotated[str | None, about("of the key after; null: there was no rotation")]
    started_at: Time | None
    finished_at: Annotated[Time | None, about("null: it is not finished, or there was none")]
    by: Annotated[str | None, about("the name of the token that began it")]
    correlation_id: Annotated[str | None, about("of the request that began it")]
    to_do: Annotated[str | None, about("what an operator has to do, if anything")]


@operation(
    "How far the rotation of the secrets key is; the last one if none runs",
    answers={200: KeyRotation},
    description="Ask again until `state` is `idle`; `to_do` says what an operator has to do, if anything.",
)
async def secrets_key_rotation(request: ApiRequest, api: Api) -> ApiResponse:
    request.allow_query()
    return json_response(_report(api.system.rotation()), headers=NO_STORE)


@operation(
    "Seal every secret anew under a new key, in the background; while one runs, that one",
    answers={202: KeyRotation},
    problems=(409,),
    takes=ADMINISTRATION,
    description="Secrets stay readable all the while. The old key is given up once nothing is sealed under it any more.",
)
async def rotate_secrets_key(request: ApiRequest, api: Api) -> ApiResponse:
    """One at a time: while one runs, the answer is that one, whichever caller began it."""
    request.allow_query()
    await api.system.rotating.ask(RotateSecretsKey(terms=terms_of(request)), request.context)
    return json_response(_report(api.system.rotation()), 202, headers=NO_STORE)


def _report(report: RotationReport) -> KeyRotation:
    rotation = report.rotation
    return KeyRotation.of(
        report,
        old_key_id=rotation.old if rotation else None,
        new_key_id=rotation.new if rotation else None,
        started_at=rotation.started_at if rotation else None,
        finished_at=rotation.finished_at if rotation else None,
        by=rotation.by if rotation else None,
        correlation_id=rotation.correlation_id if rotation else None,
    )
