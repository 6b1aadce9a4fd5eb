"""The coordinator's dashboard: pages made on the server, forms that work without JavaScript, nothing to build.

A browser is let in by a link that an owner's key asked for (`fusionlearn dashboard`), once; then by a cookie. Every
form carries a token made from that cookie, so that no other site can press a button.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import jinja2
from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, RedirectResponse

from fusionlearn.hub import audit, fusions, members, uploads, views
from fusionlearn.hub.hub import Hub
from fusionlearn.hub.members import Member
from fusionlearn.hub.refusal import Refusal
from fusionlearn.hub.store import blob

COOKIE = "fusionlearn_session"
HERE = Path(__file__).parent
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
STATIC = {"hub.css": "text/css", "hub.js": "text/javascript"}
EVENTS = 200  # of the log, on one page


def add(app: FastAPI) -> None:
    """The dashboard's routes."""
    page = app.get
    page("/", include_in_schema=False)(_home)
    page("/login/{secret}", include_in_schema=False)(_log_in)
    page("/static/{name}", include_in_schema=False)(_static)
    page("/tasks/{task}", include_in_schema=False)(_task)
    page("/tasks/{task}/models/{version}", include_in_schema=False)(_model)
    page("/tasks/{task}/models/{version}/report", include_in_schema=False)(_report)
    page("/keys", include_in_schema=False)(_keys)
    page("/log", include_in_schema=False)(_log)
    for path, action in (
        ("/logout", _log_out), ("/tasks/{task}/close", _close), ("/tasks/{task}/fuse", _fuse),
        ("/tasks/{task}/accept", _accept), ("/keys/invite", _invite), ("/keys/revoke", _revoke),
    ):  # fmt: skip
        app.post(path, include_in_schema=False)(action)


# --- who looks ------------------------------------------------------------------------------------------------------


def _hub(request: Request) -> Hub:
    hub: Hub = request.app.state.hub
    return hub


def _owner(request: Request) -> Member:
    member = members.session(_hub(request), request.cookies.get(COOKIE, ""))
    if member.role != "owner":
        raise Refusal(403, "the dashboard is for the project's owners.")
    return member


def _token(request: Request) -> str:
    return hashlib.sha256(b"form " + request.cookies.get(COOKIE, "").encode()).hexdigest()


async def _form(request: Request) -> dict[str, list[str]]:
    """A form's fields, if it came from a page of ours."""
    try:
        fields = parse_qs((await request.body()).decode("utf-8", "replace"), max_num_fields=1000)
    except ValueError as error:
        raise Refusal(422, "a form of this page has fewer fields: load the page again.") from error
    if not hmac.compare_digest(fields.get("token", [""])[0].encode(), _token(request).encode()):
        raise Refusal(403, "this form is out of date: load the page again.")
    return fields


# --- pages ----------------------------------------------------------------------------------------------------------


def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters["size"] = views.size
    return made


ENVIRONMENT = _environment()


def _show(request: Request, name: str, status: int = 200, **values: Any) -> HTMLResponse:
    hub = _hub(request)
    values = {"hub": hub, "now": hub.now(), "ago": lambda moment: views.ago(moment, hub.now()), **values}
    values = {
        "address": str(request.base_url).rstrip("/"),
        "member": None,
        "token": _token(request),
        "refresh": 0,
        "said": _said(request),
        "live": False,
        **values,
    }
    response = HTMLResponse(ENVIRONMENT.get_template(name).render(**values), status)
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Cache-Control"] = "no-store"
    return response


def _guarded(request: Request, made: Any) -> Response:
    """The page, or the page that says why not."""
    try:
        answer: Response = made()
        return answer
    except Refusal as refusal:
        return _show(request, "refused.html", refusal.status, sentence=str(refusal), status_code=refusal.status)


def _home(request: Request) -> Response:
    def made() -> Response:
        owner = _owner(request)
        return _show(request, "home.html", member=owner, tasks=views.task_list(_hub(request), owner), live=True)

    return _guarded(request, made)


def _task(request: Request, task: str) -> Response:
    def made() -> Response:
        owner = _owner(request)
        told = views.task_page(_hub(request), owner, task)
        busy = told["task"]["state"] in ("open", "fusing")
        return _show(request, "task.html", member=owner, live=busy, **told)

    return _guarded(request, made)


def _keys(request: Request) -> Response:
    def made() -> Response:
        owner = _owner(request)
        return _show(request, "keys.html", member=owner, **views.keys_page(_hub(request), owner), code=None)

    return _guarded(request, made)


def _log(request: Request) -> Response:
    def made() -> Response:
        owner, hub = _owner(request), _hub(request)
        with hub.reading() as connection:
            head = audit.lock(connection, owner.project)
            events = audit.events(connection, owner.project, max(0, head.events - EVENTS), EVENTS)
        return _show(request, "log.html", member=owner, events=events[::-1], head=head)

    return _guarded(request, made)


def _model(request: Request, task: str, version: str) -> Response:
    def made() -> Response:
        owner, hub = _owner(request), _hub(request)
        row = fusions.version(hub, owner.project, task, version)
        return _download(hub.store.get(blob(row.sha256)), f"{row.digest[:12]}.model")

    return _guarded(request, made)


def _report(request: Request, task: str, version: str) -> Response:
    def made() -> Response:
        owner, hub = _owner(request), _hub(request)
        row = fusions.version(hub, owner.project, task, version)
        return _download(hub.store.get(blob(row.report_sha256)), f"{row.digest[:12]}.report")

    return _guarded(request, made)


def _download(content: bytes, name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return Response(content, media_type="application/vnd.fusionlearn", headers=headers)


def _static(name: str) -> Response:
    if name not in STATIC:
        raise Refusal(404, "there is nothing at this address.")
    content = (HERE / "static" / name).read_bytes()
    return Response(content, media_type=STATIC[name], headers={"Cache-Control": "public, max-age=300"})


# --- buttons --------------------------------------------------------------------------------------------------------


def _log_in(request: Request, secret: str) -> Response:
    def made() -> Response:
        cookie = members.log_in(_hub(request), secret)
        response = RedirectResponse("/", 303)
        response.set_cookie(
            COOKIE, cookie, httponly=True, samesite="strict", secure=request.url.scheme == "https", path="/",
            max_age=members.SESSION_HOURS * 3600,
        )  # fmt: skip
        return response

    return _guarded(request, made)


async def _pressed(request: Request, action: Any, back: str) -> Response:
    """Run a button's action and go back to its page, with the reason when it was refused."""
    try:
        fields = await _form(request)
        owner = await run_in_threadpool(_owner, request)
        said = await run_in_threadpool(action, owner, fields)
    except Refusal as refusal:
        if refusal.status in (401, 403):
            return _show(request, "refused.html", refusal.status, sentence=str(refusal), status_code=refusal.status)
        said = str(refusal)
    if isinstance(said, Response):
        return said
    words = urlencode({"said": said, "mark": _mark(request, said)}) if said else ""
    return RedirectResponse(f"{back}?{words}" if words else back, 303)


def _mark(request: Request, said: str) -> str:
    """Shows that a sentence in an address is the hub's own, for this browser: nobody's link puts words in its mouth."""
    return hmac.new(request.cookies.get(COOKIE, "").encode(), b"said " + said.encode(), "sha256").hexdigest()


def _said(request: Request) -> str:
    said, mark = request.query_params.get("said", ""), request.query_params.get("mark", "")
    return said if said and hmac.compare_digest(mark.encode(), _mark(request, said).encode()) else ""


async def _log_out(request: Request) -> Response:
    await _form(request)
    await run_in_threadpool(members.log_out, _hub(request), request.cookies.get(COOKIE, ""))
    response = RedirectResponse("/", 303)
    response.delete_cookie(COOKIE)
    return response


async def _close(request: Request, task: str) -> Response:
    def action(owner: Member, _fields: Any) -> None:
        fusions.close(_hub(request), owner, task)

    return await _pressed(request, action, f"/tasks/{task}")


async def _fuse(request: Request, task: str) -> Response:
    def action(owner: Member, fields: dict[str, list[str]]) -> str:
        asked = fusions.again(_hub(request), owner, task, fields.get("without", []), "confirm" in fields)
        return f"Model {asked['version']} is being made from {asked['members']} updates."

    return await _pressed(request, action, f"/tasks/{task}")


async def _accept(request: Request, task: str) -> Response:
    def action(owner: Member, fields: dict[str, list[str]]) -> str:
        uploads.accept(_hub(request), owner, task, fields.get("update", [""])[0])
        return "It counts in the next model: fuse again to make one."

    return await _pressed(request, action, f"/tasks/{task}")


async def _invite(request: Request) -> Response:
    def action(owner: Member, fields: dict[str, list[str]]) -> Response:
        uses = fields.get("uses", ["1"])[0]
        code = members.make_code(
            _hub(request), owner, fields.get("role", ["client"])[0], int(uses) if uses.isdecimal() else 1, 72.0
        )
        return _show(request, "keys.html", member=owner, **views.keys_page(_hub(request), owner), code=code)

    return await _pressed(request, action, "/keys")


async def _revoke(request: Request) -> Response:
    def action(owner: Member, fields: dict[str, list[str]]) -> None:
        members.revoke(_hub(request), owner, fields.get("key", [""])[0])

    return await _pressed(request, action, "/keys")
