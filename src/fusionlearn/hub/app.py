"""The HTTP side: one route for each operation, described truly in OpenAPI.

Routes translate only: who asks, what for, what comes back. What may be done and what happens is in `members`, `tasks`,
`uploads` and `fusions`; signatures, sizes and rates are seen to by `gate` before a route is reached.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import prometheus_client as prometheus
from fastapi import Depends, FastAPI, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from fusionlearn import __version__, file, http_signature
from fusionlearn.hub import audit, fusions, members, pages, tasks, uploads, worker
from fusionlearn.hub.gate import LASTS, SMALL_BODY, Gate
from fusionlearn.hub.hub import Hub
from fusionlearn.hub.members import ROLES, Member
from fusionlearn.hub.refusal import KINDS, Refusal
from fusionlearn.hub.store import Incoming, blob
from fusionlearn.types import UPDATE_HEADER

MOST_TASK = 2**30  # bytes of a task's file
WRITTEN = 256 * 1024  # bytes of a body that are written at a time
MOST_EVENTS = 1000  # in one answer
HEX = "^[0-9a-f]{64}$"
FILE = "application/vnd.fusionlearn"

Project = Annotated[str, Path(pattern="^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$", description="The project's name.")]
TaskDigest = Annotated[str, Path(pattern=HEX, description="The task's digest.")]
UpdateDigest = Annotated[str, Path(pattern=HEX, description="The update's digest.")]
KeyHex = Annotated[str, Path(pattern=HEX, description="An Ed25519 public key.")]
VersionName = Annotated[str, Path(pattern="^(?:latest|[1-9][0-9]{0,8})$", description="A version's number, or latest.")]


# --- what bodies and answers hold -----------------------------------------------------------------------------------


class Strict(BaseModel):
    """A body whose every field is known."""

    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """Why a request was refused."""

    error: str = Field(description="One sentence: what was expected, what came, what to do.")
    kind: str


class Certificate(Strict):
    """A manufacturer's word for a device's key."""

    manufacturer: str = Field(pattern=HEX)
    project: str = Field(max_length=40)
    signature: str = Field(pattern="^[0-9a-f]{128}$", description="Over 'fusionlearn device PROJECT KEY'.")


class Enrolment(Strict):
    """How a key joins: by a code or by a certificate."""

    code: str | None = Field(None, max_length=100)
    certificate: Certificate | None = None
    name: str = Field("", max_length=200, description="What people call this client.")


class CodeWish(Strict):
    """A join code to be made."""

    role: str = Field("client", max_length=16)
    uses: int = Field(1, ge=1, le=members.MOST_USES)
    hours: float = Field(72.0, gt=0, le=members.MOST_HOURS)


class KeyWish(Strict):
    """A key to be enrolled."""

    key: str = Field(pattern=HEX)
    role: str = Field("client", max_length=16)
    name: str = Field("", max_length=200)


class Rotation(Strict):
    """The new key and its signature over 'fusionlearn rotate PROJECT OLD'."""

    new: str = Field(pattern=HEX)
    proof: str = Field(pattern="^[0-9a-f]{128}$")


class Fusion(Strict):
    """Which updates to leave out, and that the owner knows what a second release reveals."""

    without: list[Annotated[str, Field(max_length=80)]] = Field(default_factory=list, max_length=1000)
    confirm: bool = False


class HubView(BaseModel):
    """Who this hub is."""

    hub: str = Field(description="The key that signs models and receipts.")
    name: str
    version: str
    format: str


class Healthy(BaseModel):
    """The hub answers."""

    ok: bool


class Joined(BaseModel):
    """A key's place in a project."""

    project: str
    role: str
    key: str
    hub: str


class CodeView(BaseModel):
    """A join code: shown once, kept as a hash."""

    code: str
    role: str
    uses: int
    expires: str


class KeyView(BaseModel):
    """A key of a project."""

    key: str
    name: str
    role: str
    since: str
    revoked: str | None


class ModelView(BaseModel):
    """A published model."""

    version: int
    digest: str
    made: str
    bytes: int
    members: int


class TaskView(BaseModel):
    """A published task."""

    task: str
    name: str
    method: str
    bytes: int
    max_bytes: int
    state: str
    quorum: int | None
    deadline: str | None
    published: str
    public_model: bool
    model: ModelView | None
    updates: int | None = None


class Published(BaseModel):
    """The task is published."""

    task: str
    project: str


class Yours(BaseModel):
    """The caller's own update."""

    digest: str
    state: str
    received: str


class StatusView(TaskView):
    """How a task stands for the caller."""

    sentence: str
    yours: Yours | None


class UpdateView(BaseModel):
    """An update: who, when, how large; never an array."""

    digest: str
    signer: str
    name: str
    bytes: int
    received: str
    guarantee: str
    state: str
    replaces: str


class ReceiptBody(BaseModel):
    """What the hub says it has."""

    hub: str
    project: str
    task: str
    update: str
    signer: str
    bytes: int
    sha256: str
    received: str
    event: int
    chain: str


class Receipt(BaseModel):
    """The hub's signed word that it has an update; the signature is over the canonical JSON of `receipt`."""

    receipt: ReceiptBody
    signature: str


class StateView(BaseModel):
    """An update's new state."""

    digest: str
    state: str


class Asked(BaseModel):
    """A model is being made."""

    version: int
    members: int


class EventView(BaseModel):
    """An event of the log."""

    number: int
    at: str
    kind: str
    who: str
    what: dict[str, Any]
    chain: str


class SessionView(BaseModel):
    """A link that opens the dashboard once."""

    url: str


# --- who asks -------------------------------------------------------------------------------------------------------


def hub_of(request: Request) -> Hub:
    """The hub this application serves."""
    hub: Hub = request.app.state.hub
    return hub


def caller_of(request: Request) -> http_signature.Signed:
    """Who signed the request; spends the nonce of one that changes something."""
    signed: http_signature.Signed | None = request.scope.get("caller")
    if signed is None:
        raise Refusal(401, "sign the request with your key: see docs/how-to/join.md.")
    if request.method in ("POST", "DELETE"):
        members.spend(hub_of(request), signed.keyid, signed.nonce, LASTS)
    return signed


def one_of(*roles: str) -> Any:
    """A dependency: the caller's standing in the project of the path, if it has one of these roles."""

    def standing(
        project: Project, request: Request, caller: Annotated[http_signature.Signed, Depends(caller_of)]
    ) -> Member:
        member = members.standing(hub_of(request), project, caller.keyid)
        if member.role not in roles:
            raise Refusal(403, f"this needs the role {' or '.join(roles)}; your key is {member.role} here.")
        return member

    standing.roles = roles  # type: ignore[attr-defined]
    return Depends(standing)


async def client_allowed(project: Project, task: TaskDigest, request: Request) -> tuple[Member, int]:
    """The client, and the most bytes of its update: asked in one query, before a body is read."""
    signed: http_signature.Signed | None = request.scope.get("caller")
    if signed is None:
        raise Refusal(401, "sign the request with your key: see docs/how-to/join.md.")
    uploading: uploads.Uploads = request.app.state.uploads
    return await uploading.soon(uploading.allowed, project, signed.keyid, task)


client_allowed.roles = ("client",)  # type: ignore[attr-defined]
Allowed = Annotated[tuple[Member, int], Depends(client_allowed)]


async def the_hub(request: Request) -> Hub:
    """`hub_of` as a dependency: no thread is needed to look it up."""
    return hub_of(request)


TheHub = Annotated[Hub, Depends(the_hub)]
Owner = Annotated[Member, one_of("owner")]
Client = Annotated[Member, one_of("client")]
Anyone = Annotated[Member, one_of(*ROLES)]


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals a route may give, for OpenAPI."""
    every = {400, 401, 403, 404, 405, 408, 409, 413, 421, 422, 429, 503, *statuses}
    return {status: {"model": Problem, "description": KINDS.get(status, "Refused")} for status in sorted(every)}


def binary(status: int, description: str) -> dict[int | str, dict[str, Any]]:
    """An answer that is a file of ours."""
    content = {FILE: {"schema": {"type": "string", "format": "binary"}}}
    return {status: {"description": description, "content": content}}


def body_of_file(what: str) -> dict[str, Any]:
    """A request body that is a file of ours, for OpenAPI."""
    schema = {"type": "string", "format": "binary"}
    content = {FILE: {"schema": schema}, "application/octet-stream": {"schema": schema}}
    return {"requestBody": {"required": True, "description": what, "content": content}}


UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "What the caller has is current."}}


def create_app(hub: Hub, *, workers: int = 0) -> FastAPI:
    """The application for a hub; with `workers` threads that fuse, for a hub of one process."""
    stop, wake = threading.Event(), threading.Event()
    if workers:
        hub.wake = wake.set

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        threads = [threading.Thread(target=worker.work, args=(hub, stop, wake), daemon=True) for _ in range(workers)]
        for thread in threads:
            thread.start()
        yield
        stop.set()
        for thread in threads:
            await run_in_threadpool(thread.join)
        await run_in_threadpool(app.state.uploads.close)

    app = FastAPI(
        title="fusionlearn hub",
        version=__version__,
        description="Publishes tasks, takes each client's update once, fuses them, hands out the model.",
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.hub = hub
    app.state.uploads = uploads.Uploads(hub)
    app.state.metrics = Metrics()
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _no_route)
    _about_the_hub(app)
    _about_keys(app)
    _about_tasks(app)
    _about_updates(app)
    _about_models(app)
    pages.add(app)
    app.add_middleware(Shortcut)
    app.add_middleware(Gate, hub=hub)
    return app


async def _refused(_request: Request, error: Any) -> JSONResponse:
    return JSONResponse({"error": str(error), "kind": error.kind}, error.status, headers=error.headers)


async def _not_valid(_request: Request, error: Any) -> JSONResponse:
    """Which field is wrong and how, without what was sent."""
    first = error.errors()[0]
    if first["type"] == "extra_forbidden":  # its name is the sender's text, too
        sentence = "the body has a field that is not known here."
    else:
        place = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
        sentence = f"{place}: {first['msg']}."
    return JSONResponse({"error": sentence, "kind": "NotValid"}, 422)


async def _no_route(_request: Request, error: Any) -> JSONResponse:
    sentence = {404: "there is nothing at this address.", 405: "this address does not take that method."}
    said = {
        "error": sentence.get(error.status_code, str(error.detail)),
        "kind": KINDS.get(error.status_code, "Refused"),
    }
    return JSONResponse(said, error.status_code, headers=error.headers)


# --- routes ---------------------------------------------------------------------------------------------------------


def _about_the_hub(app: FastAPI) -> None:
    @app.get("/v1/hub", responses=answers(), tags=["hub"])
    def who(hub: TheHub) -> HubView:
        """The hub's key, name and version. Open to anyone."""
        return HubView(hub=hub.public, name=hub.name, version=__version__, format=file.FORMAT)

    @app.get("/v1/health", responses=answers(), tags=["hub"])
    def health() -> Healthy:
        """The process answers. Open to anyone."""
        return Healthy(ok=True)

    @app.get("/v1/ready", responses=answers(), tags=["hub"])
    def ready(hub: TheHub) -> Healthy:
        """Database and store answer too. Open to anyone."""
        hub.check()
        return Healthy(ok=True)

    @app.get("/metrics", include_in_schema=False)
    def metrics(request: Request, hub: TheHub) -> Response:
        if request.client is None or request.client.host not in ("127.0.0.1", "::1", "testclient"):
            raise Refusal(403, "metrics are told on the hub's own machine only.")
        with contextlib.suppress(Refusal):
            request.app.state.metrics.pending.set(fusions.pending(hub))
        return Response(
            prometheus.generate_latest(request.app.state.metrics.registry), media_type=prometheus.CONTENT_TYPE_LATEST
        )


class Metrics:
    """What this process counts; no name, key or digest is a label."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        self.uploads = prometheus.Counter(
            "fusionlearn_uploads", "Uploads by the status answered.", ["status"], registry=self.registry
        )
        self.bytes = prometheus.Counter(
            "fusionlearn_upload_bytes", "Bytes of updates taken in.", registry=self.registry
        )
        self.pending = prometheus.Gauge(
            "fusionlearn_models_wanted", "Models that wait to be made.", registry=self.registry
        )


def _about_keys(app: FastAPI) -> None:
    base = "/v1/projects/{project}"

    @app.post("/v1/enrol", status_code=201, responses=answers(), tags=["keys"])
    def enrol(wish: Enrolment, hub: TheHub, caller: Annotated[http_signature.Signed, Depends(caller_of)]) -> Joined:
        """Join a project with the key that signs this request, by a join code or a manufacturer's certificate."""
        certificate = wish.certificate.model_dump() if wish.certificate else None
        member = members.join(hub, caller.keyid, wish.name, wish.code, certificate)
        return Joined(project=member.project, role=member.role, key=member.key, hub=hub.public)

    @app.post(base + "/codes", status_code=201, responses=answers(), tags=["keys"])
    def make_code(wish: CodeWish, hub: TheHub, owner: Owner) -> CodeView:
        """Make a join code, or a batch token: a code with many uses."""
        return CodeView(**members.make_code(hub, owner, wish.role, wish.uses, wish.hours))

    @app.get(base + "/keys", responses=answers(), tags=["keys"])
    def list_keys(hub: TheHub, owner: Owner) -> list[KeyView]:
        """Every key the project has or had."""
        return [KeyView(**entry) for entry in members.listed(hub, owner.project)]

    @app.post(base + "/keys", status_code=201, responses=answers(), tags=["keys"])
    def enrol_key(wish: KeyWish, hub: TheHub, owner: Owner) -> Joined:
        """Enrol a key the owner knows; a manufacturer's key may vouch for devices."""
        member = members.enrol(hub, owner, wish.key, wish.role, wish.name)
        return Joined(project=member.project, role=member.role, key=member.key, hub=hub.public)

    @app.post(base + "/keys/rotate", responses=answers(), tags=["keys"])
    def rotate(wish: Rotation, hub: TheHub, member: Anyone) -> Joined:
        """A new key takes this one's place; both have signed."""
        made = members.rotate(hub, member, wish.new, wish.proof)
        return Joined(project=made.project, role=made.role, key=made.key, hub=hub.public)

    @app.delete(base + "/keys/{key}", status_code=204, responses=answers(), tags=["keys"])
    def revoke(key: KeyHex, hub: TheHub, owner: Owner) -> None:
        """Revoke a key: it may do nothing from now on."""
        members.revoke(hub, owner, key)

    @app.post(base + "/sessions", status_code=201, responses=answers(), tags=["keys"])
    def open_session(hub: TheHub, owner: Owner) -> SessionView:
        """A link that opens the dashboard in a browser, once, within two minutes."""
        return SessionView(url=f"/login/{members.open_session(hub, owner)}")

    @app.get(base + "/audit", responses=answers(), tags=["keys"])
    def read_log(hub: TheHub, owner: Owner, after: Annotated[int, Query(ge=0, le=2**53)] = 0) -> list[EventView]:
        """The project's log, at most a thousand events after the one named."""
        with hub.reading() as connection:
            return [EventView(**event) for event in audit.events(connection, owner.project, after, MOST_EVENTS)]


def _about_tasks(app: FastAPI) -> None:
    base = "/v1/projects/{project}/tasks"

    @app.put(
        base + "/{task}", status_code=201, tags=["tasks"], openapi_extra=body_of_file("The signed task file."),
        responses={**answers(), 200: {"model": Published, "description": "It was published before."}},
    )  # fmt: skip
    async def publish(
        task: TaskDigest,
        request: Request,
        response: Response,
        hub: TheHub,
        owner: Owner,
        quorum: Annotated[int | None, Query(ge=1, le=tasks.MOST_QUORUM)] = None,
        deadline: Annotated[datetime.datetime | None, Query(description="ISO 8601, with its time zone.")] = None,
        model: Annotated[
            str, Query(pattern="^(?:members|public)$", description="Who may fetch the model.")
        ] = "members",
    ) -> Published:
        """Publish a task that an owner has signed."""
        content = await whole_body(request, MOST_TASK)
        if deadline is not None and deadline.tzinfo is None:
            raise Refusal(422, "deadline: give its time zone, such as 2030-01-31T12:00:00Z.")
        made = await run_in_threadpool(
            tasks.publish, hub, owner, task, content,
            quorum=quorum, deadline=deadline, public_model=model == "public",
        )  # fmt: skip
        response.status_code = 201 if made else 200
        return Published(task=task, project=owner.project)

    @app.get(base, responses=answers(), tags=["tasks"])
    def list_tasks(hub: TheHub, member: Anyone) -> list[TaskView]:
        """The project's tasks, the latest first."""
        return [TaskView(**entry) for entry in tasks.listed(hub, member)]

    @app.get(
        base + "/{task}", response_class=Response, tags=["tasks"],
        responses={**answers(), **UNCHANGED, **binary(200, "The task's file.")},
    )  # fmt: skip
    def fetch_task(
        task: TaskDigest, hub: TheHub, member: Anyone, if_none_match: Annotated[str | None, Header()] = None
    ) -> Response:
        """The task's file."""
        content = tasks.content(hub, member.project, task)
        return cached(task, if_none_match, lambda: Response(content, media_type=FILE))

    @app.get(base + "/{task}/status", response_model=StatusView, tags=["tasks"], responses={**answers(), **UNCHANGED})
    def status(
        task: TaskDigest, hub: TheHub, member: Anyone, if_none_match: Annotated[str | None, Header()] = None
    ) -> Response:
        """How the task stands for the caller; cheap to poll with If-None-Match."""
        told, tag = tasks.status(hub, member, task)
        return cached(tag, if_none_match, lambda: JSONResponse(told))

    @app.post(base + "/{task}/close", status_code=202, responses=answers(), tags=["tasks"])
    def close(task: TaskDigest, hub: TheHub, owner: Owner) -> Published:
        """Take no more updates and fuse those that are here."""
        fusions.close(hub, owner, task)
        return Published(task=task, project=owner.project)

    @app.post(base + "/{task}/fuse", status_code=202, responses=answers(), tags=["tasks"])
    def fuse(task: TaskDigest, wish: Fusion, hub: TheHub, owner: Owner) -> Asked:
        """Fuse again: with late updates let in, without those withdrawn or excluded."""
        return Asked(**fusions.again(hub, owner, task, wish.without, wish.confirm))


def _about_updates(app: FastAPI) -> None:
    base = "/v1/projects/{project}/tasks/{task}/updates"
    taken: dict[int | str, dict[str, Any]] = {
        200: {"model": Receipt, "description": "This very update is here already."},
        202: {"model": Receipt, "description": "It is here, and waits for the owner."},
    }

    @app.put(
        base + "/{update}", status_code=201, response_model=Receipt, tags=["updates"],
        responses={**answers(), **taken}, openapi_extra=body_of_file("The whole update file."),
    )  # fmt: skip
    async def upload(task: TaskDigest, update: UpdateDigest, request: Request, allowed: Allowed) -> Response:
        """Upload an update, once: the same again gets the same receipt, other bytes by the same signer are refused."""
        return await take(request, allowed[0].project, task, update)

    @app.patch(
        base + "/{update}", status_code=201, response_model=Receipt, tags=["updates"],
        responses={**answers(), **taken, 204: {"description": "More is to come, from Upload-Offset on."}},
        openapi_extra=body_of_file("A piece of the update file."),
    )  # fmt: skip
    async def upload_piece(
        task: TaskDigest,
        update: UpdateDigest,
        request: Request,
        allowed: Allowed,
        upload_offset: Annotated[int, Header(ge=0, le=2**40)],
        upload_length: Annotated[int, Header(ge=1, le=2**40)],
    ) -> Response:
        """Upload a piece; an upload that was cut goes on from where HEAD says."""
        member, most = allowed
        content = await whole_body(request, uploads.CHUNK_MOST)
        uploading: uploads.Uploads = request.app.state.uploads
        done = await run_in_threadpool(
            uploading.append, member, task, update, upload_offset, upload_length, content,
            most + UPDATE_HEADER,
        )  # fmt: skip
        if isinstance(done, int):
            return Response(status_code=204, headers={"Upload-Offset": str(done)})
        return _counting(request, done, len(content))

    @app.head(base + "/{update}", response_class=Response, responses=answers(), tags=["updates"])
    def upload_offset(task: TaskDigest, update: UpdateDigest, request: Request, allowed: Allowed) -> Response:
        """How many bytes of this update are here."""
        uploading: uploads.Uploads = request.app.state.uploads
        offset, complete = uploading.offset(allowed[0], task, update)
        return Response(headers={"Upload-Offset": str(offset), "Upload-Complete": "?1" if complete else "?0"})

    @app.get(base, responses=answers(), tags=["updates"])
    def list_updates(
        task: TaskDigest, hub: TheHub, member: Annotated[Member, one_of("owner", "client")]
    ) -> list[UpdateView]:
        """Who sent what, when and how large; a client sees its own."""
        return [UpdateView(**entry) for entry in uploads.listed(hub, member, task)]

    @app.get(base + "/{update}/receipt", responses=answers(), tags=["updates"])
    def receipt(
        task: TaskDigest, update: UpdateDigest, hub: TheHub, member: Annotated[Member, one_of("owner", "client")]
    ) -> Receipt:
        """The receipt again."""
        return Receipt(**uploads.receipt(hub, member, task, update))

    @app.delete(base + "/{update}", status_code=204, responses=answers(), tags=["updates"])
    def withdraw(task: TaskDigest, update: UpdateDigest, hub: TheHub, member: Client) -> None:
        """Take one's own update back; it is in no later model."""
        uploads.withdraw(hub, member, task, update)

    @app.post(base + "/{update}/accept", responses=answers(), tags=["updates"])
    def accept(task: TaskDigest, update: UpdateDigest, hub: TheHub, owner: Owner) -> StateView:
        """Let in a late update, a replacement, or one that was excluded."""
        return StateView(**uploads.accept(hub, owner, task, update))


async def take(request: Request, project: str, task: str, update: str) -> Response:
    """Read an upload's body, take it in, tell. A small body is read at once, a larger one only from who may send it."""
    signed, body = request.scope["caller"], request.scope["body"]
    uploading: uploads.Uploads = request.app.state.uploads
    content: bytes | Incoming
    if signed is None or (body.length or MOST_TASK) > SMALL_BODY:
        _, most = await client_allowed(project, task, request)
        content = await written(request, most + UPDATE_HEADER, uploading)
    else:
        content = await whole_body(request, SMALL_BODY)
    taken = await uploading.receive_soon(project, signed.keyid, task, update, content, body.sha256)
    return _counting(request, taken, body.seen)


class Shortcut:
    """Whole uploads on a shorter way: what the route `upload` does, without looking for it among all routes.

    A hub spends its day here, and the general way (route, dependencies, their threads, the answer's model) takes longer
    than checking the update. Whatever is not exactly an upload's address goes the general way.
    """

    ADDRESS = re.compile(
        r"/v1/projects/([a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?)/tasks/([0-9a-f]{64})/updates/([0-9a-f]{64})"
    )

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """An upload, or what comes after this."""
        found = self.ADDRESS.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "PUT" else None
        if found is None:
            await self.app(scope, receive, send)
            return
        project, task, update = found.groups()
        response = await take(Request(scope, receive), project, task, update)
        await response(scope, receive, send)


def _counting(request: Request, taken: uploads.Taken, num_bytes: int) -> Response:
    metrics: Metrics = request.app.state.metrics
    metrics.uploads.labels(str(taken.status)).inc()
    if taken.status != 200:
        metrics.bytes.inc(num_bytes)
    return JSONResponse(taken.receipt, taken.status)


def _about_models(app: FastAPI) -> None:
    base = "/v1/projects/{project}/tasks/{task}/models"

    def reader(project: Project, task: TaskDigest, request: Request) -> None:
        """Members may fetch the model, and anyone may where the task was published so."""
        hub = hub_of(request)
        signed: http_signature.Signed | None = request.scope.get("caller")
        if signed is not None:
            members.standing(hub, project, signed.keyid)
        elif not fusions.public_model(hub, project, task):
            raise Refusal(401, "sign the request with your key: see docs/how-to/join.md.")

    reader.roles = ROLES  # type: ignore[attr-defined]

    @app.get(base, responses=answers(), tags=["models"])
    def list_models(task: TaskDigest, hub: TheHub, member: Anyone) -> list[ModelView]:
        """Every version of the model."""
        return [ModelView(**entry) for entry in fusions.models(hub, member.project, task)]

    @app.get(
        base + "/{version}", response_class=Response, dependencies=[Depends(reader)], tags=["models"],
        responses={**answers(), **UNCHANGED, **binary(200, "The model's file.")},
    )  # fmt: skip
    def fetch_model(
        project: Project, task: TaskDigest, version: VersionName, hub: TheHub,
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> Response:  # fmt: skip
        """A model's file, signed by the hub."""
        row = fusions.version(hub, project, task, version)
        return cached(row.digest, if_none_match, lambda: streamed(hub, row.sha256, row.bytes))

    @app.get(
        base + "/{version}/report", response_class=Response, tags=["models"],
        responses={**answers(), **binary(200, "The report's file.")},
    )  # fmt: skip
    def fetch_report(task: TaskDigest, version: VersionName, hub: TheHub, owner: Owner) -> Response:
        """The report on single clients; for the owner."""
        row = fusions.version(hub, owner.project, task, version)
        return Response(hub.store.get(blob(row.report_sha256)), media_type=FILE)


# --- bodies ---------------------------------------------------------------------------------------------------------


async def pieces_of(request: Request, most: int) -> AsyncIterator[bytes]:
    """A body of at most so many bytes as it comes; the gate has checked its digest by the time it ends."""
    length = request.headers.get("content-length")
    if length is not None and int(length) > most:
        raise Refusal(413, f"the body has {length} bytes; {most} are allowed here.")
    seen = 0
    async for piece in request.stream():
        seen += len(piece)
        if seen > most:
            raise Refusal(413, f"the body has more than the {most} bytes allowed here.")
        yield piece


async def whole_body(request: Request, most: int) -> bytes:
    """A body, whole in memory."""
    return b"".join([piece async for piece in pieces_of(request, most)])


async def written(request: Request, most: int, uploading: uploads.Uploads) -> Incoming:
    """A body in a file of the store, written while the next pieces come; the caller closes it."""
    incoming = await uploading.soon(uploading.hub.store.incoming)
    writing: asyncio.Future[None] | None = None
    held: list[bytes] = []
    try:
        try:
            async for piece in pieces_of(request, most):
                held.append(piece)
                if sum(map(len, held)) >= WRITTEN:
                    if writing is not None:
                        await writing
                    writing = asyncio.ensure_future(uploading.soon(incoming.write, held))
                    held = []
        finally:
            if writing is not None:
                await writing
        await uploading.soon(incoming.write, held)
    except BaseException:
        await uploading.soon(incoming.close)
        raise
    return incoming


def cached(tag: str, known: str | None, made: Callable[[], Response]) -> Response:
    """304 when the caller has this already."""
    quoted = f'"{tag}"'
    if known is not None and quoted in (part.strip() for part in known.split(",")):
        return Response(status_code=304, headers={"ETag": quoted})
    response = made()
    response.headers["ETag"] = quoted
    response.headers["Cache-Control"] = "private, no-cache"
    return response


def streamed(hub: Hub, sha256: str, size: int) -> Response:
    """An object's bytes as they come from the store."""

    def pieces() -> Iterator[bytes]:
        yield from hub.store.pieces(blob(sha256))

    return StreamingResponse(pieces(), media_type=FILE, headers={"Content-Length": str(size)})
