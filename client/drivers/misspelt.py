"""Variables that seem meant for the service although it has no such field: most are misspelt."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterable, Iterator, Mapping

from pydantic import BaseModel

from config_manager.client.model.validating import has_own_sources
from config_manager.client.state.env_file import OURS, Lines
from config_manager.client.state.log import say

# what Kubernetes and Docker tell of a service of that name
_NEIGHBOURS = re.compile(
    r"SERVICE_HOST|SERVICE_PORT(_.*)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?|NAME|ENV_.*"
)


def say_unknown(
    model: type[BaseModel], prefix: str, environment: Mapping[str, str], env_file: Lines
) -> None:
    """One line for each. Names only: a misspelt variable's value may be a secret."""
    if not prefix:
        return
    names = _known(model, prefix)
    of_neighbours = _tell_of_a_neighbour(prefix.upper(), environment)
    for place, variables in (("environment", environment), (".env", env_file)):
        for name in _unknown(variables, prefix.upper(), names):
            if of_neighbours and _NEIGHBOURS.fullmatch(name.upper().removeprefix(prefix.upper())):
                continue
            say(
                logging.WARNING,
                "unknown variable",
                name=name,
                place=place,
                detail=_hint(name, names),
            )


def _tell_of_a_neighbour(prefix: str, environment: Mapping[str, str]) -> bool:
    """Whether Kubernetes tells of a service of that name, or Docker of a linked container."""
    upper = {name.upper(): value for name, value in environment.items()}
    is_linked = upper.get(prefix + "PORT", "").startswith(("tcp://", "udp://"))
    return is_linked or prefix + "SERVICE_HOST" in upper


def _known(model: type[BaseModel], prefix: str) -> dict[str, bool]:
    """The names in capitals → whether more may follow."""
    if not has_own_sources(model):
        return {(prefix + key).upper(): False for key in model.model_fields}
    # it needs pydantic-settings, which is here then
    from config_manager.client.drivers.own_sources import variable_names

    delimiter = model.model_config.get("env_nested_delimiter") or ""
    known = [name.upper() for names in variable_names(model, prefix).values() for name in names]
    return dict.fromkeys(known, False) | (
        {name + str(delimiter).upper(): True for name in known} if delimiter else {}
    )


def _unknown(variables: Iterable[str], prefix: str, known: Mapping[str, bool]) -> Iterator[str]:
    begins = tuple(name for name, may_follow in known.items() if may_follow)
    for name in variables:
        upper = name.upper()
        is_meant = upper.startswith(prefix) and not upper.startswith(OURS)
        if is_meant and upper not in known and not upper.startswith(begins):
            yield name


def _hint(name: str, known: Mapping[str, bool]) -> str:
    names = [one for one, may_follow in known.items() if not may_follow]
    whole = next((one for one in names if name.upper().startswith(one + "__")), None)
    if whole is not None:
        return f"no field has it; what is within {whole} is written as one JSON object there"
    close = difflib.get_close_matches(name.upper(), names, n=1)
    return f"no field has it; is {close[0]} meant?" if close else "no field has it"
