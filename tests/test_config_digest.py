"""What a credential's digest covers: whatever is corrected lifts a rejection, and frees nobody from a new token."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.config import CredentialConfig, LoginCredential, Source, load
from proxy.config.model import borrowed_in, secrets_in
from proxy.redact import Secret

ENVIRON = {"A": "cNrY-0123456789", "B": "cNrY-9876543210"}
OAUTH = {"type": "oauth2", "grant": "client_credentials", "token_url": "https://a.example/t", "client_id": "x"}
#: A credential of each type, and what makes another one of it.
BASES: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "static": ({"type": "static", "token": {"env": "A"}}, [{"token": {"env": "B"}}]),
    "login": (
        {"type": "login", "login": {"url": "https://a.example/l", "fields": {"password": {"env": "A"}}}},
        [
            {"login": {"url": "https://b.example/l", "fields": {"password": {"env": "A"}}}},
            {"login": {"url": "https://a.example/l", "fields": {"password": {"env": "B"}}}},
            {"login": {"url": "https://a.example/l", "fields": {"password": {"env": "A"}, "account": 1}}},
            {"response": {"success": {"/ok": True}}},
            {"then": [{"url": "https://a.example/then"}]},
            {"tls": {"ca": "ca.pem"}},
        ],
    ),
    "oauth2": (
        {**OAUTH, "client_secret": {"env": "A"}},
        [
            {"client_secret": {"env": "B"}},
            {"client_id": "y"},
            {"client_id": {"env": "A"}},
            {"client_auth": "post"},
            {"client_auth_encoding": "raw"},
            {"token_url": "https://b.example/t"},
            {"scope": ["read"]},
            {"audience": "y"},
            {"resource": "https://c.example"},
            {"extra": {"tenant": "y"}},
            {"extra": {"client_assertion": {"env": "A"}}},
            {"grant": "password", "username": "u", "password": {"env": "A"}},
            {"grant": "jwt_bearer", "key": {"env": "A"}},
            {"grant": "jwt_bearer", "key": {"env": "B"}},
            {"grant": "jwt_bearer", "key": {"env": "A"}, "claims": {"iss": "u"}},
            {"grant": "jwt_bearer", "key": {"env": "A"}, "claims": {"iss": {"env": "B"}}},
            {"grant": "jwt_bearer", "key": {"env": "A"}, "key_id": "k"},
            {"grant": "jwt_bearer", "key": {"env": "A"}, "algorithm": "ES256"},
            {"grant": "token_exchange", "subject_token": {"env": "A"}, "subject_token_type": "t"},
            {"grant": "token_exchange", "subject_token": {"env": "A"}, "subject_token_type": "u"},
            {"grant": "refresh_token", "refresh_token": {"env": "A"}},
        ],
    ),
    "file": ({"type": "file", "path": "token"}, [{"path": "other"}]),
    "exec": (
        {"type": "exec", "command": ["a"]},
        [{"command": ["b"]}, {"command": ["a", "b"]}, {"stdin": "x"}, {"env": {"X": "1"}}, {"format": "git"}],
    ),
    "metadata": (
        {"type": "metadata", "cloud": "azure", "resource": "r"},
        [
            {"resource": "s"},
            {"resource": {"env": "A"}},
            {"resource": {"env": "B"}},
            {"client_id": {"env": "A"}},
            {"client_id": {"env": "B"}},
            {"endpoint": "http://127.0.0.1:5/x"},
            {"identity_header": {"env": "A"}},
        ],
    ),
    "github_app": (
        {"type": "github_app", "app_id": 1, "installation_id": 2, "key": {"env": "A"}},
        [
            {"app_id": 2},
            {"installation_id": 3},
            {"key": {"env": "B"}},
            {"base_url": "https://g.example/api/v3"},
            {"repositories": ["a"]},
            {"permissions": {"contents": "read"}},
        ],
    ),
    "jwt": (
        {"type": "jwt", "algorithm": "HS256", "key": {"env": "A"}},
        [
            {"key": {"env": "B"}},
            {"algorithm": "HS384"},
            {"claims": {"iss": "x"}},
            {"key_id": "k"},
            {"lifetime": "1m"},
        ],
    ),
}
#: What is no part of which token is got.
INCIDENTAL = {
    "place": {"header": "X-Key"},
    "headers": {"X-A": "b"},
    "margin": "5s",
    "expired": [{"statuses": [418]}],
    "strip_query": ["a"],
}


def digest(given: dict[str, Any], folder: Path) -> bytes:
    """Of one credential."""
    return credential(given, folder).digest()


def credential(given: dict[str, Any], folder: Path) -> CredentialConfig:
    """One credential, loaded."""
    (folder / "ca.pem").touch()
    path = folder / "config.yaml"
    path.touch(mode=0o644)
    text = yaml.safe_dump({"upstream": "https://a.example", "credential": given})
    return load(Source(text, "test", path, str(path)), environ=ENVIRON).credentials["default"]


@pytest.mark.threat(53)
@pytest.mark.parametrize("name", BASES)
def test_whatever_a_token_is_got_with_makes_another_digest(name: str, tmp_path: Path) -> None:
    """Each change differs from the base, and from all others; the same again does not."""
    base, changes = BASES[name]
    found = [digest({**base, **change}, tmp_path) for change in ({}, *changes)]
    assert len(set(found)) == len(changes) + 1
    assert digest(base, tmp_path) == found[0]
    assert all(len(each) == 32 for each in found)


@pytest.mark.parametrize("name", BASES)
def test_where_a_token_goes_makes_no_other_digest(name: str, tmp_path: Path) -> None:
    """A stored token stays good, and a rejection holds."""
    base, _ = BASES[name]
    assert digest({**base, **INCIDENTAL}, tmp_path) == digest(base, tmp_path)


def test_what_only_a_login_at_the_terminal_looks_at_makes_no_other_digest(tmp_path: Path) -> None:
    """Nobody has to log in again for another port."""
    base = {"type": "oauth2", "grant": "authorization_code", "issuer": "https://a.example", "client_id": "x"}
    changed = {**base, "redirect_port": 5000, "redirect_path": "/back", "refresh_lifetime": "1d"}
    assert digest(changed, tmp_path) == digest(base, tmp_path)


def _borrower(lender: dict[str, Any]) -> LoginCredential:
    """A login that stands on `lender`."""
    login = {"type": "login", "login": {"url": "https://a.example", "fields": {"t": {"credential": "a"}}}}
    routes = [{"prefix": "/", "upstream": "https://a.example", "credential": "b"}]
    text = yaml.safe_dump({"routes": routes, "credentials": {"b": login, "a": lender}})
    found = load(Source(text, "test", None, "test"), environ=ENVIRON).credentials["b"]
    assert isinstance(found, LoginCredential)
    return found


def test_what_is_borrowed_counts_with_its_lender_and_its_present_value() -> None:
    """Empty before it is lent."""
    borrower = _borrower({"type": "login", "login": {"url": "https://a.example"}})
    before = borrower.digest()
    for borrowed in borrowed_in(borrower):
        borrowed.lend(Secret("x"))
    assert borrower.digest() != before


def test_what_a_static_credential_lends_is_there_from_the_start() -> None:
    """It is a secret of the borrower as any other, and nobody lends it later."""
    borrower = _borrower({"type": "static", "token": {"env": "A"}})
    assert borrowed_in(borrower) == ()
    [lent] = [source.value for _path, source in secrets_in(borrower)]
    assert lent.reveal() == ENVIRON["A"]
