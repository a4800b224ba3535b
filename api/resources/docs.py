"""The API described to those who ask: the OpenAPI document, a page made of it, the problem types."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

from config_manager.api.rest.models import TEXT
from config_manager.api.rest.operations import operation, undescribed
from config_manager.api.rest.parameters import Path
from config_manager.api.rest.problems import Explanation, explanation, problem_type
from config_manager.api.rest.request import Api, ApiRequest, ApiResponse, json_response
from config_manager.config import strict_json
from config_manager.config.errors import DESCRIPTIONS, NotFound, Refusal
from config_manager.config.strict_json import JsonObject

_NAME = Path("name", "the last segment of a problem's type", TEXT, str)
_PAGE_CSP = b"default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'"


@operation("This document", answers={200: dict[str, Any]})
async def openapi(request: ApiRequest, api: Api) -> ApiResponse:  # noqa: ARG001
    return ApiResponse(200, _openapi_bytes())


@undescribed
async def page(request: ApiRequest, api: Api) -> ApiResponse:  # noqa: ARG001
    return ApiResponse(
        200,
        _docs_page(),
        ((b"content-security-policy", _PAGE_CSP),),
        b"text/html; charset=utf-8",
    )


@operation(
    "What a problem's type means",
    answers={200: Explanation},
    problems=(404,),
    takes=(_NAME,),
)
async def problem(request: ApiRequest, api: Api) -> ApiResponse:  # noqa: ARG001
    found = explanation(_NAME.of(request))
    if found is None:
        raise NotFound("no problem of ours has this name")
    return json_response(found)


@cache
def _openapi_bytes() -> bytes:
    return strict_json.dumps(_document())


def _document() -> JsonObject:
    # late: it reads the route table, which names this module
    from config_manager.api.rest import openapi as description

    return description.openapi()


@cache
def _docs_page() -> bytes:
    """The page with the document rendered into it: it needs no script and nothing from outside."""
    template = resources.files("config_manager.api.pages").joinpath("docs.html").read_text("utf-8")
    return template.replace("<!-- operations -->", _operations_html()).encode()


def _operations_html() -> str:
    from html import escape

    parts: list[str] = []
    for path, operations in _document()["paths"].items():
        for method, described in operations.items():
            answers = "".join(
                f"<tr><td>{escape(code)}</td><td>{escape(response['description'])}</td></tr>"
                for code, response in described["responses"].items()
                if "$ref" not in response
            )
            refusals = ", ".join(
                _problem_links(int(code))
                for code, response in described["responses"].items()
                if "$ref" in response
            )
            answers += f"<tr><td>refused</td><td>{refusals}</td></tr>" if refusals else ""
            parameters = "".join(
                f"<tr><td><code>{escape(p['name'])}</code> ({escape(p['in'])})</td>"
                f"<td>{escape(p['description'])}</td></tr>"
                for p in described.get("parameters", [])
            )
            parts.append(
                f"<article><h2><b>{method.upper()}</b> <code>{escape(path)}</code></h2>"
                f"<p>{escape(described['summary'])}</p><table>{parameters}{answers}</table></article>"
            )
    return "\n".join(parts)


def _problem_links(status: int) -> str:
    """A status, and the problems that come with it; each leads to its explanation."""
    names = sorted(
        d.name
        for error, d in DESCRIPTIONS.items()
        if d.status == status and issubclass(error, Refusal) and error is not Refusal
    )
    links = " or ".join(f'<a href="{problem_type(name)}">{name}</a>' for name in names)
    return f"{status} {links}" if links else str(status)
