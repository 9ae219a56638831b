"""The requests for metadata services and for GitHub's installations, as data, and what the answers mean."""

import json

import pytest

from proxy.errors import ConfigError
from proxy.grants.github_app import GitHubApp
from proxy.grants.login import Step, Value, build
from proxy.grants.metadata import Metadata
from proxy.grants.request import TokenReply, TokenRequest
from proxy.redact import Secret

HEADER = "cNrY-app-service-header"


def sent(step: Step) -> TokenRequest:
    """The request of a step."""
    return build(step, access_token=None, refresh_token=None, boundary="b")


def field(request: TokenRequest, name: str) -> str | None:
    """One header of a request."""
    return dict(request.headers).get(name)


@pytest.mark.parametrize(
    ("metadata", "url", "header"),
    [
        (
            Metadata("gcp"),
            "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token",
            ("Metadata-Flavor", "Google"),
        ),
        (
            Metadata("gcp", account="a@p.example.com", scope=("x", "y")),
            (
                "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/a@p.example.com/token"
                "?scopes=x%2Cy"
            ),
            ("Metadata-Flavor", "Google"),
        ),
        (
            Metadata("gcp", endpoint="http://127.0.0.1:5", audience=Secret("https://api.example.com")),
            (
                "http://127.0.0.1:5/computeMetadata/v1/instance/service-accounts/default/identity"
                "?audience=https%3A%2F%2Fapi.example.com&format=full"
            ),
            ("Metadata-Flavor", "Google"),
        ),
        (
            Metadata("azure", resource="https://management.azure.com/"),
            (
                "http://169.254.169.254/metadata/identity/oauth2/token"
                "?api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.azure.com%2F"
            ),
            ("Metadata", "true"),
        ),
        (
            Metadata("azure", resource="r", client_id="c", endpoint="http://127.0.0.1:5/msi/token"),
            "http://127.0.0.1:5/msi/token?api-version=2018-02-01&resource=r&client_id=c",
            ("Metadata", "true"),
        ),
        (
            Metadata("azure", resource="r", endpoint="http://127.0.0.1:5/msi", identity_header=Secret(HEADER)),
            "http://127.0.0.1:5/msi?api-version=2019-08-01&resource=r",
            ("X-IDENTITY-HEADER", HEADER),
        ),
    ],
)
def test_each_service_is_asked_in_its_own_way(metadata: Metadata, url: str, header: tuple[str, str]) -> None:
    """A GET with the one header that shows that no browser was tricked into it."""
    request = sent(metadata.request())
    assert (request.method, request.url, request.body) == ("GET", url, None)
    assert field(request, header[0]) == header[1]


def reply(status: int, *headers: tuple[str, str]) -> TokenReply:
    """An answer without a body."""
    return TokenReply(status, headers, b"")


@pytest.mark.parametrize(
    ("metadata", "answer", "verdict"),
    [
        (Metadata("azure", resource="r"), reply(200), "accepted"),
        (Metadata("azure", resource="r"), reply(404), "transient"),
        (Metadata("azure", resource="r"), reply(410), "transient"),
        (Metadata("azure", resource="r"), reply(400), "transient"),
        (Metadata("gcp"), reply(200, ("Metadata-Flavor", "Google")), "accepted"),
        (Metadata("gcp"), reply(200, ("metadata-flavor", "Google")), "accepted"),
        (Metadata("gcp"), reply(200), "misconfigured"),
        (Metadata("gcp"), reply(200, ("Metadata-Flavor", "Other")), "misconfigured"),
        (Metadata("gcp"), reply(403), "transient"),
    ],
)
def test_nothing_is_held_against_a_service_for_ever(metadata: Metadata, answer: TokenReply, verdict: str) -> None:
    """And who answers for Google's address must say that it is Google's."""
    assert metadata.judge(answer, metadata.request())[0] == verdict


def test_an_identity_token_is_the_whole_body() -> None:
    """An access token comes as JSON."""
    assert Metadata("gcp", audience="a").rules.token == "text"
    assert Metadata("gcp").rules.token == "/access_token"


def test_an_installation_is_narrowed_by_repositories_and_permissions() -> None:
    """As lists and objects of JSON; what is not narrowed has an empty object."""
    app = GitHubApp("1", Secret("2/3"), "https://api.example.com", ("a", "b"), {"contents": "read"})
    request = sent(app.request())
    assert request.url == "https://api.example.com/app/installations/2%2F3/access_tokens"
    assert json.loads(request.body or b"") == {"repositories": ["a", "b"], "permissions": {"contents": "read"}}
    assert field(request, "Accept") == "application/vnd.github+json"
    assert sent(GitHubApp("1", "2", "https://api.example.com").request()).body == b"{}"
    assert "/installations//" in GitHubApp("1", None, "https://api.example.com").request().url


@pytest.mark.parametrize(
    ("fields", "document"),
    [
        ({"a": 1}, {"a": 1}),
        ({"/a/b": Secret("x"), "/a/c": None}, {"a": {"b": "x"}}),
        ({"/auth/methods/0": "password", "/auth/methods/1": "totp"}, {"auth": {"methods": ["password", "totp"]}}),
        ({"/a/1": "x"}, {"a": {"1": "x"}}),
        ({"/a~1b/~0c": True}, {"a/b": {"~c": True}}),
        ({"/a/0/b": 1, "/a/0/c": 2}, {"a": [{"b": 1, "c": 2}]}),
        ({"0": "x"}, {"0": "x"}),
    ],
)
def test_a_name_that_begins_with_a_slash_says_where_in_the_document_its_value_stands(
    fields: dict[str, Value], document: object
) -> None:
    """A JSON pointer; keys that count from zero make a list."""
    step = Step("https://a.example", encoding="json", fields=fields)
    assert json.loads(sent(step).body or b"") == document


def test_a_value_inside_of_another_value_cannot_be_sent() -> None:
    """It is named, not its value."""
    step = Step("https://a.example", encoding="json", fields={"/a": "x", "/a/b": "y"})
    with pytest.raises(ConfigError, match="'/a/b'"):
        sent(step)
