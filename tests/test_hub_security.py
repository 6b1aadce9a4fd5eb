"""Who may do what, asked of every route there is; and what strangers, old requests and altered logs can do: nothing."""

from __future__ import annotations

import datetime
import itertools
import json
import logging
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests import hub_world as world
from tests.hub_client import HOST, Answer, Client

from fusionlearn import file, http_signature

pytest.importorskip("fastapi", reason='a hub is needed: pip install "fusionlearn[hub]"')

import sqlalchemy as sa

from fusionlearn.hub import audit, fusions, members, tables, uploads, worker
from fusionlearn.hub import tasks as publishing
from fusionlearn.hub.app import create_app
from fusionlearn.hub.gate import BURST, RATE, Rates
from fusionlearn.hub.pages import COOKIE

OWN, OTHER = "own", "other"
ROLES = {"owner": world.OWNER, "client": 1, "reader": world.READER, "revoked": world.REVOKED}
STRANGER_SAID = "there is no such project here"


class Hub:
    """A hub with two projects, a task with a model in each, and everybody's keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = world.Clock()
        self.hub = world.hub(folder, now=self.clock)
        self.app = create_app(self.hub)
        self.client = Client(self.app, self.clock)
        self.task = world.task(columns=4)
        self.digest = file.digest(self.task)
        self.updates = {number: world.update(number, columns=4) for number in (1, 2, 3, world.OTHER_CLIENT)}
        self._fill(OWN, world.OWNER, (1, 2))
        self._fill(OTHER, world.OTHER_OWNER, (world.OTHER_CLIENT,))
        owner = self.member(OWN, world.OWNER)
        members.enrol(self.hub, owner, world.public(world.READER), "reader", "")
        members.enrol(self.hub, owner, world.public(world.REVOKED), "client", "")
        members.revoke(self.hub, owner, world.public(world.REVOKED))

    def member(self, project: str, number: int) -> Any:
        return members.standing(self.hub, project, world.public(number))

    def _fill(self, project: str, owner: int, clients: tuple[int, ...]) -> None:
        members.make_project(self.hub, project, world.public(owner))
        boss = self.member(project, owner)
        if owner != world.OWNER:  # its task is signed by the first owner, who has to be one there for a moment
            members.enrol(self.hub, boss, world.public(world.OWNER), "owner", "")
        publishing.publish(self.hub, boss, self.digest, world.content(self.task))
        if owner != world.OWNER:
            members.revoke(self.hub, boss, world.public(world.OWNER))
            with self.hub.writing() as connection:
                table = tables.member
                gone = sa.delete(table).where(table.c.project == project, table.c.key == world.public(world.OWNER))
                connection.execute(gone)
        uploading = uploads.Uploads(self.hub)
        for number in clients:
            members.enrol(self.hub, boss, world.public(number), "client", f"client {number}")
            member, _ = uploading.allowed(project, world.public(number), self.digest)
            uploading.receive(member, self.digest, file.digest(self.updates[number]), self.content(number))
        uploading.close()

    def content(self, number: int) -> bytes:
        return world.content(self.updates[number])

    def state(self) -> Any:
        """All that a request may change, replays and sessions aside."""
        ignored = {"nonce", "session"}
        with self.hub.reading() as connection:
            return {
                table.name: sorted(map(repr, connection.execute(sa.select(table))))
                for table in tables.METADATA.sorted_tables
                if table.name not in ignored
            }

    def close(self) -> None:
        self.app.state.uploads.close()
        self.client.close()
        self.hub.close()


def _unlimited(_self: Any, _key: str) -> None:
    """Stands for the limit of requests by one key."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(Rates, "take", _unlimited)
    made = Hub(tmp_path)
    yield made
    made.close()


# --- the matrix -----------------------------------------------------------------------------------------------------

EVERYONE, ANY_KEY, ALL = "everyone", "any key", {"owner", "client", "reader"}
TASK, UPDATE, MODEL = "/tasks/{task}", "/tasks/{task}/updates/{update}", "/tasks/{task}/models/{version}"
MAY: dict[tuple[str, str], Any] = {
    ("GET", "/v1/openapi.json"): EVERYONE,
    ("HEAD", "/v1/openapi.json"): EVERYONE,
    ("GET", "/v1/hub"): EVERYONE,
    ("GET", "/v1/health"): EVERYONE,
    ("GET", "/v1/ready"): EVERYONE,
    ("GET", "/metrics"): EVERYONE,  # on the hub's own machine
    ("POST", "/v1/enrol"): ANY_KEY,
    **{
        (method, "/v1/projects/{project}" + path): who
        for method, path, who in (
            ("POST", "/codes", {"owner"}),
            ("GET", "/keys", {"owner"}),
            ("POST", "/keys", {"owner"}),
            ("POST", "/keys/rotate", ALL),
            ("DELETE", "/keys/{key}", {"owner"}),
            ("POST", "/sessions", {"owner"}),
            ("GET", "/audit", {"owner"}),
            ("GET", "/tasks", ALL),
            ("PUT", TASK, {"owner"}),
            ("GET", TASK, ALL),
            ("GET", TASK + "/status", ALL),
            ("POST", TASK + "/close", {"owner"}),
            ("POST", TASK + "/fuse", {"owner"}),
            ("PUT", UPDATE, {"client"}),
            ("PATCH", UPDATE, {"client"}),
            ("HEAD", UPDATE, {"client"}),
            ("GET", TASK + "/updates", {"owner", "client"}),
            ("GET", UPDATE + "/receipt", {"owner", "client"}),
            ("DELETE", UPDATE, {"client"}),
            ("POST", UPDATE + "/accept", {"owner"}),
            ("GET", TASK + "/models", ALL),
            ("GET", MODEL, ALL),
            ("GET", MODEL + "/report", {"owner"}),
        )
    },
}
IDENTITIES = ("nobody", "garbage", "revoked", "reader", "client", "owner", "other client", "other owner", "stranger",
              "the hub")  # fmt: skip
KEYS = {**ROLES, "other client": world.OTHER_CLIENT, "other owner": world.OTHER_OWNER, "stranger": world.STRANGER,
        "the hub": world.HUB}  # fmt: skip


def routes(app: Any) -> list[tuple[str, str]]:
    """Every method and path the application answers, the dashboard's pages aside."""
    found = [(method, route.path) for route in app.routes for method in sorted(route.methods)]
    return [(method, path) for method, path in found if path.startswith(("/v1", "/metrics"))]


def bodies(hub: Hub, method: str, path: str, number: int) -> tuple[Any, dict[str, str]]:
    """A body that the route could take, and headers."""
    name = path.removeprefix("/v1/projects/{project}")
    proof = world.key(77).sign(f"fusionlearn rotate {OWN} {world.public(number)}".encode()).hex()
    update = hub.content(1)
    return {
        ("POST", "/v1/enrol"): ({"code": "no such code", "name": "x"}, {}),
        ("POST", "/codes"): ({"role": "client", "uses": 1, "hours": 1}, {}),
        ("POST", "/keys"): ({"key": world.public(78), "role": "client", "name": "x"}, {}),
        ("POST", "/keys/rotate"): ({"new": world.public(77), "proof": proof}, {}),
        ("POST", TASK + "/fuse"): ({"without": [], "confirm": True}, {}),
        ("PUT", TASK): (world.content(hub.task), {}),
        ("PUT", UPDATE): (update, {}),
        ("PATCH", UPDATE): (update, {"upload-offset": "0", "upload-length": str(len(update))}),
    }.get((method, name), (b"", {}))


def filled(path: str, project: str, hub: Hub) -> str:
    update = hub.updates[1 if project == OWN else world.OTHER_CLIENT]
    values = {
        "project": project, "task": hub.digest, "update": file.digest(update), "version": "latest",
        "key": world.public(2),
    }  # fmt: skip
    return path.format(**values)


def standing(identity: str, project: str) -> str:
    """What an identity is in a project: a role, "revoked", "unsigned" or "stranger"."""
    if identity in ("nobody", "garbage"):
        return "unsigned"
    if project == OWN:
        return identity if identity in ROLES else "stranger"
    return {"other client": "client", "other owner": "owner"}.get(identity, "stranger")


def request(hub: Hub, identity: str, method: str, path: str, template: str) -> Answer:
    number = KEYS.get(identity, 0)
    body, headers = bodies(hub, method, template, number)
    if identity == "nobody":
        return hub.client(method, path, None, body, headers=headers)
    if identity == "garbage":
        headers = {**headers, "signature": "sig1=:" + "QUJD" * 22 + ":"}
        return hub.client(method, path, world.key(world.OWNER), body, headers=headers)
    return hub.client(method, path, world.key(number), body, headers=headers)


def test_every_route_answers_every_identity_as_it_should(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    found = routes(hub.app)
    assert sorted(found) == sorted(MAY), "a route is new or gone: say here who may use it"
    # Whoever is let through is noted and stopped there, so that every cell finds the same state.
    wrong, cells = [], 0
    before = hub.state()
    for (method, template), project, identity in itertools.product(found, (OWN, OTHER, "nowhere"), IDENTITIES):
        if "{project}" not in template and project != OWN:
            continue
        cells += 1
        who, may = standing(identity, project) if project != "nowhere" else "", MAY[method, template]
        if project == "nowhere":
            who = "unsigned" if identity in ("nobody", "garbage") else "stranger"
        answer = request(hub, identity, method, filled(template, project, hub), template)
        if may == EVERYONE:
            right = answer.status == 200
        elif who == "unsigned":
            right = answer.status == 401
        elif may == ANY_KEY:
            right = answer.status == 403 and "join code" in answer.json()["error"]
        elif who == "stranger":
            right = answer.status == 404 and (method == "HEAD" or STRANGER_SAID in answer.json()["error"])
        elif who == "revoked" or who not in may:
            right = answer.status == 403
        elif (method, template, identity) == ("PUT", "/v1/projects/{project}" + TASK, "other owner"):
            right = answer.status == 403 and "who has signed it" in answer.json()["error"]  # another project's task
        else:
            right = answer.status not in (401, 403, 500) and STRANGER_SAID.encode() not in answer.content
        if not right:
            wrong.append((method, template, project, identity, answer.status, answer.content[:120]))
        if hub.state() != before:
            if may in (EVERYONE, ANY_KEY) or who not in may:
                wrong.append((method, template, project, identity, "it changed something"))
            hub.close()  # begin anew: what an owner may do, the next cell must not find done
            for path in hub.folder.rglob("*"):
                if path.is_file():
                    path.unlink()
            hub.__init__(hub.folder)  # type: ignore[misc]
            before = hub.state()
    assert wrong == []
    assert cells >= 500


@pytest.mark.parametrize("method", ["TRACE", "OPTIONS", "CONNECT", "LINK", "POST", "PUT", "DELETE", "PATCH"])
def test_unknown_addresses_and_methods_are_denied(hub: Hub, method: str) -> None:
    paths = ["/v1", "/v1/", "/v2/hub", "/v1/projects", f"/v1/projects/{OWN}", f"/v1/projects/{OWN}/tasks/",
             "/docs", "/redoc", "/openapi.json", "/v1/hub/", "/v1//hub", "/.env", "/admin"]  # fmt: skip
    for path, key in itertools.product(paths, (None, world.key(world.OWNER))):
        assert hub.client(method, path, key).status in (401, 404, 405), (path, key)
    for path in ("/v1/hub", "/v1/health"):
        assert hub.client(method, path).status in (401, 405)


# --- the dashboard --------------------------------------------------------------------------------------------------

PAGES_FOR_ALL = {("GET", "/login/{secret}"), ("GET", "/static/{name}")}


def test_pages_are_for_the_owner_s_browser_alone(hub: Hub) -> None:
    cookie = members.log_in(hub.hub, members.open_session(hub.hub, hub.member(OWN, world.OWNER)))
    foreign = members.log_in(hub.hub, members.open_session(hub.hub, hub.member(OTHER, world.OTHER_OWNER)))
    pages = [(method, route.path) for route in hub.app.routes for method in sorted(route.methods)]
    pages = [page for page in pages if not page[1].startswith(("/v1", "/metrics")) and page not in PAGES_FOR_ALL]
    assert len(pages) >= 10
    before = hub.state()
    for method, template in pages:
        path = filled(template, OWN, hub)
        form = {"content-type": "application/x-www-form-urlencoded"}
        for given in ("", "garbage", "x" * 5000, cookie[:-1], cookie + "x"):
            answer = hub.client(
                method, path, None, b"token=&key=&digest=", headers={**form, "cookie": f"{COOKIE}={given}"}
            )
            assert answer.status in (401, 403, 303), (method, path, given, answer.status)
            assert answer.status != 303 or template == "/logout"
        if method == "POST":  # the right cookie, sent by a page of somebody else
            answer = hub.client(method, path, None, b"token=guessed", headers={**form, "cookie": f"{COOKIE}={cookie}"})
            assert answer.status == 403, path
    assert hub.state() == before
    assert hub.client("GET", "/", headers={"cookie": f"{COOKIE}={cookie}"}).status == 200
    listed = hub.client("GET", "/keys", headers={"cookie": f"{COOKIE}={foreign}"})
    assert listed.status == 200 and world.public(1)[:16].encode() not in listed.content
    members.revoke(hub.hub, _second_owner(hub), world.public(world.OWNER))
    assert hub.client("GET", "/", headers={"cookie": f"{COOKIE}={cookie}"}).status in (401, 403)  # revoked, at once


def _second_owner(hub: Hub) -> Any:
    members.enrol(hub.hub, hub.member(OWN, world.OWNER), world.public(79), "owner", "")
    return hub.member(OWN, 79)


def test_a_login_link_opens_once_and_not_for_long(hub: Hub) -> None:
    link = members.open_session(hub.hub, hub.member(OWN, world.OWNER))
    assert hub.client("GET", f"/login/{link}").status in (200, 302, 303)
    assert hub.client("GET", f"/login/{link}").status in (401, 403)
    late = members.open_session(hub.hub, hub.member(OWN, world.OWNER))
    hub.clock.ahead += 121
    assert hub.client("GET", f"/login/{late}").status in (401, 403)


# --- names ----------------------------------------------------------------------------------------------------------


def strange_names(count: int) -> list[str]:
    """Paths out of a folder and addresses of other machines, in many spellings."""
    rng = random.Random(11)
    dots = ["..", "%2e%2e", "%252e%252e", ".%2e", "..%00", "%c0%ae%c0%ae", "..;", "．．", "....//"]
    bars = ["/", "%2f", "%5c", "\\", "%252f", "//", "/./", "%c0%af"]
    ends = ["etc/passwd", "key", "hub.db", "store", "windows/win.ini", "proc/self/environ", "root/.ssh/id_ed25519"]
    urls = [
        "http://169.254.169.254/latest/meta-data/", "file:///etc/passwd", "//127.0.0.1:22/", "\\\\host\\share",
        "gopher://127.0.0.1:6379/_", "http://[::1]:80/", "http%3a%2f%2f10.0.0.1%2f", "s3://bucket/key", "C:\\boot.ini",
        "%00", "a%00b", "~root", "$(id)", "`id`", "{{7*7}}", "${jndi:ldap://127.0.0.1/a}", "'; DROP TABLE member;--",
    ]  # fmt: skip
    names = list(urls)
    while len(names) < count:
        names.append("".join(rng.choice(dots) + rng.choice(bars) for _ in range(rng.randint(1, 9))) + rng.choice(ends))
    return names


OPENED: list[str] = []
CONNECTED: list[str] = []
WATCHING = False


def _watch(event: str, details: tuple[Any, ...]) -> None:
    if WATCHING and event == "open" and isinstance(details[0], str | bytes):
        OPENED.append(str(details[0]))
    elif WATCHING and event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system"):
        CONNECTED.append(f"{event} {details[1:]}")


@pytest.fixture
def watched() -> Iterator[None]:
    """What Python opens and connects to, within a test."""
    global WATCHING
    if not getattr(sys, "_fusionlearn_watch", False):
        sys.addaudithook(_watch)
        sys._fusionlearn_watch = True  # type: ignore[attr-defined]
    OPENED.clear()
    CONNECTED.clear()
    WATCHING = True
    yield
    WATCHING = False


def test_no_name_leads_out_of_the_store(hub: Hub, watched: None) -> None:
    templates = [
        "/v1/projects/{}/tasks", f"/v1/projects/{OWN}/tasks/{{}}", f"/v1/projects/{OWN}/tasks/{{}}/status",
        f"/v1/projects/{OWN}/tasks/{hub.digest}/updates/{{}}/receipt",
        f"/v1/projects/{OWN}/tasks/{hub.digest}/models/{{}}", f"/v1/projects/{OWN}/keys/{{}}", "/static/{}",
        "/login/{}", "/tasks/{}",
    ]  # fmt: skip
    secret = (hub.folder / "hub.db").read_bytes()[:16]
    for number, name in enumerate(strange_names(1000)):
        template = templates[number % len(templates)]
        path = template.format(quote(name, safe="/%.;:@$&'()*+,=~"))
        method = "DELETE" if "/keys/" in template else "GET"
        answer = hub.client(method, path, world.key(world.OWNER) if "/v1/" in template else None)
        assert 400 <= answer.status < 500, (path, answer.status)
        assert b"root:" not in answer.content and secret not in answer.content
    for name in ("../etc", "a b", "A", "x" * 41, "-a", ""):  # what an operator might type
        with pytest.raises(Exception, match="no project's name"):
            members.make_project(hub.hub, name, world.public(world.OWNER))
    installed = (sys.prefix, sys.base_prefix, str(Path(__file__).resolve().parent.parent), str(hub.folder))
    assert [name for name in OPENED if name.startswith("/") and not name.startswith(installed)] == []
    assert CONNECTED == []


def test_urls_inside_bodies_are_text(hub: Hub, watched: None) -> None:
    for name in strange_names(60):
        answer = hub.client("POST", "/v1/enrol", world.key(80), {"code": name[:100], "name": name[:200]})
        assert answer.status in (403, 422)
        body = {"without": [name[:80]], "confirm": True}
        path = f"/v1/projects/{OWN}/tasks/{hub.digest}/fuse"
        assert hub.client("POST", path, world.key(world.OWNER), body).status in (404, 422)
    assert CONNECTED == []


# --- replays, clocks, keys ------------------------------------------------------------------------------------------


def test_a_request_is_believed_once(hub: Hub) -> None:
    path = f"/v1/projects/{OWN}/codes"
    nonce, when = "a nonce of sixteen letters", hub.clock()
    body = {"role": "client", "uses": 1, "hours": 1}
    first = hub.client("POST", path, world.key(world.OWNER), body, nonce=nonce, created=when)
    assert first.status == 201
    before = hub.state()
    for _ in range(50):
        assert hub.client("POST", path, world.key(world.OWNER), body, nonce=nonce, created=when).status == 409
    for minutes in range(1, 30):  # for as long as its moment is believed, and after that because it is not
        hub.clock.ahead = 60.0 * minutes
        assert hub.client("POST", path, world.key(world.OWNER), body, nonce=nonce, created=when).status in (401, 409)
    assert hub.state() == before


def test_replays_race_and_one_wins(hub: Hub) -> None:
    path, body = f"/v1/projects/{OWN}/codes", json.dumps({"role": "client", "uses": 1, "hours": 1}).encode()
    import hashlib

    headers = {"host": HOST, "content-type": "application/json", "content-length": str(len(body))}
    signed = http_signature.sign(
        "POST", f"http://{HOST}{path}", headers, hashlib.sha256(body).digest(), world.key(world.OWNER)
    )
    headers |= {name.lower(): value for name, value in signed.items()}

    async def race() -> list[Answer]:
        import asyncio

        return await asyncio.gather(*(hub.client.raw("POST", path, headers, [body]) for _ in range(30)))

    statuses = [answer.status for answer in hub.client.loop.run_until_complete(race())]
    assert sorted(statuses) == [201] + [409] * 29


def test_a_signed_request_serves_no_other_purpose(hub: Hub) -> None:
    """Each covered part altered, and nothing else: another method, path, query, host, body, piece."""
    import hashlib

    content = hub.content(3)
    members.enrol(hub.hub, hub.member(OWN, world.OWNER), world.public(3), "client", "")
    path = f"/v1/projects/{OWN}/tasks/{hub.digest}/updates/{file.digest(hub.updates[3])}"
    base = {"host": HOST, "content-length": str(len(content)), "upload-offset": "0", "upload-length": str(len(content))}
    signed = http_signature.sign("PATCH", f"http://{HOST}{path}", base, hashlib.sha256(content).digest(), world.key(3))
    headers = base | {name.lower(): value for name, value in signed.items()}
    before = hub.state()

    def send(method: str = "PATCH", where: str = path, body: bytes = content, **changed: str) -> int:
        altered = headers | {name.replace("_", "-"): value for name, value in changed.items()}
        altered = {name: value for name, value in altered.items() if value}
        return hub.client.loop.run_until_complete(hub.client.raw(method, where, altered, [body])).status

    other = file.digest(hub.updates[2])
    assert send("PUT") == 401 and send("DELETE") == 401
    assert send(where=path.replace(OWN, OTHER)) == 401
    assert send(where=path.replace(file.digest(hub.updates[3]), other)) == 401
    assert send(where=path + "?x=1") == 401
    assert send(host="another.hub") == 401
    assert send(upload_offset="1") == 401 and send(upload_length="99999999") == 401
    assert send(upload_offset="") == 401  # left out
    assert send(body=content[:-1] + bytes([content[-1] ^ 1]), content_length="") == 400
    assert send(body=content[:-1], content_length="") == 400
    assert send(body=hub.content(2), content_length="") == 400
    assert send(content_digest="") == 401
    assert send(signature="") == 401 and send(signature_input="") == 401
    assert hub.state() == before
    assert send() == 201  # what was signed


@pytest.mark.parametrize(("minutes", "believed"), [(0, True), (5, True), (-5, True), (10, False), (-10, False),
                                                   (60 * 24 * 365, False)])  # fmt: skip
def test_clocks_may_differ_by_five_minutes_and_not_by_ten(hub: Hub, minutes: int, believed: bool) -> None:
    when = hub.clock() + datetime.timedelta(minutes=minutes)
    answer = hub.client("GET", f"/v1/projects/{OWN}/tasks", world.key(1), created=when)
    assert answer.status == (200 if believed else 401)
    assert believed or "clock" in answer.json()["error"]


def test_a_revoked_key_is_refused_at_once(hub: Hub) -> None:
    path = f"/v1/projects/{OWN}/tasks"
    assert hub.client("GET", path, world.key(2)).status == 200
    where = f"/v1/projects/{OWN}/keys/{world.public(2)}"
    assert hub.client("DELETE", where, world.key(world.OWNER)).status == 204
    assert hub.client("GET", path, world.key(2)).status == 403
    update = f"{path}/{hub.digest}/updates/{file.digest(hub.updates[2])}"
    assert hub.client("PUT", update, world.key(2), hub.content(2)).status == 403


@pytest.mark.parametrize("uses", [1, 7])
def test_a_join_code_lets_in_as_many_as_it_says_under_racing_claims(hub: Hub, uses: int) -> None:
    code = members.make_code(hub.hub, hub.member(OWN, world.OWNER), "client", uses, 1)["code"]
    claims = [("POST", "/v1/enrol", world.key(1000 + n), {"code": code, "name": f"n{n}"}) for n in range(100)]
    answers = hub.client.together(claims)
    assert sorted(answer.status for answer in answers) == [201] * uses + [403] * (100 - uses)
    assert len({answer.content for answer in answers if answer.status == 403}) == 1
    with hub.hub.reading() as connection:
        table = tables.member
        joined = sa.select(sa.func.count()).where(table.c.project == OWN, table.c.key.in_(
            [world.public(1000 + n) for n in range(100)]))  # fmt: skip
        assert connection.execute(joined).scalar_one() == uses


def test_one_key_in_a_race_with_itself_joins_once(hub: Hub) -> None:
    code = members.make_code(hub.hub, hub.member(OWN, world.OWNER), "client", 5, 1)["code"]
    claims = [("POST", "/v1/enrol", world.key(2000), {"code": code, "name": "n"}) for _ in range(20)]
    assert {answer.status for answer in hub.client.together(claims)} == {201}
    with hub.hub.reading() as connection:
        assert connection.execute(sa.select(tables.code.c.uses)).scalars().all() == [4]


def test_expired_unknown_and_used_codes_sound_alike(hub: Hub) -> None:
    owner = hub.member(OWN, world.OWNER)
    used = members.make_code(hub.hub, owner, "client", 1, 1)["code"]
    assert hub.client("POST", "/v1/enrol", world.key(2001), {"code": used}).status == 201
    old = members.make_code(hub.hub, owner, "client", 1, 1)["code"]
    hub.clock.ahead += 3601
    answers = {
        hub.client("POST", "/v1/enrol", world.key(2002), {"code": code}).content for code in (used, old, "never was")
    }
    assert len(answers) == 1


def test_a_manufacturer_s_word_is_for_one_key_in_one_project(hub: Hub) -> None:
    maker, device, project = 60, 61, OWN
    members.enrol(hub.hub, hub.member(OWN, world.OWNER), world.public(maker), "manufacturer", "")

    def joins(by: int = maker, of: int = device, place: str = project, signs: int = device, named: int = maker) -> int:
        word = world.key(by).sign(f"fusionlearn device {place} {world.public(of)}".encode()).hex()
        certificate = {"manufacturer": world.public(named), "project": place, "signature": word}
        body = {"certificate": certificate, "name": "meter"}
        return hub.client("POST", "/v1/enrol", world.key(signs), body).status

    before = hub.state()
    assert joins(by=62, named=62) == 403  # a maker nobody enrolled
    assert joins(by=62) == 403  # another's signature under the maker's name
    assert joins(of=63) == 403  # the word for another device
    assert joins(place=OTHER) == 403  # a project that does not know the maker
    assert joins(by=world.OWNER, named=world.OWNER) == 403  # an owner is no manufacturer
    assert hub.state() == before
    assert [joins(), joins()] == [201, 201]  # twice is once
    assert hub.member(OWN, device).role == "client"
    # the maker itself may do nothing here, and vouches for none once it is revoked
    assert hub.client("GET", f"/v1/projects/{OWN}/tasks", world.key(maker)).status == 404
    members.revoke(hub.hub, hub.member(OWN, world.OWNER), world.public(maker))
    assert joins(of=64, signs=64) == 403
    assert hub.member(OWN, device).role == "client"


def test_one_client_s_hundred_racing_uploads_are_one(hub: Hub) -> None:
    """The same update at once gets one receipt; two different ones of a client: one counts, the other is told."""
    members.enrol(hub.hub, hub.member(OWN, world.OWNER), world.public(3), "client", "")
    base = f"/v1/projects/{OWN}/tasks/{hub.digest}/updates/"
    other = world.update(3, again=1, columns=4)
    pair = [(file.digest(hub.updates[3]), hub.content(3)), (file.digest(other), world.content(other))]
    answers = hub.client.together([("PUT", base + pair[n % 2][0], world.key(3), pair[n % 2][1]) for n in range(100)])
    statuses = sorted(answer.status for answer in answers)
    assert statuses == [200] * 49 + [201] + [409] * 50
    receipts = {answer.content for answer in answers if answer.status < 300}
    assert len(receipts) == 1


# --- secrets and records --------------------------------------------------------------------------------------------


def test_planted_canaries_are_nowhere_to_be_read(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    """Join codes, login links, cookies, words in refused bodies: not in logs, errors, metrics, tables or files."""
    caplog.set_level(logging.DEBUG)
    owner = hub.member(OWN, world.OWNER)
    canaries = [members.make_code(hub.hub, owner, "client", 1, 1)["code"] for _ in range(60)]
    links = [members.open_session(hub.hub, owner) for _ in range(60)]
    cookies = [members.log_in(hub.hub, link) for link in links[:30]]
    planted = [f"canary-{n}-{random.Random(n).getrandbits(64):x}" for n in range(60)]
    said = []
    for number, word in enumerate(planted):
        said.append(hub.client("POST", "/v1/enrol", world.key(3000), {"code": word, "name": word}))
        said.append(hub.client("POST", "/v1/enrol", world.key(3000), {word: word}))
        said.append(hub.client("POST", f"/v1/projects/{OWN}/keys", world.key(0), {"key": word, "role": word}))
        said.append(hub.client("PUT", f"/v1/projects/{OWN}/tasks/{hub.digest}?deadline={word}", world.key(0), b"x"))
        said.append(hub.client("PUT", f"/v1/projects/{OWN}/tasks/{hub.digest}/updates/{'0' * 64}", world.key(1),
                               word.encode() * 20))  # fmt: skip
        said.append(hub.client("GET", "/", headers={"cookie": f"{COOKIE}={word}", "authorization": word}))
        if number < len(canaries):
            said.append(hub.client("POST", "/v1/enrol", world.key(3001 + number), {"code": canaries[number]}))
    secrets = [*canaries, *links, *cookies, *planted]
    assert len(secrets) >= 200
    answers = b"\n".join(answer.content for answer in said)
    logs = "\n".join(f"{record.getMessage()} {record.exc_text}" for record in caplog.records)
    metrics = hub.client("GET", "/metrics").content
    stored = b"".join(path.read_bytes() for path in hub.folder.rglob("*") if path.is_file())
    assert not [word for word in secrets if word.encode() in answers]
    assert not [word for word in secrets if word in logs]
    assert not [word for word in secrets if word.encode() in metrics]
    assert not [word for word in secrets if word.encode() in stored]
    for number in ROLES.values():
        assert world.key(number).private_bytes_raw() not in stored
        assert world.key(number).private_bytes_raw().hex().encode() not in stored


def test_files_are_the_operator_s_alone(hub: Hub) -> None:
    for path in [hub.folder / "store", *(hub.folder / "store").rglob("*")]:
        if path.is_dir():
            assert not path.stat().st_mode & 0o077 or not (hub.folder / "store").stat().st_mode & 0o077
    assert not (hub.folder / "store").stat().st_mode & 0o077


# --- the log --------------------------------------------------------------------------------------------------------


def test_every_alteration_of_the_log_is_found(hub: Hub) -> None:
    """A thousand edits, deletions, swaps and insertions; each is undone again."""
    for number in range(20):
        hub.client("POST", f"/v1/projects/{OWN}/codes", world.key(0), {"uses": number + 1})
    rng = random.Random(3)
    table, head = tables.event, tables.project
    with hub.hub.reading() as connection:
        rows = [dict(row._mapping) for row in connection.execute(sa.select(table).where(table.c.project == OWN))]
        top = connection.execute(sa.select(head).where(head.c.name == OWN)).one()
        assert audit.verify(connection, OWN) == ""
    missed = []
    for attempt in range(1000):
        with hub.hub._writing.connect() as connection, connection.begin() as transaction:
            kind = tamper(connection, rng, rows, top)
            if audit.verify(connection, OWN) == "":
                missed.append((attempt, kind))
            transaction.rollback()
    assert missed == []


def tamper(connection: sa.Connection, rng: random.Random, rows: list[dict[str, Any]], top: Any) -> str:
    """One alteration; says which."""
    table, head, upload = tables.event, tables.project, tables.update
    row = rng.choice(rows)
    this = sa.and_(table.c.project == OWN, table.c.number == row["number"])
    kind = rng.choice(("edit", "edit", "edit", "delete", "cut", "swap", "insert", "head", "upload", "rewrite"))
    if kind == "edit":
        column = rng.choice(("at", "kind", "who", "what", "chain"))
        text = row[column]
        place = rng.randrange(len(text))
        letter = rng.choice([letter for letter in "0123456789abcdef" if letter != text[place]])
        connection.execute(sa.update(table).where(this).values({column: text[:place] + letter + text[place + 1 :]}))
    elif kind == "delete":
        connection.execute(sa.delete(table).where(this))
    elif kind == "cut":  # the end of the log, and the head set back to fit
        connection.execute(sa.delete(table).where(table.c.project == OWN, table.c.number >= row["number"]))
        if row["number"] > 1 and rng.random() < 0.5:
            before = rows[row["number"] - 2]
            if any(event["kind"] == "update" for event in rows[row["number"] - 1 :]):  # else it is a shorter true log
                values = {"events": before["number"], "chain": before["chain"]}
                connection.execute(sa.update(head).where(head.c.name == OWN).values(values))
    elif kind == "swap":
        other = rng.choice([event for event in rows if event["number"] != row["number"]])
        for number, new in ((row["number"], -1), (other["number"], row["number"]), (-1, other["number"])):
            moved = sa.update(table).where(table.c.project == OWN, table.c.number == number)
            connection.execute(moved.values(number=new))
    elif kind == "insert":
        connection.execute(sa.insert(table), [{**row, "number": len(rows) + rng.randint(1, 3)}])
    elif kind == "head":
        connection.execute(sa.update(head).where(head.c.name == OWN).values(events=top.events + rng.choice((-1, 1))))
    elif kind == "upload":
        column = rng.choice(("sha256", "digest", "chain"))
        value = f"{rng.getrandbits(256):064x}"
        if column == "digest":
            connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
        connection.execute(sa.update(upload).where(upload.c.project == OWN).values({column: value})
                           .where(upload.c.digest == file.digest(world.update(1, columns=4))))  # fmt: skip
    else:  # all of it anew from one event on, each link right: an update's row and its receipt still tell
        last = max(event["number"] for event in rows if event["kind"] == "update")
        chain = rows[last - 2]["chain"] if last > 1 else audit.START
        for event in rows[last - 1 :]:
            told = event if event["number"] != last else {**event, "who": f"{rng.getrandbits(256):064x}"}
            chain = audit.link(chain, OWN, told["number"], told["at"], told["kind"], told["who"], told["what"])
            where = sa.and_(table.c.project == OWN, table.c.number == told["number"])
            connection.execute(sa.update(table).where(where).values(who=told["who"], chain=chain))
        connection.execute(sa.update(head).where(head.c.name == OWN).values(chain=chain))
    return kind


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("version", {"members": ["0" * 64]}),
        ("version", {"digest": "0" * 64}),
        ("member", {"role": "owner"}),
        ("member", {"revoked": None}),
        ("member", None),
    ],
)
def test_rows_that_the_log_does_not_tell_of_are_found(hub: Hub, table: str, change: dict[str, Any] | None) -> None:
    """Somebody with the database's password lets a key in, makes one valid again, says a model was made of others."""
    hub.client("POST", f"/v1/projects/{OWN}/tasks/{hub.digest}/close", world.key(0))
    while worker.step(hub.hub, "w"):
        pass
    rows = tables.METADATA.tables[table]
    with hub.hub._writing.begin() as connection:
        assert audit.verify(connection, OWN) == ""
        if change is None:
            stranger = {"project": OWN, "key": world.public(70), "person": world.public(70), "role": "client"}
            connection.execute(sa.insert(rows), [{**stranger, "name": "", "since": hub.hub.now(), "revoked": None}])
        else:
            mine = rows.c.project == OWN
            if table == "member":
                mine = sa.and_(mine, rows.c.key == world.public(world.REVOKED))
            assert connection.execute(sa.update(rows).where(mine).values(**change)).rowcount == 1
        assert "the log tells of" in audit.verify(connection, OWN)


def test_a_receipt_holds_the_hub_to_its_log(hub: Hub) -> None:
    from fusionlearn import keys

    path = f"/v1/projects/{OWN}/tasks/{hub.digest}/updates/{file.digest(hub.updates[1])}/receipt"
    told = hub.client("GET", path, world.key(1)).json()
    body = told["receipt"]
    assert keys.verify_bytes(world.public(world.HUB), told["signature"], file.canonical_json(body))
    events = hub.client("GET", f"/v1/projects/{OWN}/audit", world.key(0)).json()
    event = next(event for event in events if event["number"] == body["event"])
    assert event["chain"] == body["chain"] and event["what"]["update"] == body["update"]
    hub.client("POST", f"/v1/projects/{OWN}/tasks/{hub.digest}/close", world.key(0))
    while worker.step(hub.hub, "w"):
        pass
    row = fusions.version(hub.hub, OWN, hub.digest, "latest")
    events = hub.client("GET", f"/v1/projects/{OWN}/audit", world.key(0)).json()
    logged = next(event for event in events if event["kind"] == "fuse")
    assert logged["what"]["members"] == row.members  # the fused set is the logged set


# --- sizes ----------------------------------------------------------------------------------------------------------


def test_too_much_is_refused_before_it_is_read(hub: Hub) -> None:
    owner, client = world.key(world.OWNER), world.key(1)
    base = f"/v1/projects/{OWN}/tasks/{hub.digest}"
    large = {"content-length": str(10**12)}
    assert hub.client("PUT", f"{base}/updates/{'0' * 64}", client, b"x", headers=large).status == 413
    assert hub.client("PUT", base, owner, b"x", headers=large).status == 413
    assert hub.client("POST", f"{base}/fuse", owner, b"x", headers=large).status == 413
    assert hub.client("POST", "/", None, b"x", headers=large).status == 413
    for nonsense in ("", "abc", "-1", "1e3", "²"):
        answer = hub.client("PUT", f"{base}/updates/{'0' * 64}", client, b"x", headers={"content-length": nonsense})
        assert answer.status in (400, 401, 413, 422), (nonsense, answer.status)


def test_forms_of_any_shape_are_refused_in_a_sentence(hub: Hub) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    for body in (b"&".join(b"a=%d" % n for n in range(5000)), b"\xff" * 100, b"=" * 9000, b"%" * 9000, b"{}"):
        for path in ("/logout", f"/tasks/{hub.digest}/close", "/keys/invite"):
            assert hub.client("POST", path, None, body, headers=form).status in (303, 400, 401, 403, 422)


def test_a_key_may_ask_so_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(Rates, "clock", staticmethod(lambda: now))  # a busy machine would make the key slow enough
    made = Hub(tmp_path)
    path = f"/v1/projects/{OWN}/tasks"
    statuses = [made.client("GET", path, world.key(1)).status for _ in range(int(BURST) + 20)]
    assert statuses == [200] * int(BURST) + [429] * 20
    assert made.client("GET", path, world.key(2)).status == 200  # its own bucket
    assert re.search(r"wait", made.client("GET", path, world.key(1)).json()["error"])
    now = 1.0  # a second later
    statuses = [made.client("GET", path, world.key(1)).status for _ in range(int(RATE) + 5)]
    assert statuses == [200] * int(RATE) + [429] * 5
    made.close()


def test_what_is_withdrawn_is_in_no_later_model_even_one_under_way(hub: Hub) -> None:
    """A worker has begun; the client withdraws; what it makes is not published, the next attempt is without it."""
    base = f"/v1/projects/{OWN}/tasks/{hub.digest}"
    assert hub.client("POST", f"{base}/close", world.key(world.OWNER)).status == 202
    job = fusions.claim(hub.hub, "a worker")
    assert job is not None and len(job.members) == 2
    gone = file.digest(hub.updates[2])
    assert hub.client("DELETE", f"{base}/updates/{gone}", world.key(2)).status == 204
    fusions.make(hub.hub, job)
    assert fusions.models(hub.hub, OWN, hub.digest) == []
    again = fusions.claim(hub.hub, "another worker")
    assert again is not None and gone not in again.members
    assert hub.client("DELETE", f"{base}/updates/{file.digest(hub.updates[1])}", world.key(1)).status == 204
    assert fusions.claim(hub.hub, "a third worker") is None  # nothing is left to be made
    status = hub.client("GET", f"{base}/status", world.key(world.OWNER)).json()
    assert status["state"] == "failed" and "withdrawn" in status["sentence"] and status["model"] is None


# --- names, pieces, repetition --------------------------------------------------------------------------------------


def test_a_hub_that_knows_its_names_answers_to_no_other(hub: Hub) -> None:
    path = f"/v1/projects/{OWN}/tasks"
    hub.hub.hosts = frozenset({"hub.example"})
    refused = hub.client("GET", path, world.key(world.READER))
    assert refused.status == 421 and refused.json()["kind"] == "Misdirected"
    hub.hub.hosts = frozenset({HOST, "hub.example"})
    assert hub.client("GET", path, world.key(world.READER)).status == 200


def test_a_key_begins_only_so_many_uploads(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "CHUNK_LEAST", 1)
    path = f"/v1/projects/{OWN}/tasks/{hub.digest}/updates"
    headers = {"upload-offset": "0", "upload-length": "100"}
    statuses = [
        hub.client("PATCH", f"{path}/{number:064x}", world.key(1), b"piece", headers=headers).status
        for number in range(uploads.MOST_UNFINISHED + 1)
    ]
    assert statuses == [204] * uploads.MOST_UNFINISHED + [429]


def test_a_task_published_again_after_its_deadline_is_the_same_task(hub: Hub) -> None:
    boss = hub.member(OWN, world.OWNER)
    task = world.task(columns=3)
    deadline = hub.clock() + datetime.timedelta(hours=1)
    content, digest = world.content(task), file.digest(task)
    assert publishing.publish(hub.hub, boss, digest, content, deadline=deadline)
    hub.clock.ahead += 7200
    assert not publishing.publish(hub.hub, boss, digest, content, deadline=deadline)
