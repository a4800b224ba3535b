"""The page about the API, made of the OpenAPI document: it needs no script and nothing from outside."""

from __future__ import annotations

from functools import cache
from html import escape
from importlib import resources

from config_manager.api.rest.openapi import openapi
from config_manager.api.rest.operations import Route, undescribed
from config_manager.api.rest.problems import problem_type
from config_manager.api.rest.request import NO_STORE, Api, ApiRequest, ApiResponse
from config_manager.config.errors import DESCRIPTIONS, Refusal
from config_manager.config.strict_json import JsonObject

_CSP = b"default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'"
_HEADERS = ((b"content-security-policy", _CSP), *NO_STORE)
"""A cache that kept the page could show one caller's `Host` to another, who would send a token there."""


@undescribed
async def page(request: ApiRequest, api: Api) -> ApiResponse:
    base = api.proxies.base_url(request.peer, request.scheme, request.headers)
    shown = _page(api.routes).replace(b"<!-- base -->", escape(str(base)).encode())
    return ApiResponse(200, shown, _HEADERS, b"text/html; charset=utf-8")


@cache
def _page(routes: tuple[Route, ...]) -> bytes:
    template = resources.files("config_manager.api.pages").joinpath("docs.html").read_text("utf-8")
    articles = [
        _article(path, method, described)
        for path, operations in openapi(routes)["paths"].items()
        for method, described in operations.items()
    ]
    return template.replace("<!-- operations -->", "\n".join(articles)).encode()


def _article(path: str, method: str, described: JsonObject) -> str:
    rows = [
        f"<tr><td><code>{escape(p['name'])}</code> ({escape(p['in'])})</td>"
        f"<td>{escape(p['description'])}</td></tr>"
        for p in described.get("parameters", [])
    ]
    refusals: list[str] = []
    for code, response in described["responses"].items():
        if "$ref" in response:
            refusals.append(_problem_links(int(code)))
        else:
            rows.append(f"<tr><td>{code}</td><td>{escape(response['description'])}</td></tr>")
    if refusals:
        rows.append(f"<tr><td>refused</td><td>{', '.join(refusals)}</td></tr>")
    return (
        f"<article><h2><b>{method.upper()}</b> <code>{escape(path)}</code></h2>"
        f"<p>{escape(described['summary'])}</p><table>{''.join(rows)}</table></article>"
    )


def _problem_links(status: int) -> str:
    """A status, and the problems that come with it; each leads to its explanation."""
    names = sorted(
        d.name
        for error, d in DESCRIPTIONS.items()
        if d.status == status and issubclass(error, Refusal) and error is not Refusal
    )
    links = " or ".join(f'<a href="{problem_type(name)}">{name}</a>' for name in names)
    return f"{status} {links}" if links else str(status)
