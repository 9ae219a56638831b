"""The settings of credentials that need a person: what is refused, and what is filled in."""

from typing import Any, Final

import pytest
import yaml

from proxy.config import Config, OAuthCredential, Source, load
from proxy.errors import ConfigError

SERVER: Final = "https://id.example.com"
PLAIN: Final = "plain http shows the secrets to the network: write https://, or set insecure_http: true"


def _config(**credential: Any) -> Config:
    given = {"type": "oauth2", "grant": "authorization_code", "issuer": SERVER, "client_id": "tool", **credential}
    written = {name: value for name, value in given.items() if value is not None}
    document = {"upstream": "https://api.example.com", "credential": written}
    return load(Source(yaml.safe_dump(document), "test.yaml", None, "test"), environ={})


def _credential(**changes: Any) -> OAuthCredential:
    found = _config(**changes).credentials["default"]
    assert isinstance(found, OAuthCredential)
    return found


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"client_id": None}, "credential: grant authorization_code needs client_id: add it"),
        ({"grant": "device_code", "client_id": None}, "credential: grant device_code needs client_id: add it"),
        (
            {"issuer": None, "token_url": f"{SERVER}/token"},
            "credential: grant authorization_code needs authorization_url: add it",
        ),
        (
            {"grant": "device_code", "issuer": None, "token_url": f"{SERVER}/token"},
            "credential: grant device_code needs device_url: add it",
        ),
        (
            {"authorization_url": "http://id.example.com/authorize"},
            f"credential.authorization_url: {PLAIN}",
        ),
        (
            {"revocation_url": "http://id.example.com/revoke"},
            f"credential.revocation_url: {PLAIN}",
        ),
        (
            {"redirect_path": "callback"},
            "credential.redirect_path: write the path as it is registered at the server, such as /callback",
        ),
        (
            {"redirect_path": "/callback?a=b"},
            "credential.redirect_path: write the path as it is registered at the server, such as /callback",
        ),
        ({"redirect_port": 65536}, "credential.redirect_port: write a port between 1 and 65535, or 0"),
        ({"redirect_port": -1}, "credential.redirect_port: write a port between 1 and 65535, or 0"),
        ({"refresh_lifetime": 0}, "credential.refresh_lifetime: write a duration above zero, such as 30s"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], sentence: str) -> None:
    """Each with the key and what to write instead."""
    with pytest.raises(ConfigError) as refused:
        _config(**changes)
    (problem,) = refused.value.problems
    assert problem.partition(": ")[2].startswith(sentence)


def test_endpoints_that_are_written_win_over_discovery() -> None:
    """By the names that they have in metadata."""
    assert _credential().endpoints() == {}
    written = {
        "authorization_url": f"{SERVER}/authorize?prompt=consent",
        "device_url": f"{SERVER}/device",
        "revocation_url": f"{SERVER}/revoke",
    }
    assert _credential(**written).endpoints() == {
        "authorization_endpoint": f"{SERVER}/authorize?prompt=consent",
        "device_authorization_endpoint": f"{SERVER}/device",
        "revocation_endpoint": f"{SERVER}/revoke",
    }


def test_the_fingerprint_changes_with_where_a_person_is_sent() -> None:
    """What was got by another server's page is another account's; how long it is good changes nothing."""
    assert _credential().digest() == _credential(refresh_lifetime="180d", redirect_port=4711).digest()
    assert _credential().digest() != _credential(authorization_url=f"{SERVER}/other").digest()
    assert _credential(grant="device_code").digest() != _credential().digest()


def test_the_life_of_a_login_is_a_duration() -> None:
    """Six months, say."""
    assert _credential(refresh_lifetime="180d").description().refresh_lifetime == 180 * 86400
