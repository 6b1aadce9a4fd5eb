"""Over the network: a site's one contact with a hub, and the coordinator's side of it."""

from __future__ import annotations

import datetime
import json
import re
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from fusionlearn import file, keys, run
from fusionlearn.agent import contact as contacts
from fusionlearn.agent import site
from fusionlearn.agent.site import Contact
from fusionlearn.agent.wire import Hub
from fusionlearn.cli import verbs
from fusionlearn.cli.base import (
    PREDICT_ROWS,
    F,
    is_own,
    json_option,
    kept_rows,
    main,
    map_options,
    open_source,
    own_key,
    path_type,
    progress,
    say,
    show_result,
    showing,
    sized,
    watched,
)
from fusionlearn.errors import HubError, SettingsError
from fusionlearn.types import Model, Task, Update

FOREVER = 10 * 365 * 24 * 3600.0
WAITING = 3  # exit code of `status` while there is no model
HOURS = re.compile(r"(\d+(?:\.\d+)?)\s*([hd])")


def hub_options(function: F) -> F:
    """How to reach a hub, and as whom."""
    ca = click.option("--ca", type=path_type(), envvar="FUSIONLEARN_CA", help="Private authority's certificate (PEM).")
    project = click.option("--project", default="", help="Project there [default: the one this key joined].")
    key = click.option("--key", type=path_type(), envvar="FUSIONLEARN_KEY", help="Private key [default: own].")
    return ca(project(key(function)))


def to_hub(function: F) -> F:
    """The hub of a coordinator's command."""
    hub = click.option("--hub", "url", required=True, envvar="FUSIONLEARN_HUB_URL", help="The hub's address.")
    return hub(hub_options(function))


def join_options(function: F) -> F:
    """How a key joins a project, once."""
    code = click.option("--code", default="", help="The join code you were given; needed once.")
    certificate = click.option(
        "--certificate", type=path_type(), help="Instead of a code: the manufacturer's word for this key (see certify)."
    )
    name = click.option("--name", default="", help="What the coordinator calls this site.")
    return code(certificate(name(function)))


def joined(hub: Hub, project: str, code: str, certificate: Path | None, name: str) -> str:
    """The project to speak of, joined now if there is something to join it with."""
    if code and certificate is not None:
        raise SettingsError("a key joins by --code or by --certificate: pass one of them.")
    if certificate is not None:
        return contacts.join(hub, name, certificate=contacts.read_certificate(certificate))
    return contacts.join(hub, name, code=code) if code else contacts.project_of(hub, project)


def open_hub(url: str, key: Path | None, ca: Path | None) -> Hub:
    """A hub, spoken to with this key."""
    return Hub(url, own_key(key), ca=ca, told=say)


# --- a site ---------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("url")
@join_options
@click.option("--task", "wanted", default="", metavar="DIGEST", help="Which task [default: the one that is open].")
@click.option("--data", type=path_type(), required=True, help="This site's table.")
@map_options
@click.option(
    "--hold-out", type=click.FloatRange(0, 1, max_open=True), default=0.2, show_default=True, metavar="SHARE",
    help="Keep this share of the rows back, to compare the fused model with the site's own.",
)  # fmt: skip
@click.option("--replaces", default="", metavar="DIGEST", help="Correct an earlier update; the owner then decides.")
@click.option("--teacher", metavar="NAME[:SETTINGS]", help="Who teaches the student here; never sent.")
@click.option("--accept-small-cells", is_flag=True, help="Agree to the page, small cells included, unasked.")
@click.option("--yes", is_flag=True, help="Agree to the page unasked when it names no small cells.")
@click.option("--wait/--no-wait", "waits", default=False, help="Wait for the model, then fetch it and compare.")
@click.option("--timeout", default="24h", show_default=True, help="How long to wait, such as 30m, 24h or 7d.")
@hub_options
@json_option
def join(
    url: str, code: str, certificate: Path | None, name: str, wanted: str, data: Path, map_path: Path | None,
    show_values: bool, hold_out: float, replaces: str, teacher: str | None, accept_small_cells: bool, yes: bool,
    waits: bool, timeout: str, key: Path | None, project: str, ca: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Take part, once: enrol, fetch the task, learn from DATA, show what leaves, send it, keep the receipt.

    Run again after an interruption it goes on where it was: an update that was made is sent as it is, never made
    anew. With --wait, or run again when the model is there, it fetches the model and compares it with the site's own.
    """
    seconds = _seconds(timeout)
    with open_hub(url, key, ca) as hub:
        project = joined(hub, project, code, certificate, name)
        contact = contacts.find_task(hub, project, wanted)
        task = contacts.fetch_task(hub, contact)
        _believe(task)
        value: dict[str, Any] = {"project": project, "task": contact.task, "name": task.name}
        sent = contact.read_update() if not replaces else None
        if sent is None:
            local = {"teacher": teacher} if teacher else {}
            made = verbs.make_update(
                task, data, hub.key, map_path=map_path, show_values=show_values, hold_out=hold_out,
                replaces=replaces, local=local,
            )  # fmt: skip
            verbs.agree(task, made.page, accept_small_cells, yes, f"Send this update to {hub.url}?")
            contact.keep_settings(hold_out=hold_out)
            contact.keep("update", file.to_bytes(made.update))
            value |= made.to_json()
        receipt = _send(hub, contact)
        value |= {"receipt": receipt["receipt"], "waits": receipt["waits"]}
        lines = [_received(receipt)]
        told = contacts.wait(hub, contact, seconds if waits else 0.0, _seen())
        if told is not None:
            value["model"] = told["model"]
            model = contacts.fetch_model(hub, contact)
            held = float(contact.settings().get("hold_out", 0.0))
            value["comparison"] = _compare(contact, task, model, data, map_path, show_values, held)
            lines += list(_compared(contact, model, value["comparison"]))
        elif waits:
            raise HubError(f"there is no model after {timeout}: run the same command again later, nothing is lost.")
        else:
            lines.append(f"The model comes later: fusionlearn fetch {url}")
        show_result(as_json, value, lines)


def _believe(task: Task) -> None:
    """The owner's key is believed at first contact, and held to ever after."""
    if keys.trust(task.name, task.signer) and not is_own(task.signer):
        say(
            f"First contact with '{task.name}': signed by {keys.fingerprint(task.signer)}. "
            f"Compare these digits with the coordinator's by telephone."
        )


def _send(hub: Hub, contact: Contact) -> dict[str, Any]:
    """The update that is here, sent as it is."""
    update = contact.read_update()
    assert update is not None
    if update.signer != keys.public_hex(hub.key):
        raise SettingsError("the update kept here was signed with another key: pass that one with --key.")
    content = contact.path("update").read_bytes()
    with progress("uploading", 1.0) as bar:
        return contacts.send(hub, contact, content, file.digest(update), bar.to)


def _received(receipt: dict[str, Any]) -> str:
    told = receipt["receipt"]
    said = f"The hub has it ({sized(told['bytes'])}, event {told['event']}); its receipt is kept."
    return said + (" It counts once the owner lets it in." if receipt["waits"] else "")


def _seen() -> Callable[[dict[str, Any]], None]:
    """Tells of a task's state as it changes."""
    known: list[tuple[str, int]] = []

    def seen(told: dict[str, Any]) -> None:
        now = (told["state"], told["updates"])
        if not known or known[-1] != now:
            known.append(now)
            if len(known) > 1:
                say(f"{told['state']}, {told['updates']} updates")
        if told["state"] == "failed":
            raise HubError(f"the model could not be made: {told['sentence']}")

    return seen


def _compare(
    contact: Contact, task: Task, model: Model, data: Path, map_path: Path | None, show: bool, held: float
) -> dict[str, Any] | None:
    """The fused model and the one from this site's update alone, on the rows that were held back."""
    update = contact.read_update()
    if not held or update is None:
        return None
    local, _ = run.fuse(task, [update], accept_replacements=True)
    found = {}
    for name, made in (("local", local), ("fused", model)):
        source = open_source(data, task.schema, map_path)
        pieces = kept_rows(watched(source, PREDICT_ROWS, f"evaluating the {name} model"), held, held=True)
        with showing(show, source, task.schema, held):
            found[name] = run.evaluate(made, pieces, place=source.place)
    return found


def _compared(contact: Contact, model: Model, found: dict[str, Any] | None) -> Iterator[str]:
    yield f"Model {file.digest(model)[:16]}…, signed by {keys.fingerprint(model.signer)}: {contact.path('model')}"
    if found is None:
        return
    yield f"On the {found['fused']['rows']} rows held back here:      local    fused"
    for name, value in found["fused"].items():
        if isinstance(value, float):
            local = found["local"].get(name)
            shown = f"{local:8.4f}" if isinstance(local, float) else "       –"
            yield f"  {name.replace('_', ' '):<36} {shown} {value:8.4f}"


@main.command()
@click.argument("url")
@click.argument("update_path", metavar="UPDATE", type=path_type())
@join_options
@hub_options
@json_option
def send(
    url: str, update_path: Path, code: str, certificate: Path | None, name: str, key: Path | None, project: str,
    ca: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Send an update that `summarize` made; sending it again is harmless."""
    update = file.read(update_path, Update)
    with open_hub(url, key, ca) as hub:
        project = joined(hub, project, code, certificate, name)
        contact = Contact(hub.url, project, update.task)
        kept = contact.read_update()
        if kept is not None and file.digest(kept) != file.digest(update) and update.replaces != file.digest(kept):
            raise SettingsError(
                f"another update was sent for this task ({file.digest(kept)[:12]}…): a client answers once. To correct "
                f"it, make the new one with --replaces {file.digest(kept)}."
            )
        if update.signer != keys.public_hex(hub.key):  # before it is kept: it would stand in the right one's way
            raise SettingsError(f"{update_path} was signed with another key, or with none: pass that one with --key.")
        if kept is None or file.digest(kept) != file.digest(update):
            contact.keep_settings(hold_out=0.0)
            contact.keep("update", update_path.read_bytes())
        receipt = _send(hub, contact)
    show_result(as_json, {"receipt": receipt["receipt"], "waits": receipt["waits"]}, [_received(receipt)])


@main.command()
@click.argument("url")
@click.option("-o", "--output", type=path_type(), help="Where to write the model [default: kept with the contact].")
@click.option("--task", "wanted", default="", metavar="DIGEST", help="Which task [default: the only one].")
@click.option("--version", default="latest", show_default=True, help="Which version of the model.")
@click.option("--data", type=path_type(), help="This site's table: compare with the site's own model.")
@map_options
@hub_options
@json_option
def fetch(
    url: str, output: Path | None, wanted: str, version: str, data: Path | None, map_path: Path | None,
    show_values: bool, key: Path | None, project: str, ca: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Fetch the model and verify it; with --data also compare it with the site's own on the rows held back."""
    with open_hub(url, key, ca) as hub:
        contact = _known_contact(hub, project, wanted)
        task = contacts.fetch_task(hub, contact)
        _believe(task)
        model = contacts.fetch_model(hub, contact, version)
    if output is not None:
        file.write(output, model)
    held = float(contact.settings().get("hold_out", 0.0))
    found = _compare(contact, task, model, data, map_path, show_values, held) if data is not None else None
    path = output or contact.path("model")
    value = {"model": str(path), "digest": file.digest(model), "signer": model.signer, "comparison": found}
    show_result(as_json, value, [*_compared(contact, model, found), *([f"Wrote {output}"] if output else [])])


def _known_contact(hub: Hub, project: str, wanted: str) -> Contact:
    """The task meant: the one this site answered, if there is just one, else what the hub lists."""
    project = contacts.project_of(hub, project)
    known = [one for one in site.contacts(hub.url) if one.project == project and one.task.startswith(wanted)]
    return known[0] if len(known) == 1 else contacts.find_task(hub, project, wanted)


@main.command()
@click.argument("url")
@click.option("--task", "wanted", default="", metavar="DIGEST", help="Which task [default: the only one].")
@hub_options
@json_option
def status(url: str, wanted: str, key: Path | None, project: str, ca: Path | None, as_json: bool) -> int:
    """Say how a task stands. Exits with 0 when there is a model, 3 while there is none: for scripts."""
    with open_hub(url, key, ca) as hub:
        told = contacts.status(hub, _known_contact(hub, project, wanted))
    quorum = f" of {told['quorum']}" if told["quorum"] else ""
    lines = [f"{told['name']}: {told['state']}, {told['updates']}{quorum} updates"]
    if told["deadline"] and told["state"] == "open":
        lines.append(f"closes {told['deadline']}")
    if told["yours"]:
        lines.append(f"yours: {told['yours']['digest'][:16]}…, {told['yours']['state']}")
    if told["model"]:
        lines.append(f"model {told['model']['version']}: {told['model']['digest'][:16]}…, made {told['model']['made']}")
    if told["sentence"]:
        lines.append(told["sentence"])
    show_result(as_json, told, lines)
    return 0 if told["model"] else WAITING


@main.command()
@click.argument("url")
@click.option("--task", "wanted", default="", metavar="DIGEST", help="Which task [default: the only one].")
@click.option("--yes", is_flag=True, help="Do not ask.")
@hub_options
@json_option
def withdraw(url: str, wanted: str, yes: bool, key: Path | None, project: str, ca: Path | None, as_json: bool) -> None:
    """Take back the update this key sent: it is in no later model.

    A model that was made with it stays until the owner makes another.
    """
    with open_hub(url, key, ca) as hub:
        contact = _known_contact(hub, project, wanted)
        told = contacts.status(hub, contact)
        if told["yours"] is None:
            raise HubError("the hub has no update of this key for this task: there is nothing to take back.")
        digest = told["yours"]["digest"]
        if not yes and not click.confirm(f"Take update {digest[:12]}… back from {hub.url}?", default=False, err=True):
            raise SettingsError("not agreed, so nothing was taken back. To agree unasked, pass --yes.")
        hub.ask("DELETE", f"/v1/projects/{contact.project}/tasks/{contact.task}/updates/{digest}")
    lines = [f"Taken back: update {digest[:16]}… is in no later model."]
    if told["model"]:
        lines.append(f"Model {told['model']['version']} was made before: ask the owner for another, without it.")
    show_result(as_json, {"task": contact.task, "update": digest}, lines)


@main.command("rotate")
@click.argument("url")
@click.option("--new", "new_key", type=path_type(), required=True, help="The new private key (see keygen -o).")
@hub_options
@json_option
def rotate(url: str, new_key: Path, key: Path | None, project: str, ca: Path | None, as_json: bool) -> None:
    """Let a new key take this one's place at a hub; the old one is revoked there."""
    new = keys.load(new_key)
    with open_hub(url, key, ca) as hub:
        project = contacts.project_of(hub, project)
        contacts.rotate(hub, project, new)
    said = (
        f"{keys.fingerprint(keys.public_hex(new))} has taken the old key's place in '{project}': use --key {new_key}."
    )
    show_result(as_json, {"project": project, "key": keys.public_hex(new)}, [said])


@main.command()
@click.argument("device", metavar="KEY")
@click.option("--project", required=True, help="The project the device may join.")
@click.option("-o", "--output", type=path_type(), required=True, help="Where to write the certificate.")
@click.option("--key", type=path_type(), envvar="FUSIONLEARN_KEY", help="The manufacturer's key [default: own].")
@json_option
def certify(device: str, project: str, output: Path, key: Path | None, as_json: bool) -> None:
    """Vouch for a device's KEY (64 hex digits, or a .pub file), as the manufacturer whom a project's owner enrolled.

    The owner, once: fusionlearn members --enrol MAKER.pub --role manufacturer. The device: join --certificate FILE.
    """
    signer = keys.parse_public(device)
    made = contacts.certify(own_key(key), project, signer)
    with file.replacing(output) as opened:
        opened.write(json.dumps(made, indent=1).encode())
    said = f"Wrote {output}: {keys.fingerprint(signer)} may join '{project}'."
    show_result(as_json, {"certificate": str(output), "device": signer, **made}, [said])


# --- the coordinator ------------------------------------------------------------------------------------------------


@main.command()
@click.argument("task_path", metavar="TASK", type=path_type())
@to_hub
@click.option("--quorum", type=click.IntRange(1), help="Close and fuse when so many updates are there.")
@click.option("--deadline", help="Close and fuse then: 72h, 7d, or a moment such as 2030-01-31T12:00:00Z.")
@click.option("--public-model", is_flag=True, help="Anyone may fetch the model.")
@json_option
def publish(
    task_path: Path, url: str, quorum: int | None, deadline: str | None, public_model: bool, key: Path | None,
    project: str, ca: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Publish a task on a hub, for its clients to answer."""
    from urllib.parse import urlencode

    task = file.read(task_path, Task)
    digest = file.digest(task)
    terms: dict[str, Any] = {"quorum": quorum} if quorum else {}
    if deadline:
        terms["deadline"] = _moment(deadline)
    if public_model:
        terms["model"] = "public"
    with open_hub(url, key, ca) as hub:
        project = _own_project(hub, project)
        query = f"?{urlencode(terms)}" if terms else ""
        response = hub.ask("PUT", f"/v1/projects/{project}/tasks/{digest}{query}", content=task_path.read_bytes())
    new = response.status_code == 201
    done = "Published" if new else "Was published already:"
    lines = [
        f"{done} '{task.name}' in project '{project}', {_terms(quorum, terms.get('deadline'))}.",
        f"Digest {digest[:16]}…. Invite clients: fusionlearn invite --hub {url}",
    ]
    show_result(as_json, {"task": digest, "project": project, "new": new, **terms}, lines)


def _terms(quorum: int | None, deadline: str | None) -> str:
    closes = [*([f"with {quorum} updates"] if quorum else []), *([f"at {deadline}"] if deadline else [])]
    return f"closes {' or '.join(closes)}" if closes else "closes when you say so"


def _own_project(hub: Hub, wanted: str) -> str:
    """The coordinator's project: the one wanted, else the one joined, else the hub's first."""
    known = contacts.meet(hub)
    return wanted or (next(iter(known["projects"])) if len(known["projects"]) == 1 else "default")


@main.command()
@to_hub
@click.option("--role", type=click.Choice(["client", "reader"]), default="client", show_default=True, help="Its role.")
@click.option("--uses", default=1, show_default=True, type=click.IntRange(1), help="How many keys may join with it.")
@click.option("--hours", default=72.0, show_default=True, type=click.FloatRange(0, min_open=True), help="It lasts.")
@json_option
def invite(
    url: str, role: str, uses: int, hours: float, key: Path | None, project: str, ca: Path | None, as_json: bool
) -> None:
    """Make a join code: single-use for one site, or with many uses for a fleet of devices."""
    with open_hub(url, key, ca) as hub:
        project = _own_project(hub, project)
        made = hub.post(f"/v1/projects/{project}/codes", {"role": role, "uses": uses, "hours": hours})
    until = made["expires"][:16].replace("T", " ")
    lines = [
        made["code"],
        f"For {uses} {'key' if uses == 1 else 'keys'}, until {until} UTC. The site runs:",
        f"  fusionlearn join {url} --code {made['code']} --data TABLE",
    ]
    show_result(as_json, made, lines)


@main.command("members")
@to_hub
@click.option("--revoke", default="", metavar="KEY", help="Revoke a key (its first 8 hex digits or more).")
@click.option("--enrol", default="", metavar="KEY", help="Enrol a key you know (64 hex digits, or a .pub file).")
@click.option(
    "--role", type=click.Choice(["client", "reader", "owner", "manufacturer"]), default="client", show_default=True,
    help="Its role; a manufacturer only vouches for devices.",
)  # fmt: skip
@json_option
def members(
    url: str, revoke: str, enrol: str, role: str, key: Path | None, project: str, ca: Path | None, as_json: bool
) -> None:
    """List the keys of a project; enrol or revoke one."""
    with open_hub(url, key, ca) as hub:
        project = _own_project(hub, project)
        base = f"/v1/projects/{project}/keys"
        if enrol:
            path = Path(enrol)
            signer = keys.parse_public(path.read_text(encoding="utf-8") if path.is_file() else enrol)
            hub.post(base, {"key": signer, "role": role, "name": path.stem if path.is_file() else ""})
        listed = hub.get(base)
        if revoke:
            prefix = revoke.replace(" ", "").lower()
            found = [entry["key"] for entry in listed if entry["key"].startswith(prefix)]
            if len(prefix) < 8 or len(found) != 1:
                raise SettingsError(
                    f"{len(found)} keys begin so: give at least 8 digits that one key alone begins with."
                )
            hub.ask("DELETE", f"{base}/{found[0]}")
            listed = hub.get(base)
    lines = [
        f"{keys.fingerprint(entry['key'])}  {entry['role']:<12} {'revoked' * bool(entry['revoked']):<8} {entry['name']}"
        for entry in listed
    ]
    show_result(as_json, {"project": project, "keys": listed}, lines)


@main.command()
@click.argument("wanted", metavar="[TASK]", default="")
@to_hub
@json_option
def close(wanted: str, url: str, key: Path | None, project: str, ca: Path | None, as_json: bool) -> None:
    """Close a task: what is there is fused, later updates wait for your word."""
    with open_hub(url, key, ca) as hub:
        contact = contacts.find_task(hub, _own_project(hub, project), wanted)
        before = contacts.status(hub, contact)["state"]
        hub.post(f"/v1/projects/{contact.project}/tasks/{contact.task}/close")
    done = "is being made" if before == "open" else f"was asked for before ({before}); to make another: fuse-again"
    show_result(as_json, {"task": contact.task, "was": before}, [f"Closed {contact.task[:16]}…: the model {done}."])


@main.command("fuse-again")
@click.argument("wanted", metavar="[TASK]", default="")
@to_hub
@click.option("--without", multiple=True, metavar="SIGNER|DIGEST", help="Leave one client out (first 8 digits).")
@click.option("--accept", multiple=True, metavar="DIGEST", help="Let a late or replaced update in first.")
@click.option("--confirm", is_flag=True, help="You know that two exact releases reveal what differs between them.")
@json_option
def fuse_again(
    wanted: str, url: str, without: tuple[str, ...], accept: tuple[str, ...], confirm: bool, key: Path | None,
    project: str, ca: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Fuse once more: with late updates let in, without those withdrawn or left out. The old model is kept."""
    with open_hub(url, key, ca) as hub:
        contact = contacts.find_task(hub, _own_project(hub, project), wanted)
        base = f"/v1/projects/{contact.project}/tasks/{contact.task}"
        for digest in accept:
            hub.post(f"{base}/updates/{_whole(hub, base, digest)}/accept")
        try:
            made = hub.post(f"{base}/fuse", {"without": list(without), "confirm": confirm})
        except HubError as error:
            if error.kind != "Confirm":
                raise
            said = str(error).replace("with confirm", "with --confirm")
            raise HubError(said, error.status, error.kind) from error
    said = f"Model {made['version']} is being made from {made['members']} updates."
    show_result(as_json, {"task": contact.task, **made}, [said])


def _whole(hub: Hub, base: str, prefix: str) -> str:
    found = [entry["digest"] for entry in hub.get(f"{base}/updates") if entry["digest"].startswith(prefix.lower())]
    if len(prefix) < 8 or len(found) != 1:
        raise SettingsError(f"{len(found)} updates begin so: give at least 8 digits that one update alone begins with.")
    return str(found[0])


@main.command()
@click.argument("wanted", metavar="[TASK]", default="")
@to_hub
@json_option
def updates(wanted: str, url: str, key: Path | None, project: str, ca: Path | None, as_json: bool) -> None:
    """List who answered a task: when, how large, in what state; never an array."""
    with open_hub(url, key, ca) as hub:
        contact = contacts.find_task(hub, _own_project(hub, project), wanted)
        listed = hub.get(f"/v1/projects/{contact.project}/tasks/{contact.task}/updates")
    lines = [
        f"{entry['digest'][:12]}…  {entry['received'][:19].replace('T', ' ')}  {sized(entry['bytes']):>9}  "
        f"{entry['state']:<9} {entry['name'] or keys.fingerprint(entry['signer'])}"
        for entry in listed
    ]
    show_result(as_json, {"task": contact.task, "updates": listed}, lines or ["No update yet."])


@main.command()
@click.argument("url")
@click.option("--no-browser", is_flag=True, help="Print the link instead of opening it.")
@hub_options
@json_option
def dashboard(url: str, no_browser: bool, key: Path | None, project: str, ca: Path | None, as_json: bool) -> None:
    """Open the hub's dashboard, logged in as this key, for eight hours."""
    with open_hub(url, key, ca) as hub:
        made = hub.post(f"/v1/projects/{_own_project(hub, project)}/sessions")
        link = hub.url + made["url"]
    if not (no_browser or as_json):
        webbrowser.open(link)
    show_result(as_json, {"url": link}, [link, "Good once, within two minutes."])


# --- times ----------------------------------------------------------------------------------------------------------


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", text)
    if not found:
        raise SettingsError(f"'{text[:40]}' is no time: write it like 30m, 24h or 7d.")
    return min(FOREVER, float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]])


def _moment(text: str) -> str:
    """A deadline in UTC, from hours or days from now or from a moment with its zone."""
    found = HOURS.fullmatch(text)
    if found:
        hours = float(found[1]) * (24 if found[2] == "d" else 1)
        moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=hours)
        return moment.isoformat(timespec="seconds")
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(f"'{text[:40]}' is no deadline: write 72h, 7d or 2030-01-31T12:00:00Z.") from error
    if moment.tzinfo is None:
        raise SettingsError("the deadline lacks its time zone: write it like 2030-01-31T12:00:00Z.")
    return moment.astimezone(datetime.UTC).isoformat(timespec="seconds")
