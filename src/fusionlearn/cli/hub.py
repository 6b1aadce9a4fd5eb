"""The hub's operator: serve, worker, and what surrounds them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from fusionlearn import keys
from fusionlearn.cli.base import json_option, main, own_key, path_type, say, show_result
from fusionlearn.errors import FileError, MissingExtra, SettingsError

PARENT = "FUSIONLEARN_PARENT"  # the process a worker ends with
RESTART = 1.0  # seconds before a worker that died is followed by another


def place_options(function: Any) -> Any:
    """Where a hub keeps its data."""
    store = click.option(
        "--store", envvar="FUSIONLEARN_STORE", help="Files: s3://bucket/prefix, gs://…, az://… [default: a folder]."
    )
    database = click.option(
        "--database", envvar="FUSIONLEARN_DATABASE", help="postgresql://user@host/name [default: SQLite]."
    )
    data = click.option(
        "--data",
        type=path_type(),
        envvar="FUSIONLEARN_HUB",
        help="Folder of both [default: ~/.config/fusionlearn/hub].",
    )
    key = click.option(
        "--key", type=path_type(), envvar="FUSIONLEARN_KEY", help="The hub's private key [default: this user's own]."
    )
    return data(database(store(key(function))))


def open_hub(data: Path | None, database: str | None, store: str | None, key: Path | None) -> Any:
    """The hub whose data lies there, its tables brought up to date."""
    try:
        import sqlalchemy as sa

        from fusionlearn.hub.hub import Hub
        from fusionlearn.hub.refusal import Refusal, reason
    except ImportError as error:
        raise MissingExtra("a hub", str(error.name), "hub") from error
    folder = (data or keys.home() / "hub").absolute()
    if database is None or store is None:
        with naming(folder):
            keys.private_folder(folder)
    try:
        return Hub(
            database=database or f"sqlite:///{folder / 'hub.db'}",
            store=store or f"file://{folder / 'store'}",
            key=own_key(key),
        )
    except (Refusal, sa.exc.DBAPIError) as error:
        why = error if isinstance(error, sa.exc.DBAPIError) else error.__cause__ or error
        raise SettingsError(f"the database does not let this hub in: {reason(why)}.") from error
    except ImportError as error:
        raise MissingExtra("PostgreSQL", str(error.name), "postgresql") from error


def _own_hub(hub: Any) -> None:
    """Nothing is signed with another key than this hub began with: clients would believe none of it."""
    from fusionlearn.hub import members

    keeper = members.keeper(hub)
    if keeper not in ("", hub.public):
        raise SettingsError(
            f"this hub signs as {keys.fingerprint(keeper)}, but your key is {keys.fingerprint(hub.public)}: "
            f"pass the hub's own with --key, or the right --data or --database."
        )


@contextlib.contextmanager
def naming(folder: Path) -> Iterator[None]:
    """What the operating system refuses is one sentence."""
    try:
        yield
    except OSError as error:
        raise SettingsError(f"the folder {folder} cannot be made: {error.strerror}.") from error


@main.command()
@place_options
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0 is all.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0: any that is free.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(0, 64), help="Processes that fuse.")
@click.option("--tls-cert", type=path_type(), help="Certificate (PEM), with its chain.")
@click.option("--tls-key", type=path_type(), help="The certificate's private key (PEM).")
@click.option(
    "--called", multiple=True, metavar="HOST[:PORT]", help="What clients call this hub; other names are refused."
)
@json_option
@click.option("--behind-proxy", is_flag=True, help="Believe X-Forwarded-* of a proxy on this machine.")
def serve(
    data: Path | None, database: str | None, store: str | None, key: Path | None, host: str, port: int, workers: int,
    tls_cert: Path | None, tls_key: Path | None, called: tuple[str, ...], behind_proxy: bool, as_json: bool,
) -> None:  # fmt: skip
    """Run a hub: publish tasks, take each client's update once, fuse, hand out the model."""
    if (tls_cert is None) != (tls_key is None):
        raise SettingsError("TLS needs both --tls-cert and --tls-key.")
    for path in (tls_cert, tls_key):
        if path is not None and not path.is_file():
            raise FileError(f"there is no file {path}.")
    hub = open_hub(data, database, store, key)
    _own_hub(hub)
    hub.hosts = frozenset(name.lower() for name in called)
    from fusionlearn.hub import members
    from fusionlearn.hub.app import create_app
    from fusionlearn.hub.server import run

    members.default_project(hub, hub.public)
    threading.Thread(target=_look, args=(hub,), daemon=True).start()
    app = create_app(hub)
    stop = threading.Event()
    given = _given(data, database, store, key)
    ears: set[Any] = set()
    hub.wake = lambda: _call(ears)
    threads = [threading.Thread(target=_keep_worker, args=(given, stop, ears), daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    scheme = "https" if tls_cert else "http"

    def ready(bound: int) -> None:
        say(f"Hub {keys.fingerprint(hub.public)}. Listening on {scheme}://{host}:{bound}")
        if as_json:
            show_result(True, {"hub": hub.public, "url": f"{scheme}://{host}:{bound}"}, [])

    try:
        run(app, host=host, port=port, cert=tls_cert, key=tls_key, behind_proxy=behind_proxy, ready=ready)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        hub.close()


def _look(hub: Any) -> None:
    """A store that does not answer is told in the log at once, not at the first upload."""
    from fusionlearn.hub.refusal import Refusal

    with contextlib.suppress(Refusal):
        hub.check()


def _given(data: Path | None, database: str | None, store: str | None, key: Path | None) -> list[str]:
    options = {"--data": data, "--database": database, "--store": store, "--key": key}
    return [text for name, value in options.items() if value is not None for text in (name, str(value))]


def _call(ears: set[Any]) -> None:
    """Have the workers look for something to do, at once."""
    for ear in list(ears):
        with contextlib.suppress(OSError, ValueError):  # that worker has just ended
            ear.write(b"\n")


def _keep_worker(given: list[str], stop: threading.Event, ears: set[Any]) -> None:
    """A worker process that listens at its standard input, and another after it should it die."""
    command = [sys.executable, "-m", "fusionlearn", "worker", *given]
    while not stop.is_set():
        environment = {**os.environ, PARENT: str(os.getpid())}
        process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, bufsize=0)
        with process.stdin as ear:  # type: ignore[union-attr]
            ears.add(ear)
            while process.poll() is None and not stop.wait(0.2):
                pass
            ears.discard(ear)
        if stop.is_set():
            process.terminate()
            process.wait()
        else:
            stop.wait(RESTART)


@main.command()
@place_options
def worker(data: Path | None, database: str | None, store: str | None, key: Path | None) -> None:
    """Fuse for a hub, beside it or on another machine; any number may run."""
    hub = open_hub(data, database, store, key)
    _own_hub(hub)
    from fusionlearn.hub.worker import work

    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    wake = threading.Event()
    if PARENT in os.environ:
        threading.Thread(target=_listen, args=(stop, wake), daemon=True).start()
    work(hub, stop, wake)
    hub.close()


def _listen(stop: threading.Event, wake: threading.Event) -> None:
    """A worker that a hub started looks when it is called, and ends when that hub is gone."""
    while os.read(0, 4096):
        wake.set()
    stop.set()
    wake.set()


# --- the operator's desk --------------------------------------------------------------------------------------------


@main.group()
def hub() -> None:
    """Keep a hub: projects, the log, backups. Run where the hub's data is."""


@hub.command()
@click.argument("name")
@click.option("--owner", required=True, help="Public key of the project's owner (64 hex digits, or a .pub file).")
@place_options
@json_option
def project(
    name: str, owner: str, data: Path | None, database: str | None, store: str | None, key: Path | None, as_json: bool
) -> None:
    """Make a project; projects on one hub cannot see each other."""
    opened = open_hub(data, database, store, key)
    _own_hub(opened)
    from fusionlearn.hub import members

    path = Path(owner)
    signer = keys.parse_public(path.read_text(encoding="utf-8") if path.is_file() else owner)
    made = members.make_project(opened, name, signer)
    said = f"Project '{name}' {'made' if made else 'was there already'}, owned by {keys.fingerprint(signer)}."
    show_result(as_json, {"project": name, "owner": signer, "made": made}, [said])


@hub.command()
@place_options
@json_option
def verify(data: Path | None, database: str | None, store: str | None, key: Path | None, as_json: bool) -> None:
    """Verify the hash-chained log of every project, and every stored file against it."""
    opened = open_hub(data, database, store, key)
    import sqlalchemy as sa

    from fusionlearn.hub import audit, fusions, tables
    from fusionlearn.hub.refusal import Refusal
    from fusionlearn.hub.store import sha256_of

    heads = {}
    with opened.reading() as connection:
        for (name,) in connection.execute(sa.select(tables.project.c.name)).all():
            fault = audit.verify(connection, name)
            if fault:
                raise FileError(fault)
            row = connection.execute(sa.select(tables.project).where(tables.project.c.name == name)).one()
            heads[name] = {"events": row.events, "chain": row.chain}
        beside = fusions.beside(connection)
        named = sorted(fusions.named(connection))
    for object_name in named:
        try:
            content = opened.store.get(object_name)
        except Refusal as error:
            raise FileError(f"the store lacks {object_name}, which a row names: restore it from a backup.") from error
        if sha256_of(content) != object_name.rsplit("/", 1)[-1]:
            raise FileError(f"the store's {object_name} was altered: restore it from a backup.")
    lines = [f"{name}: {head['events']} events, head {head['chain'][:16]}…" for name, head in heads.items()]
    count = len(named) + beside
    show_result(as_json, {"projects": heads, "files": count}, [*lines, f"{count} files as they were stored."])


@hub.command()
@click.argument("output", type=path_type())
@place_options
@json_option
def backup(
    output: Path, data: Path | None, database: str | None, store: str | None, key: Path | None, as_json: bool
) -> None:
    """Back up a hub on SQLite and a folder into one file, while it runs."""
    opened = open_hub(data, database, store, key)
    from fusionlearn.hub import backup as module

    count = module.backup(opened, output)
    size = output.stat().st_size
    show_result(as_json, {"backup": str(output), "files": count, "bytes": size}, [f"Wrote {output}: {count} files."])


@hub.command()
@click.argument("source", type=path_type())
@click.option("--data", type=path_type(), required=True, help="A new folder for the restored hub.")
@json_option
def restore(source: Path, data: Path, as_json: bool) -> None:
    """Restore a backup into a new folder, verified."""
    from fusionlearn.hub import backup as module

    count = module.restore(source, data.absolute())
    show_result(as_json, {"data": str(data), "files": count}, [f"Restored {count} files into {data}: verified."])


@hub.command()
@place_options
@json_option
def sweep(data: Path | None, database: str | None, store: str | None, key: Path | None, as_json: bool) -> None:
    """Remove what unfinished uploads left behind."""
    opened = open_hub(data, database, store, key)
    from fusionlearn.hub import fusions, uploads

    chunks = uploads.sweep_chunks(opened)
    with opened.reading() as connection:
        named = fusions.named(connection)
    removed = opened.store.sweep(named)
    show_result(as_json, {"chunks": chunks, "objects": removed}, [f"Removed {removed} objects, {chunks} pieces."])
