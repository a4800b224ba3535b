"""The API described to who asks: the OpenAPI document, a page made of it, the problem types."""

from __future__ import annotations

from functools import cache
from importlib import resources

from config_manager.api.endpoint import Api, ApiRequest, ApiResponse, json_response
from config_manager.api.openapi import openapi
from config_manager.api.problems import explanation, problem_type
from config_manager.config import strict_json
from config_manager.config.errors import DESCRIPTIONS, NotFound, Refused

_PAGE_CSP = b"default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'"


async def get_openapi(request: ApiRequest, api: Api) -> ApiResponse:  # noqa: ARG001
    return ApiResponse(200, _openapi_bytes())


async def get_docs(request: ApiRequest, api: Api) -> ApiResponse:  # noqa: ARG001
    return ApiResponse(
        200,
        _docs_page(),
        ((b"content-security-policy", _PAGE_CSP),),
        b"text/html; charset=utf-8",
    )


async def get_problem(request: ApiRequest, api: Api) -> ApiResponse:  # noqa: ARG001
    found = explanation(request.params["name"])
    if found is None:
        raise NotFound("no problem of ours has this name")
    return json_response(found)


@cache
def _openapi_bytes() -> bytes:
    return strict_json.dumps(openapi())


@cache
def _docs_page() -> bytes:
    """The page with the document rendered into it: it needs no script and nothing from outside."""
    template = resources.files("config_manager.api.web").joinpath("docs.html").read_text("utf-8")
    return template.replace("<!-- operations -->", _operations_html()).encode()


def _operations_html() -> str:
    from html import escape

    parts: list[str] = []
    for path, operations in openapi()["paths"].items():
        for method, operation in operations.items():
            answers = "".join(
                f"<tr><td>{escape(code)}</td><td>{escape(response['description'])}</td></tr>"
                for code, response in operation["responses"].items()
                if "$ref" not in response
            )
            refusals = ", ".join(
                _problem_links(int(code))
                for code, response in operation["responses"].items()
                if "$ref" in response
            )
            answers += f"<tr><td>refused</td><td>{refusals}</td></tr>" if refusals else ""
            parameters = "".join(
                f"<tr><td><code>{escape(p['name'])}</code> ({escape(p['in'])})</td>"
                f"<td>{escape(p['description'])}</td></tr>"
                for p in operation.get("parameters", [])
            )
            parts.append(
                f"<article><h2><b>{method.upper()}</b> <code>{escape(path)}</code></h2>"
                f"<p>{escape(operation['summary'])}</p><table>{parameters}{answers}</table></article>"
            )
    return "\n".join(parts)


def _problem_links(status: int) -> str:
    """A status, and the problems that come with it; each leads to its explanation."""
    names = sorted(
        d.name
        for error, d in DESCRIPTIONS.items()
        if d.status == status and issubclass(error, Refused) and error is not Refused
    )
    links = " or ".join(f'<a href="{problem_type(name)}">{name}</a>' for name in names)
    return f"{status} {links}" if links else str(status)
