"""The agent: one contact over real sockets, with hubs and networks that misbehave, and what a site keeps of it."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import http.server
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("httpx", reason="an agent needs the extra 'agent'")
pytest.importorskip("fastapi", reason="a hub needs the extra 'hub'")
from click.testing import CliRunner
from tests import rounds
from tests.hub_process import Served

from fusionlearn import cli, file, keys, run
from fusionlearn.agent import contact, site, wire
from fusionlearn.agent.site import Contact
from fusionlearn.errors import FusionlearnError, HubError, SettingsError, SignatureError
from fusionlearn.types import Model

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
EXAMPLE = Path(__file__).parents[1] / "examples" / "hospitals"


# --- a whole round --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    hub = Served(tmp_path_factory.mktemp("hub"))
    hub.start()
    yield hub
    hub.stop()


def as_user(home: Path, *arguments: object, answer: str | None = None) -> dict[str, Any]:
    """A command as this user would run it; its JSON."""
    environment = {"FUSIONLEARN_HOME": str(home), "FUSIONLEARN_KEY": ""}
    given = [*map(str, arguments), "--json"]
    done = CliRunner().invoke(cli.main, given, env=environment, input=answer)
    lines = [line for line in done.stdout.splitlines() if line.startswith(("{", "["))]
    return {**(json.loads(lines[0]) if lines else {}), "status": done.exit_code, "said": done.output}


def csv_of(path: Path, data: dict[str, Any]) -> Path:
    names = list(data)
    rows = [",".join(str(data[name][row]) for name in names) for row in range(len(data[names[0]]))]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([",".join(names), *rows]) + "\n", encoding="utf-8")
    return path


def owner_home(served: Served, tmp_path: Path) -> Path:
    """The operator's own home: the hub's key is its owner's."""
    home = tmp_path / "owner"
    home.mkdir()
    for name in ("key", "key.pub"):
        source = served.folder / name
        if source.exists():
            (home / name.replace("key", "key.pem")).write_bytes(source.read_bytes())
    (home / "key.pem").chmod(0o600)
    return home


def published(served: Served, home: Path, name: str, *options: object) -> str:
    """A signed task on the hub; its digest."""
    import dataclasses

    task = file.sign(dataclasses.replace(rounds.task(signed=False), name=name), keys.load(home / "key.pem"))
    path = home / f"{name}.task"
    file.write(path, task)
    made = as_user(home, "publish", path, "--hub", served.url, *options)
    assert made["status"] == 0, made["said"]
    return file.digest(task)


def test_a_round_is_that_of_the_files(served: Served, tmp_path: Path):
    home = owner_home(served, tmp_path)
    task = published(served, home, "a round", "--quorum", 3)
    digests = []
    for number in (1, 2, 3):
        code = as_user(home, "invite", "--hub", served.url)["code"]
        data = csv_of(tmp_path / f"site{number}.csv", rounds.records(number, 80))
        last = ["--wait", "--timeout", "60s"] if number == 3 else []
        joined = as_user(
            tmp_path / f"site{number}", "join", served.url, "--code", code, "--task", task, "--data", data,
            "--name", f"site {number}", "--accept-small-cells", *last,
        )  # fmt: skip
        assert joined["status"] == 0, joined["said"]
        digests.append(joined["receipt"]["update"])
    assert set(joined["comparison"]) == {"local", "fused"} and joined["comparison"]["fused"]["rows"] > 5
    fetched = as_user(tmp_path / "site1", "fetch", served.url, "--task", task, "-o", tmp_path / "model")
    assert fetched["status"] == 0, fetched["said"]
    updates = [next((tmp_path / f"site{number}" / "sites").glob("*/update")) for number in (1, 2, 3)]
    fused = as_user(home, "fuse", home / "a round.task", *updates, "-o", tmp_path / "by-files")
    assert fused["digest"] == fetched["digest"] == joined["model"]["digest"]
    told = as_user(tmp_path / "site2", "status", served.url, "--task", task)
    assert told["status"] == 0 and told["state"] == "published" and told["yours"]["digest"] == digests[1]
    listed = as_user(home, "updates", task, "--hub", served.url)["updates"]
    assert [entry["name"] for entry in listed] == ["site 1", "site 2", "site 3"]


def test_joining_again_sends_the_same_and_nothing_else(served: Served, tmp_path: Path):
    home = owner_home(served, tmp_path)
    task = published(served, home, "again")
    code = as_user(home, "invite", "--hub", served.url)["code"]
    data = csv_of(tmp_path / "a.csv", rounds.records(4, 80))
    given = ("join", served.url, "--task", task, "--data", data, "--accept-small-cells")
    first = as_user(tmp_path / "site", *given, "--code", code)
    csv_of(tmp_path / "a.csv", rounds.records(5, 80))  # the table changed meanwhile: what was made is sent all the same
    second = as_user(tmp_path / "site", *given)
    assert first["status"] == second["status"] == 0
    assert first["receipt"] == second["receipt"]
    waiting = as_user(tmp_path / "site", "status", served.url, "--task", task)
    assert waiting["status"] == 3 and waiting["model"] is None
    stranger = as_user(tmp_path / "stranger", *given)
    assert stranger["status"] == 1 and "--code" in stranger["error"]
    used = as_user(tmp_path / "stranger", *given, "--code", code)
    assert used["status"] == 1 and "used up" in used["error"]


def test_nothing_is_sent_without_a_yes(served: Served, tmp_path: Path):
    home = owner_home(served, tmp_path)
    task = published(served, home, "asked")
    code = as_user(home, "invite", "--hub", served.url)["code"]
    data = csv_of(tmp_path / "a.csv", rounds.records(6, 80))
    refused = as_user(
        tmp_path / "site", "join", served.url, "--code", code, "--task", task, "--data", data, answer="n\n"
    )
    assert refused["status"] == 1 and "not agreed" in refused["error"]
    assert as_user(home, "updates", task, "--hub", served.url)["updates"] == []
    assert not list((tmp_path / "site" / "sites").glob("*/update"))


def test_late_updates_corrections_and_another_model(served: Served, tmp_path: Path):
    home = owner_home(served, tmp_path)
    task = published(served, home, "late", "--quorum", 2)
    code = as_user(home, "invite", "--hub", served.url, "--uses", 3)["code"]
    for number in (1, 2, 3):
        data = csv_of(tmp_path / f"{number}.csv", rounds.records(number, 80))
        sent = as_user(
            tmp_path / f"s{number}", "join", served.url, "--code", code, "--task", task, "--data", data,
            "--accept-small-cells",
        )  # fmt: skip
    again = as_user(tmp_path / "s3", "join", served.url, "--task", task, "--data", data, "--accept-small-cells")
    assert sent["waits"] is True and again["waits"] is True and again["receipt"] == sent["receipt"]
    first = as_user(tmp_path / "s1", "join", served.url, "--task", task, "--data", tmp_path / "1.csv", "--wait")[
        "model"
    ]
    accept = ("--accept", sent["receipt"]["update"][:12])
    unsure = as_user(home, "fuse-again", task, "--hub", served.url, *accept)
    assert unsure["status"] == 1 and "two exact releases" in unsure["error"] and "--confirm" in unsure["error"]
    assert as_user(home, "close", task, "--hub", served.url)["was"] in ("fusing", "published")
    made = as_user(home, "fuse-again", task, "--hub", served.url, *accept, "--confirm")
    assert (made["version"], made["members"]) == (2, 3)
    with wire.Hub(served.url, keys.load(tmp_path / "s1" / "key.pem")) as hub:
        told = None
        while told is None or told["model"]["version"] == 1:
            told = contact.status(hub, Contact(served.url, "default", task))
    assert told["model"]["digest"] != first["digest"] and told["model"]["members"] == 3
    old = as_user(tmp_path / "s2", "fetch", served.url, "--task", task, "--version", 1, "-o", tmp_path / "old")
    assert old["digest"] == first["digest"]


def test_what_was_sent_can_be_taken_back(served: Served, tmp_path: Path):
    home = owner_home(served, tmp_path)
    task = published(served, home, "back")
    code = as_user(home, "invite", "--hub", served.url, "--uses", 2)["code"]
    for number in (1, 2):
        data = csv_of(tmp_path / f"{number}.csv", rounds.records(number, 80))
        given = ("join", served.url, "--code", code, "--task", task, "--data", data, "--accept-small-cells")
        if number == 2:  # it has not answered yet
            as_user(tmp_path / "s2", *given[:-1])
            assert "nothing to take back" in as_user(tmp_path / "s2", "withdraw", served.url, "--task", task)["error"]
        sent = as_user(tmp_path / f"s{number}", *given)
    back = ("withdraw", served.url, "--task", task)
    assert as_user(tmp_path / "s2", *back)["status"] != 0  # nobody said yes
    done = as_user(tmp_path / "s2", *back, "--yes")
    assert done["status"] == 0 and done["update"] == sent["receipt"]["update"]
    states = {row["digest"]: row["state"] for row in as_user(home, "updates", task, "--hub", served.url)["updates"]}
    assert states.pop(done["update"]) == "withdrawn" and set(states.values()) == {"counted"}


def test_a_new_key_takes_the_old_one_s_place(served: Served, tmp_path: Path):
    home = owner_home(served, tmp_path)
    task = published(served, home, "rotate")
    code = as_user(home, "invite", "--hub", served.url)["code"]
    data = csv_of(tmp_path / "a.csv", rounds.records(7, 80))
    given = ("join", served.url, "--task", task, "--data", data, "--accept-small-cells")
    as_user(tmp_path / "site", *given, "--code", code)
    as_user(tmp_path / "site", "keygen", "-o", tmp_path / "new.pem")
    turned = as_user(tmp_path / "site", "rotate", served.url, "--new", tmp_path / "new.pem")
    assert turned["status"] == 0, turned["said"]
    assert as_user(tmp_path / "site", "status", served.url, "--task", task)["status"] == 1
    told = as_user(tmp_path / "site", "status", served.url, "--task", task, "--key", tmp_path / "new.pem")
    assert told["yours"]["state"] == "counted"


def test_a_device_joins_by_its_manufacturer_s_word(served: Served, tmp_path: Path):
    home, maker, device = owner_home(served, tmp_path), tmp_path / "maker", tmp_path / "device"
    task = published(served, home, "fleet")
    public = [as_user(place, "keygen")["public"] for place in (maker, device)]
    enrolled = as_user(home, "members", "--hub", served.url, "--enrol", public[0], "--role", "manufacturer")
    assert enrolled["status"] == 0, enrolled["said"]
    word = tmp_path / "device.json"
    made = as_user(maker, "certify", public[1], "--project", "default", "-o", word)
    assert made["status"] == 0 and made["certificate"] == str(word), made["said"]
    data = csv_of(tmp_path / "rows.csv", rounds.records(6, 80))
    given = ("join", served.url, "--task", task, "--data", data, "--accept-small-cells", "--certificate", word)
    assert as_user(device, *given, "--code", "x")["error"].startswith("a key joins by")
    sent = as_user(device, *given, "--name", "meter 7")
    assert sent["status"] == 0 and sent["receipt"]["signer"] == keys.parse_public(public[1]), sent["said"]
    other = as_user(tmp_path / "other", *given)  # the word is for one key
    assert other["status"] == 1 and "no manufacturer" in other["error"].lower()
    (tmp_path / "no.json").write_text("[]")
    assert "is no certificate" in as_user(device, *given[:-1], tmp_path / "no.json")["error"]


def test_the_example_of_four_hospitals(real_data: Path, tmp_path: Path):
    """`examples/hospitals/network.sh` as it stands, and the same four updates fused by files."""
    environment = {
        **os.environ, "FUSIONLEARN_DATA": str(real_data), "FUSIONLEARN_HOME": str(tmp_path / "nobody"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", EXAMPLE / "network.sh", tmp_path / "work"], env=environment, capture_output=True, text=True,
        timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    work = tmp_path / "work"
    updates = [next((work / hospital / "sites").glob("*/update")) for hospital in HOSPITALS]
    fused = as_user(work / "coordinator", "fuse", work / "task.fusion", *updates, "-o", work / "by-files")
    for hospital in HOSPITALS:
        assert file.digest(file.read(work / hospital / "model.fusion")) == fused["digest"]


# --- hubs and networks that misbehave -------------------------------------------------------------------------------


class Bad(http.server.BaseHTTPRequestHandler):
    """Answers as the test says; keeps what it was asked."""

    def log_message(self, *_: object) -> None: ...

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        body = self.rfile.read(length)
        server: Any = self.server
        server.asked.append((self.command, self.path, dict(self.headers), body))
        made = server.script(self.command, self.path, dict(self.headers), body)
        if made is None:  # cut
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        status, headers, content = made
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_PATCH = do_HEAD = answer


@contextlib.contextmanager
def answering(script: Callable[..., Any], certificate: tuple[Path, Path] | None = None) -> Iterator[Any]:
    """A server on this machine that answers by the script."""
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bad)
    server.script, server.asked, server.daemon_threads = script, [], True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    server.url = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_address[1]}"
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def said(status: int, told: Any, **headers: str) -> tuple[int, dict[str, str], bytes]:
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps(told).encode()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "FIRST_PAUSE", 0.001)


def hub_at(server: Any, **options: Any) -> wire.Hub:
    return wire.Hub(server.url, rounds.key(1), **options)


def test_trouble_is_tried_again_and_told():
    answers = iter([None, said(503, {"error": "later"}), said(429, {"error": "slowly"}, Retry_After="0")])
    told: list[str] = []
    with (
        answering(lambda *_: next(answers, said(200, {"hub": "x"}))) as server,
        hub_at(server, told=told.append) as hub,
    ):
        assert hub.who() == {"hub": "x"}
    assert len(server.asked) == 4 and len(told) == 3 and "later" in told[1].lower()
    nonces = {headers["Signature-Input"] for _, _, headers, _ in server.asked}
    assert len(nonces) == 4  # each try is signed anew


def test_trouble_ends():
    with answering(lambda *_: None) as server, pytest.raises(HubError, match="cannot be reached"):
        hub_at(server, patience=0.2).who()
    with pytest.raises(HubError, match="cannot be reached"):
        hub_at(server, patience=0.0).who()


def test_an_address_that_never_answered_is_soon_given_up(own_home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(contact, "FIRST_CONTACT", 0.0)
    with answering(lambda *_: said(200, {"hub": rounds.public(0)})) as server, hub_at(server) as hub:
        contact.meet(hub)
        server.script = lambda *_: None
        hub.patience, hub.told = 0.2, (tried := []).append
        with pytest.raises(HubError, match="cannot be reached"):
            contact.meet(hub)
        assert tried  # a hub that was there is waited for
    tried.clear()
    elsewhere = server.url.replace("127.0.0.1", "localhost")
    with (
        wire.Hub(elsewhere, rounds.key(1), told=tried.append) as hub,
        pytest.raises(HubError, match="cannot be reached"),
    ):
        contact.meet(hub)
    assert tried == []


def test_a_refusal_is_told_at_once_and_in_the_hub_s_words():
    no = said(403, {"error": "no such key.", "kind": "NotAllowed"})
    with answering(lambda *_: no) as server, pytest.raises(HubError, match=r"No such key\.") as caught:
        hub_at(server).who()
    assert (caught.value.status, caught.value.kind, len(server.asked)) == (403, "NotAllowed", 1)
    for content in (b"<html>", b'{"detail": 1}', b'{"error": "\x1b[31mred"}'):
        with answering(lambda *_, content=content: (400, {}, content)) as server, pytest.raises(HubError) as caught:
            hub_at(server).who()
        assert "\x1b" not in str(caught.value)


def test_an_upload_that_is_cut_goes_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wire, "PIECE", 1000)
    content, have, cuts = os.urandom(4500), bytearray(), [2]

    def script(method: str, path: str, headers: dict[str, str], body: bytes) -> Any:
        if method == "HEAD":
            return (200, {"Upload-Offset": str(len(have))}, b"") if have else (404, {}, b"")
        offset = int(headers["Upload-Offset"])
        if offset != len(have):
            return said(409, {"error": "offset"}, Upload_Offset=str(len(have)))
        have.extend(body)
        if len(have) >= 2000 and cuts.pop() if cuts else 0:
            return None  # the bytes arrived, the answer did not
        if len(have) == len(content):
            return said(201, {"done": True})
        return 204, {"Upload-Offset": str(len(have))}, b""

    shares: list[float] = []
    with answering(script) as server, hub_at(server) as hub:
        assert hub.upload("/x", content, shares.append).status_code == 201
    assert bytes(have) == content and shares[-1] == 1.0 and shares == sorted(shares)


def test_another_key_than_at_first_contact_is_refused():
    current = [rounds.public(0)]
    with answering(lambda *_: said(200, {"hub": current[0]})) as server, hub_at(server) as hub:
        contact.meet(hub)
        current[0] = rounds.public(9)
        with pytest.raises(SignatureError, match="but earlier by"):
            contact.meet(hub)


def hub_with(task: bytes, model: bytes = b"", receipt: Any = None) -> Callable[..., Any]:
    def script(method: str, path: str, headers: dict[str, str], body: bytes) -> Any:
        if path == "/v1/hub":
            return said(200, {"hub": rounds.public(0)})
        if "/models/" in path:
            return 200, {}, model
        if method == "PUT":
            return said(201, receipt)
        return 200, {}, task

    return script


def test_another_task_than_was_asked_for_is_refused():
    task, other = rounds.task(), rounds.task("gaussian")
    for content in (file.to_bytes(other), file.to_bytes(rounds.task(signed=False))):
        with answering(hub_with(content)) as server, hub_at(server) as hub:
            contact.meet(hub)
            with pytest.raises(SignatureError, match="do not answer it"):
                contact.fetch_task(hub, Contact(hub.url, "p", file.digest(file.from_bytes(content)) if not
                                                file.from_bytes(content).signer else file.digest(task)))  # fmt: skip
    assert not list(site.folder().glob("*/task"))


def test_a_model_by_anybody_else_is_refused():
    task = rounds.task()
    updates = [file.sign(run.summarize(task, rounds.records(n)), rounds.key(n)) for n in (1, 2)]
    model, _ = run.fuse(task, updates)
    other, _ = run.fuse(rounds.task("gaussian"), [run.summarize(rounds.task("gaussian"), rounds.records(1))])
    for bad in (file.sign(model, rounds.key(5)), model, file.sign(other, rounds.key(0))):
        with answering(hub_with(file.to_bytes(task), file.to_bytes(bad))) as server, hub_at(server) as hub:
            contact.meet(hub)
            with pytest.raises(SignatureError, match="do not use it"):
                contact.fetch_model(hub, Contact(hub.url, "p", file.digest(task)))
    with answering(hub_with(file.to_bytes(task), file.to_bytes(file.sign(model, rounds.key(0))))) as server:
        hub = hub_at(server)
        contact.meet(hub)
        assert contact.fetch_model(hub, Contact(hub.url, "p", file.digest(task))).task == file.digest(task)


def test_a_model_altered_in_any_one_bit_is_refused():
    """Offline, by its file alone: two thousand bits, spread over the header, the signature and the arrays."""
    task = rounds.task()
    content = file.to_bytes(file.sign(run.fuse(task, rounds.updates(task))[0], rounds.key(0)))
    rng, passed = np.random.default_rng(17), []
    for bit in map(int, rng.choice(8 * len(content), size=2000, replace=False)):
        altered = bytearray(content)
        altered[bit // 8] ^= 1 << (bit % 8)
        try:
            file.from_bytes(bytes(altered), Model)
        except FusionlearnError:
            continue
        passed.append((bit // 8, bytes(content[bit // 8 - 8 : bit // 8 + 8])))
    assert passed == []


@pytest.mark.parametrize("wrong", ["signature", "sha256", "update", "bytes", "hub", "shape"])
def test_a_receipt_for_anything_else_is_refused(wrong: str):
    content = b"an update"
    receipt: dict[str, Any] = {
        "hub": rounds.public(0), "project": "p", "task": "t" * 64, "update": "u" * 64, "signer": rounds.public(1),
        "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "received": "now", "event": 1,
        "chain": "0" * 64,
    }  # fmt: skip

    def told(signer: int = 0) -> dict[str, Any]:
        return {"receipt": receipt, "signature": rounds.key(signer).sign(file.canonical_json(receipt)).hex()}

    expected = {"hub_key": rounds.public(0), "task": "t" * 64, "update": "u" * 64, "content": content}
    contact.check_receipt(told(), **expected)
    if wrong in receipt:
        receipt[wrong] = 0 if wrong == "bytes" else "0" * 64
    with pytest.raises(SignatureError, match="receipt"):
        contact.check_receipt("nonsense" if wrong == "shape" else told(7 if wrong == "signature" else 0), **expected)


def test_addresses_that_are_none_are_refused():
    for url in ("hub.example", "ftp://hub", "http://", "https://h?x=1", ""):
        with pytest.raises(SettingsError, match="is not a hub's address"):
            wire.Hub(url, rounds.key(1))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A private authority's certificate for this machine, and its key."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test's authority")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "ca.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "ca.pem", folder / "key.pem"


def test_a_private_authority_is_believed_when_it_is_named(authority: tuple[Path, Path], tmp_path: Path):
    with answering(lambda *_: said(200, {"hub": rounds.public(0)}), authority) as server:
        assert hub_at(server, ca=authority[0]).who()["hub"] == rounds.public(0)
        with pytest.raises(HubError, match="--ca"):
            hub_at(server, patience=0.1).who()
        elsewhere = server.url.replace("127.0.0.1", "localhost")
        told: list[str] = []
        for url, ca, sentence in (
            (server.url, None, "--ca"),  # the default patience is two minutes: what cannot pass is told at once
            (elsewhere, authority[0], "is for another name"),
        ):
            with wire.Hub(url, rounds.key(1), ca=ca, told=told.append) as hub, pytest.raises(HubError, match=sentence):
                hub.who()
        assert told == []
    with (
        answering(lambda *_: said(200, {})) as plain,
        wire.Hub(plain.url.replace("http", "https"), rounds.key(1), told=told.append) as hub,
        pytest.raises(HubError, match="does not speak TLS"),
    ):
        hub.who()
    assert told == []
    (tmp_path / "no.pem").write_text("nothing")
    with pytest.raises(SettingsError, match="no certificate"):
        wire.Hub("https://hub.example", rounds.key(1), ca=tmp_path / "no.pem")


def test_a_hub_of_its_own_over_tls(authority: tuple[Path, Path], tmp_path: Path):
    hub = Served(tmp_path / "hub", "--tls-cert", authority[0], "--tls-key", authority[1], "--workers", 0)
    environment_ca = os.environ.get("SSL_CERT_FILE")
    os.environ["SSL_CERT_FILE"] = str(authority[0])  # the test's own look at it
    try:
        hub.start()
        assert hub.url.startswith("https://")
        home = owner_home(hub, tmp_path)
        made = as_user(home, "invite", "--hub", hub.url, "--ca", authority[0])
        assert made["status"] == 0 and made["code"]
    finally:
        hub.stop()
        if environment_ca is None:
            os.environ.pop("SSL_CERT_FILE", None)


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch):
    with answering(lambda *_: said(200, {"hub": rounds.public(0)})) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "")
        with wire.Hub("http://hub.example", rounds.key(1)) as hub:
            assert hub.who()["hub"] == rounds.public(0)
    assert proxy.asked[0][1] == "http://hub.example/v1/hub"


def test_tls_goes_through_a_proxy_unread(authority: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch):
    """HTTPS_PROXY: the proxy is asked for a tunnel, and sees no request."""
    seen: list[bytes] = []

    def tunnel(listener: socket.socket) -> None:
        ours, _ = listener.accept()
        with ours:
            asked = ours.recv(4096)
            host, _, port = asked.split()[1].decode().partition(":")
            with socket.create_connection((host, int(port)), timeout=10) as theirs:
                ours.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                seen.append(asked)
                back = threading.Thread(target=pump, args=(theirs, ours), daemon=True)
                back.start()
                pump(ours, theirs)

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                seen.append(piece)
                target.sendall(piece)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=tunnel, args=(listener,), daemon=True).start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{listener.getsockname()[1]}")
        monkeypatch.setenv("NO_PROXY", "")
        with answering(lambda *_: said(200, {"hub": rounds.public(0)}), authority) as server:
            with wire.Hub(server.url, rounds.key(1), ca=authority[0], patience=5) as hub:
                assert hub.who()["hub"] == rounds.public(0)
            assert len(server.asked) == 1
    assert seen[0].startswith(b"CONNECT 127.0.0.1:") and len(seen) > 2
    assert b"/v1/hub" not in b"".join(seen) and rounds.public(0).encode() not in b"".join(seen)


def test_what_a_site_keeps_is_whole_or_one_sentence(own_home: Path):
    one = Contact("http://h", "p", "0" * 64)
    assert one.read_task() is None and one.receipt() == {}
    one.keep_settings(hold_out=0.2)
    assert site.contacts() == [one] and site.contacts("http://other") == []
    assert np.all([path.stat().st_mode & 0o077 == 0 for path in (own_home / "sites").rglob("*")])
    one.path("receipt.json").write_text("{")
    with pytest.raises(Exception, match=r"receipt\.json cannot be read"):
        one.receipt()
