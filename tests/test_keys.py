"""Keys: kept from others, never overwritten; who is believed; signatures in one spelling only."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from tests import rounds

from fusionlearn import errors, keys

PEM = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)


def test_signatures_agree_with_rfc_8032():
    """Test vectors 2 and 3 of RFC 8032, section 7.1."""
    for public, message, *halves in (
        [
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da",
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ],
        [
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac",
            "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ],
    ):
        signature = "".join(halves)
        assert keys.verify_bytes(public, signature, bytes.fromhex(message))
        assert not keys.verify_bytes(public, signature, bytes.fromhex(message) + b"\0")


def test_a_signature_has_one_spelling():
    key = rounds.key(1)
    signer, signature = rounds.public(1), key.sign(b"x").hex()
    assert keys.verify_bytes(signer, signature, b"x")
    for other in (signature.upper(), signature + " ", " " + signature, signature[:-2], signature + "00", ""):
        assert not keys.verify_bytes(signer, other, b"x")
    for other in (signer.upper(), signer[:-1], signer + "0", "", rounds.public(2)):
        assert not keys.verify_bytes(other, signature, b"x")
    # the same signature with a group order added to its second half: another spelling of it, refused by RFC 8032
    order = 2**252 + 27742317777372353535851937790883648493
    moved = int.from_bytes(bytes.fromhex(signature)[32:], "little") + order
    assert not keys.verify_bytes(signer, signature[:64] + moved.to_bytes(32, "little").hex(), b"x")


def test_a_key_comes_back(tmp_path: Path):
    key = keys.generate()
    path = tmp_path / "deep" / "key.pem"
    keys.save(key, path)
    assert keys.load(path).private_bytes_raw() == key.private_bytes_raw()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert (tmp_path / "deep" / "key.pem.pub").read_text() == keys.public_hex(key) + "\n"
    assert keys.parse_public(str(path) + ".pub") == keys.public_hex(key)
    assert keys.generate().private_bytes_raw() != key.private_bytes_raw()


def test_a_key_is_never_overwritten(tmp_path: Path):
    path = tmp_path / "key.pem"
    keys.save(rounds.key(1), path)
    before = path.read_bytes()
    with pytest.raises(errors.SettingsError, match="exists already"):
        keys.save(rounds.key(2), path)
    assert path.read_bytes() == before


def test_half_a_key_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(errors.SettingsError, match=r"cannot write the key .*: No space left on device"):
        keys.save(rounds.key(1), tmp_path / "key.pem")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["none", "folder", "text", "large", "another kind", "locked", "public"])
def test_what_is_no_key_is_one_sentence(tmp_path: Path, kind: str):
    path = tmp_path / "key.pem"
    key = rounds.key(1)
    plain = serialization.NoEncryption()
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("-----BEGIN PRIVATE KEY-----\nhello\n-----END PRIVATE KEY-----\n")
    elif kind == "large":
        path.write_bytes(b"x" * (16 * 1024 + 1))
    elif kind == "another kind":
        path.write_bytes(ec.generate_private_key(ec.SECP256R1()).private_bytes(*PEM, plain))
    elif kind == "locked":
        path.write_bytes(key.private_bytes(*PEM, serialization.BestAvailableEncryption(b"x")))
    elif kind == "public":
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        path.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, form))
    told = {
        "none": "there is no key",
        "folder": "there is no key",
        "large": "too large to be a key",
        "another kind": "Ed25519 is needed",
    }.get(kind, "not a private key in PEM form")
    with pytest.raises(errors.SettingsError, match=told) as caught:
        keys.load(path)
    assert "hello" not in str(caught.value) and str(caught.value).endswith(".")


def test_a_key_of_the_largest_size_is_looked_at(tmp_path: Path):
    pem = rounds.key(1).private_bytes(*PEM, serialization.NoEncryption())
    (tmp_path / "key").write_bytes(pem.ljust(16 * 1024, b"\n"))
    assert isinstance(keys.load(tmp_path / "key"), ed25519.Ed25519PrivateKey)


@pytest.mark.parametrize(
    "text", ["", "xyz", "0" * 63, "0" * 65, "g" * 64, "١" * 64, "nowhere.pub", "a\0b", "/dev/zero"]
)
def test_what_is_no_public_key(text: str):
    with pytest.raises(errors.SettingsError, match="64 hex digits"):
        keys.parse_public(text)


def test_a_public_key_as_people_write_it():
    signer = rounds.public(1)
    assert keys.parse_public(f"  {signer.upper()}\n") == signer


def test_fingerprints():
    assert keys.fingerprint("0123456789abcdef" * 4) == "0123 4567 89ab cdef"
    assert keys.fingerprint("") == ""


def test_the_first_key_of_a_task_is_believed_and_no_other(own_home: Path):
    one, two = rounds.public(1), rounds.public(2)
    assert keys.trust("wards", one) is True
    assert keys.trust("wards", one) is False
    with pytest.raises(errors.SignatureError, match="by telephone") as caught:
        keys.trust("wards", two)
    assert keys.fingerprint(one) in str(caught.value) and keys.fingerprint(two) in str(caught.value)
    assert keys.trust("other", two) is True and keys.trust("wards", one) is False
    assert json.loads((own_home / "coordinators.json").read_text()) == {"wards": one, "other": two}


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "7"])
def test_damaged_beliefs_are_not_started_anew(own_home: Path, text: str):
    """Starting anew in silence would believe an impostor's first message."""
    (own_home / "coordinators.json").write_text(text)
    with pytest.raises(errors.SettingsError, match="is damaged: restore it"):
        keys.trust("wards", rounds.public(1))
    assert (own_home / "coordinators.json").read_text() == text


def test_an_interrupted_belief_leaves_the_old_ones(own_home: Path, monkeypatch: pytest.MonkeyPatch):
    keys.trust("wards", rounds.public(1))
    before = (own_home / "coordinators.json").read_bytes()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            keys.trust("other", rounds.public(2))
    assert (own_home / "coordinators.json").read_bytes() == before
    assert {path.name for path in own_home.iterdir()} == {"coordinators.json", "coordinators.lock"}


def test_beliefs_of_many_processes_at_once_are_all_kept(own_home: Path):
    code = "import sys; from fusionlearn import keys; [keys.trust(f'{sys.argv[1]}-{i}', 'ab' * 32) for i in range(20)]"
    env = {**os.environ, "FUSIONLEARN_HOME": str(own_home)}
    running = [subprocess.Popen([sys.executable, "-c", code, str(n)], env=env) for n in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    assert len(json.loads((own_home / "coordinators.json").read_text())) == 80


def test_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("FUSIONLEARN_HOME", str(tmp_path / "x"))
    assert keys.home() == tmp_path / "x"
    monkeypatch.delenv("FUSIONLEARN_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert keys.home() == tmp_path / ".config" / "fusionlearn"


def test_a_home_that_cannot_be_written_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FUSIONLEARN_HOME", str(tmp_path / "file"))
    with pytest.raises(errors.SettingsError, match="cannot keep the believed keys in"):
        keys.trust("wards", rounds.public(1))
