"""Where files lie: a folder, S3, Google Cloud Storage or Azure, by URL, through obstore.

An object is written once under the SHA-256 of its bytes and never changed, so writing it again is harmless and a
reader always finds it whole. In a local folder it is written here: to another name, synced, renamed, the folder synced.
obstore would rename before anything is on the disk, and leave the syncing to the caller.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import secrets
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fusionlearn.errors import SettingsError
from fusionlearn.hub.refusal import Refusal, unavailable

PIECE = 2**20  # bytes read at a time
MULTIPART = 8 * 2**20  # bytes from which an object travels in parts
ANSWER = datetime.timedelta(seconds=25)  # a cloud's one answer; an agent waits for the hub's a minute
TRYING = datetime.timedelta(seconds=20)  # how long a request that failed is tried again
ORPHAN_AGE = 24 * 3600.0  # seconds after which bytes that no row names are swept


class Store:
    """Objects by name; names are made of digests only, never of what a client calls something."""

    def __init__(self, url: str, *, make: bool = True) -> None:
        """Open the store.

        url     file:///folder, s3://bucket/prefix, gs://…, az://…; credentials from the environment
        make    whether a folder that is not there may be made: not where a database names files in it
        Errors  SettingsError for a URL of no store we know, or a folder that is gone
        """
        import obstore.store

        self.url = url
        self.folder: Path | None = None
        self._known: set[Path] = set()  # folders whose own names are on the disk
        try:
            if url.startswith("file://"):
                self.folder = Path(url.removeprefix("file://"))
                if make:
                    self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                elif not self.folder.is_dir():
                    raise SettingsError(f"the store {self.folder} is gone: mount it, or restore it from a backup.")
                self._store: Any = obstore.store.LocalStore(self.folder)
            else:
                self._store = obstore.store.from_url(url, **_options(url))
        except SettingsError:
            raise
        except OSError as error:
            raise SettingsError(f"the store {url} cannot be made: {error.strerror}.") from error
        except Exception as error:
            raise SettingsError(
                f"the store {url.split('?')[0]} cannot be opened: name it file:///folder, s3://bucket/prefix, "
                f"gs://… or az://…, its keys in the environment."
            ) from error

    def put(self, name: str, content: bytes | Path) -> None:
        """Keep these bytes under this name; returns once they are safe. Writing the same again is harmless."""
        import obstore

        with _refusing():
            if self.folder is not None:
                self._write(self.folder / name, content)
            else:
                size = len(content) if isinstance(content, bytes) else content.stat().st_size
                obstore.put(self._store, name, content, use_multipart=size > MULTIPART)

    def incoming(self) -> Incoming:
        """A file that is written while it comes, and has a name once it is whole."""
        with _refusing():
            return Incoming(self, (self.folder or Path(tempfile.gettempdir())) / "incoming")

    def _write(self, path: Path, content: bytes | Path) -> None:
        """A file that is there whole or not at all, whatever happens; its bytes and its name are on the disk."""
        self.prepare(path.parent)
        incoming = Incoming(self, path)
        try:
            for piece in _pieces(content):
                incoming.write([piece])
            incoming.take(path)
        finally:
            incoming.close()

    def prepare(self, folder: Path) -> None:
        """A folder that is there, and whose name is on the disk."""
        if folder not in self._known:
            self._make(folder)

    def _make(self, folder: Path) -> None:
        """A folder, and its name on the disk."""
        if folder != self.folder:
            self._make(folder.parent)
            folder.mkdir(exist_ok=True, mode=0o700)
            _sync(folder.parent)
            self._known.add(folder)

    def get(self, name: str) -> bytes:
        """An object's bytes, whole."""
        import obstore

        with _refusing():
            if self.folder is not None:
                return (self.folder / name).read_bytes()
            return bytes(obstore.get(self._store, name).bytes())

    def pieces(self, name: str) -> Iterator[bytes]:
        """An object's bytes in turn, never whole in memory."""
        import obstore

        with _refusing():
            if self.folder is not None:  # many times as fast as through obstore
                yield from _pieces(self.folder / name)
                return
            for piece in obstore.get(self._store, name).stream(min_chunk_size=PIECE):
                yield bytes(piece)

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects; one that is not there is no fault."""
        import obstore

        for name in names:
            with contextlib.suppress(FileNotFoundError), _refusing(missing_is_refused=False):
                obstore.delete(self._store, name)

    def check(self) -> None:
        """Refused when the store does not answer."""
        import obstore

        with _refusing():
            if self.folder is not None and not self.folder.is_dir():
                raise OSError("the folder is gone")
            obstore.list_with_delimiter(self._store, "none")  # a bucket that is not there says so to a listing only

    def sweep(self, named: set[str], now: float | None = None) -> int:
        """Remove objects that no row names and that are a day old; returns how many."""
        import obstore

        now = time.time() if now is None else now
        stale = []
        with _refusing():
            for listed in obstore.list(self._store):
                for entry in listed:
                    if entry["path"] not in named and now - entry["last_modified"].timestamp() > ORPHAN_AGE:
                        stale.append(entry["path"])
        self.delete(stale)
        return len(stale) + self._sweep_unfinished(now)

    def _sweep_unfinished(self, now: float) -> int:
        """What a killed process left half-written in a folder; listings pass over it."""
        found = 0
        for path in self.folder.rglob("*#*") if self.folder is not None else ():
            if path.is_file() and now - path.stat().st_mtime > ORPHAN_AGE:
                path.unlink(missing_ok=True)
                found += 1
        return found


class Incoming:
    """A file on its way in: written a piece at a time, brought to the disk, then kept under a name; or let go."""

    def __init__(self, store: Store, near: Path) -> None:
        self.store = store
        # Listings pass over names with #, and a sweep takes old ones.
        self.path = near.with_name(f"{near.name}#{secrets.token_hex(8)}")
        self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._kept = False

    def write(self, pieces: Iterable[bytes]) -> None:
        """Put these bytes after those before."""
        with _refusing():
            for piece in pieces:
                view = memoryview(piece)
                while view:
                    view = view[os.write(self._handle, view) :]

    def sync(self, name: str) -> None:
        """Bring what was written to the disk, ready to be kept under this name."""
        with _refusing():
            os.fsync(self._handle)
            if self.store.folder is not None:
                self.store.prepare((self.store.folder / name).parent)

    def content(self) -> bytes:
        """What was written, whole."""
        with _refusing():
            return os.pread(self._handle, os.fstat(self._handle).st_size, 0)

    def keep(self, name: str) -> None:
        """Keep it in the store; returns once it is safe."""
        with _refusing():
            if self.store.folder is None:
                self.store.put(name, self.path)
            else:
                path = self.store.folder / name
                self.store.prepare(path.parent)
                self.take(path)

    def take(self, path: Path) -> None:
        """This name, once bytes are on the disk; then the name is, too."""
        os.fsync(self._handle)  # takes no time where `sync` has done it
        os.replace(self.path, path)
        self._kept = True
        _sync(path.parent)

    def close(self) -> None:
        """Let go; a file that was not kept is gone."""
        os.close(self._handle)
        if not self._kept:
            with contextlib.suppress(OSError):
                os.unlink(self.path)


def blob(sha256: str) -> str:
    """The name of the object with these bytes."""
    return f"blobs/{sha256[:2]}/{sha256}"


def sha256_of(content: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


def _pieces(content: bytes | Path) -> Iterator[bytes]:
    """Bytes, or a file's bytes in turn."""
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb", buffering=0) as file:
        while piece := file.read(PIECE):
            yield piece


def _sync(place: Path) -> None:
    if os.name == "nt":  # a folder cannot be opened there, and its names are written with it
        return
    handle = os.open(place, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _options(url: str) -> dict[str, Any]:
    """A store that is silent is given up while the hub's client still waits.

    An S3 endpoint on plain HTTP (a test's, or one behind a private network) needs saying.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    plain = url.startswith("s3") and endpoint.startswith("http://")
    client: dict[str, Any] = {"timeout": ANSWER, "connect_timeout": datetime.timedelta(seconds=5)}
    return {
        "client_options": {**client, **({"allow_http": True} if plain else {})},
        "retry_config": {"max_retries": 5, "retry_timeout": TRYING},
    }


@contextlib.contextmanager
def _refusing(*, missing_is_refused: bool = True) -> Iterator[None]:
    """Whatever the store's trouble, the client is told to come again, and nothing was acknowledged."""
    import obstore.exceptions

    try:
        yield
    except Refusal:
        raise
    except FileNotFoundError as error:
        if not missing_is_refused:
            raise
        raise unavailable("the file store", error) from error
    except (OSError, obstore.exceptions.BaseError) as error:
        raise unavailable("the file store", error) from error
