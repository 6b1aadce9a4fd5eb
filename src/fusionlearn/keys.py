"""Keys: who signed a file, and whose signature is believed.

A key pair is Ed25519, kept as a PEM file readable by its owner alone. A signer's name everywhere is the public key
in hex. A client believes the first coordinator key it sees under a task's name and refuses any other later.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fusionlearn.errors import SettingsError, SignatureError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

LARGEST_KEY_FILE = 16 * 1024


def home() -> Path:
    """Where this user's key and believed keys live: $FUSIONLEARN_HOME, else ~/.config/fusionlearn."""
    chosen = os.environ.get("FUSIONLEARN_HOME")
    return Path(chosen) if chosen else Path.home() / ".config" / "fusionlearn"


def private_folder(folder: Path) -> Path:
    """The folder; what of its path is not there is made for this user alone, the folders above it too."""
    if not folder.is_dir():
        if folder.parent != folder:
            private_folder(folder.parent)
        folder.mkdir(exist_ok=True, mode=0o700)
    return folder


def generate() -> Ed25519PrivateKey:
    """A new key pair, from the operating system's randomness."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate()


def public_hex(key: Ed25519PrivateKey) -> str:
    """The public key in hex: the signer's name."""
    return key.public_key().public_bytes_raw().hex()


def fingerprint(signer: str) -> str:
    """The first 16 hex digits in groups of four, for people to compare by telephone; "" for nobody."""
    return " ".join(signer[i : i + 4] for i in range(0, 16, 4)).strip()


def save(key: Ed25519PrivateKey, path: Path) -> None:
    """Write the private key (PEM, 0600) and, beside it, the public one in hex (`.pub`). Never overwrites."""
    from cryptography.hazmat.primitives import serialization

    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with _named(path, "write the key"):
        private_folder(path.parent)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise SettingsError(f"{path} exists already: a key is never overwritten; choose another name.") from error
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
            path.with_name(path.name + ".pub").write_text(public_hex(key) + "\n")
        except BaseException:
            path.unlink()  # half a key would stand in the way of a whole one
            raise


@contextlib.contextmanager
def _named(path: Path, what: str) -> Iterator[None]:
    """What the operating system refuses is one sentence."""
    try:
        yield
    except OSError as error:
        raise SettingsError(f"cannot {what} {path}: {error.strerror or type(error).__name__}.") from error


def load(path: Path) -> Ed25519PrivateKey:
    """A private key from its PEM file. Errors: SettingsError."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    with _named(path, "read the key"):
        if not path.is_file():
            raise SettingsError(f"there is no key at {path}: make one with `fusionlearn keygen -o {path}`.")
        if path.stat().st_size > LARGEST_KEY_FILE:
            raise SettingsError(f"{path} is too large to be a key.")
        pem = path.read_bytes()
    try:
        key = load_pem_private_key(pem, password=None)
    except Exception as error:  # whatever the parser thinks of it, the sentence is the same
        raise SettingsError(f"{path} is not a private key in PEM form: make one with `fusionlearn keygen`.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(f"{path} holds a key of another kind; Ed25519 is needed: `fusionlearn keygen`.")
    return key


def parse_public(text: str) -> str:
    """A public key as 64 hex digits, or a file (`.pub`) that holds them. Errors: SettingsError."""
    path = Path(text)
    if not is_signer(text.strip().lower()):
        with _named(path, "read the key"):
            if path.is_file() and path.stat().st_size <= LARGEST_KEY_FILE:
                text = path.read_text(errors="replace")
    text = text.strip().lower()
    if not is_signer(text):
        raise SettingsError("a public key is 64 hex digits, or the .pub file that `fusionlearn keygen` wrote.")
    return text


def is_signer(text: str) -> bool:
    """Whether the text has the form of a public key."""
    return _is_hex(text, 64)


def _is_hex(text: str, length: int) -> bool:
    return len(text) == length and not text.strip("0123456789abcdef")  # nothing but these, from end to end


def verify_bytes(signer: str, signature: str, message: bytes) -> bool:
    """Whether `signature` (hex) is the signer's over the message; both are written in one way only."""
    from cryptography.exceptions import InvalidSignature

    if not is_signer(signer) or not _is_hex(signature, 128):  # `fromhex` would take capitals and spaces as well
        return False
    try:
        _public(signer).verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError):
        return False
    return True


@functools.lru_cache(maxsize=256)
def _public(signer: str) -> Ed25519PublicKey:
    """The key of this name: a hub verifies a request and the update in it one after the other."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(signer))


def trust(task_name: str, signer: str) -> bool:
    """Believe a coordinator's key under a task's name; True when it was not known before.

    Errors: SignatureError when another key is already believed under that name.
    """
    path = home() / "coordinators.json"
    with _named(path, "keep the believed keys in"), _locked(path):
        known = _known(path)
        if task_name in known:
            if known[task_name] != signer:
                raise SignatureError(
                    f"'{task_name}' is signed by {fingerprint(signer)}, but earlier by "
                    f"{fingerprint(known[task_name])}. Ask the coordinator by telephone which is right; "
                    f"to accept the new one, remove the name from {path}."
                )
            return False
        known[task_name] = signer
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "w") as file:
                json.dump(known, file, indent=1, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    return True


def _known(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        known = json.loads(path.read_text())
        return {str(name): str(signer) for name, signer in known.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise SettingsError(f"{path} is damaged: restore it, or remove it to start believing keys anew.") from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time, where the system has file locks."""
    private_folder(path.parent)
    try:
        import fcntl
    except ImportError:  # Windows: the last writer wins, which only matters for two first contacts at one moment
        yield
        return
    with path.with_suffix(".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
