"""The presets: what each stands for under its parameters, and that it says where its facts come from."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.config import Config, LoginCredential, Source, StaticCredential, load, presets, presettext
from proxy.grants.login import LoginDescription, ResponseRules, Step
from proxy.injection import Place
from proxy.redact import Secret

TOKEN = "cNrY-t0ken-9f8e7d6c5b4a"
ENVIRON = {"P": TOKEN, "Q": f"{TOKEN}-2"}
TELETRACKER = {"username": "tom", "password": {"env": "P"}}
MAINBRAINER = {
    "base_url": "https://x.example/api/",
    "username": "t@x.example",
    "password": {"env": "P"},
    "private_token": {"env": "Q"},
}


def config_of(preset: str, keys: dict[str, Any], **route: object) -> Config:
    """A short form with this preset."""
    data = {"upstream": "https://a.example", "credential": {"preset": preset, **keys}, **route}
    return load(Source(yaml.safe_dump(data), "text", None, "env:X"), environ=ENVIRON)


def login_of(preset: str, keys: dict[str, Any]) -> LoginDescription:
    """The login that a preset stands for."""
    credential = config_of(preset, keys).credentials["default"]
    assert isinstance(credential, LoginCredential)
    return credential.description()


def test_teletracker_logs_in_and_refreshes_as_its_document_says() -> None:
    """Form fields, a rotating refresh token, a relative lifetime, and a success that must hold."""
    assert login_of("teletracker", {**TELETRACKER, "account_id": 4711}) == LoginDescription(
        login=Step(
            "https://api.teletracker.net/auth/login",
            fields={"username": "tom", "password": Secret(TOKEN), "account_id": 4711},
        ),
        refresh=Step("https://api.teletracker.net/auth/refresh", fields={"refresh_token": "$refresh_token"}),
        response=ResponseRules(
            token="/token",
            refresh_token="/refreshToken",
            lifetime="/tokenLifetime",
            expires="/tokenExpiration",
            refresh_expires="/refreshTokenExpiration",
            success={"/success": True},
        ),
    )


def test_teletracker_needs_no_account_and_may_be_elsewhere() -> None:
    """Optional parameters leave no empty fields; a trailing slash makes no double one."""
    login = login_of("teletracker", {**TELETRACKER, "base_url": "http://127.0.0.1:9/"}).login
    assert (login.url, set(login.fields)) == ("http://127.0.0.1:9/auth/login", {"username", "password"})


@pytest.mark.parametrize(
    ("switches", "headers"),
    [
        ({}, ["Authorization", "Authentication"]),
        ({"authorization": False}, ["Authentication"]),
        ({"authentication": False}, ["Authorization"]),
    ],
)
def test_teletracker_places_the_token_twice_unless_one_is_switched_off(
    switches: dict[str, bool], headers: list[str]
) -> None:
    """Both names are taken from clients all the same."""
    credential = config_of("teletracker", {**TELETRACKER, **switches}).credentials["default"]
    assert credential.place == tuple(Place("header", name, "Bearer") for name in headers)
    assert credential.strip_headers == ("Authorization", "Authentication")


def test_teletracker_may_masquerade_in_a_second_step() -> None:
    """The path is not documented, so it is the user's to give."""
    keys = {**TELETRACKER, "masquerade_path": "/auth/masquerade", "masquerade_account": 12}
    assert login_of("teletracker", keys).then == (
        Step("https://api.teletracker.net/auth/masquerade", fields={"account_id": 12}),
    )


@pytest.mark.parametrize("name", ["mainbrainer", "loyalty-communication"])
def test_mainbrainer_posts_three_secrets_as_json_and_counts_in_minutes(name: str) -> None:
    """Under both of its names; there is no refresh."""
    assert login_of(name, MAINBRAINER) == LoginDescription(
        login=Step(
            "https://x.example/api/token",
            encoding="json",
            fields={"userName": "t@x.example", "password": Secret(TOKEN), "privateToken": Secret(f"{TOKEN}-2")},
        ),
        response=ResponseRules(
            token="/access_token", lifetime="/expires_in", lifetime_unit="minutes", expires="/expires"
        ),
    )


def test_mainbrainer_takes_the_private_token_in_a_header_too() -> None:
    """Its help centre says so; then it is not in the body."""
    keys = {
        **MAINBRAINER,
        "private_token_in": {"header": "X-Private"},
        "validity": "LongLive",
        "trailing_slash": True,
    }
    login = login_of("mainbrainer", keys).login
    assert login.url == "https://x.example/api/token/"
    assert login.headers == {"X-Private": Secret(f"{TOKEN}-2")}
    assert login.fields == {"userName": "t@x.example", "password": Secret(TOKEN), "validity": "LongLive"}


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ({}, Place("header", "Authorization", "Bearer")),
        ({"in": "header"}, Place("header", "Authorization", "Bearer")),
        ({"in": "query"}, Place("query", "access_token")),
    ],
)
def test_vanilla_places_the_token_in_header_or_query(keys: dict[str, str], place: Place) -> None:
    """A stray query token is stripped in both, since it would win; so is the right to act as another."""
    credential = config_of("vanilla", {"token": {"env": "P"}, **keys}).credentials["default"]
    assert isinstance(credential, StaticCredential)
    assert credential.place == (place,)
    assert (credential.strip_query, credential.strip_headers) == (("access_token",), ("X-Vanilla-Spoof",))
    assert credential.expires == "vanilla"
    assert credential.expired is not None
    assert [(rule.statuses, rule.headers) for rule in credential.expired] == [
        ("any", {"X-WWW-Authenticate": '*error="invalid_token"*'})
    ]


@pytest.mark.parametrize(
    ("name", "keys", "refresh_on", "deny"),
    [
        ("teletracker", TELETRACKER, (401, 403), [(None, ("*/auth/*",))]),
        ("mainbrainer", MAINBRAINER, (401,), [(None, ("*/token",))]),
        (
            "vanilla",
            {"token": {"env": "P"}},
            (),
            [
                (("POST", "PUT", "PATCH", "DELETE"), ("*/api/v2/tokens*",)),
                (None, ("*/api/v2/tokens/*",)),
            ],
        ),
    ],
)
def test_a_preset_gives_its_route_defaults(
    name: str, keys: dict[str, Any], refresh_on: tuple[int, ...], deny: list[object]
) -> None:
    """What is written wins, except that `deny` is added to."""
    [route] = config_of(name, keys).routes
    assert route.refresh_on == refresh_on
    assert [(rule.methods, rule.paths) for rule in route.deny] == deny
    [route] = config_of(name, keys, refresh_on=[418], deny=[{"paths": ["/mine"]}]).routes
    assert route.refresh_on == (418,)
    assert [(rule.methods, rule.paths) for rule in route.deny] == [(None, ("/mine",)), *deny]


def test_what_credentials_have_in_common_wins_over_the_preset() -> None:
    """`place`, `headers`, `margin`, `origins` and `expired` are as in any credential."""
    keys = {"token": {"env": "P"}, "place": {"cookie": "c"}, "margin": "5s", "expired": [{"statuses": [419]}]}
    credential = config_of("vanilla", keys).credentials["default"]
    assert (credential.place, credential.margin) == ((Place("cookie", "c"),), 5.0)
    assert credential.expired is not None
    assert [rule.statuses for rule in credential.expired] == [(419,)]


def test_routes_that_use_another_credential_get_no_defaults() -> None:
    """A preset is about its own API."""
    config = load(
        Source(
            "routes:\n  - {prefix: /a, upstream: 'https://a.example', credential: v}\n"
            "  - {prefix: /b, upstream: 'https://b.example'}\n"
            "credentials: {v: {preset: vanilla, token: {env: P}}}\n",
            "text",
            None,
            "env:X",
        ),
        environ=ENVIRON,
    )
    assert [route.refresh_on for route in config.routes] == [(), (401, 403)]
    assert config.routes[1].deny == ()


@pytest.mark.parametrize("name", presets.presets())
def test_what_a_preset_shows_is_a_configuration_that_loads(name: str, tmp_path: Path) -> None:
    """With parameters and facts beside it, each fact with source and mark."""
    preset = presets.presets()[name]
    shown = presettext.show(name)
    path = tmp_path / "shown.yaml"
    path.touch(mode=0o644)
    key_file = tmp_path / "key_file.json"
    key_file.touch(mode=0o600)
    key_file.write_text(json.dumps({"private_key": "PEM", "client_email": "tool@project.example.com"}))
    environ = dict.fromkeys(re.findall(r"\{env: (\w+)\}", shown), TOKEN)
    config = load(Source(shown, "shown", path, str(path)), environ=environ)
    assert list(config.credentials) == [name]
    assert config.routes[0].refresh_on == tuple(preset.route["refresh_on"])
    for parameter in preset.parameters:
        assert re.search(rf"^#   {parameter.name} \(.+\): {re.escape(parameter.help)}$", shown, re.MULTILINE)
    assert preset.facts
    for fact in preset.facts:
        assert fact.mark in {"V", "I"}
        assert f"#   [{fact.mark}] {fact.what}\n#       {fact.source}\n" in shown


def test_a_preset_is_found_by_alias_and_an_unknown_one_is_not() -> None:
    """`show` raises what a mapping raises."""
    assert presettext.show("loyalty-communication") == presettext.show("mainbrainer")
    with pytest.raises(KeyError):
        presettext.show("nobody")


@pytest.mark.parametrize(
    ("name", "text", "kept"),
    [
        ("teletracker", f'{{"token": "{TOKEN}", "a": 1}}', '{"token": "***", "a": 1}'.replace("***", "")),
        ("teletracker", f'{{"refreshToken":"{TOKEN}"}}', '{"refreshToken":""}'),
        ("mainbrainer", f'{{"access_token":"{TOKEN}"}}', '{"access_token":""}'),
        ("vanilla", "x va.AAECAwQFBgcICQoLDA0ODxAREhMUFRYX.gNjbcA.fgc0U5h y", "x  y"),
    ],
)
def test_the_patterns_of_a_preset_find_its_tokens(name: str, text: str, kept: str) -> None:
    """What the first group matches stays; the token goes, and a hint led there."""
    for pattern in presets.presets()[name].redact:
        assert any(hint in text.lower() for hint in pattern.hints)
        text = pattern.regex.sub(r"\1", text)
    assert text == kept


def test_a_parameter_says_whether_it_is_secret() -> None:
    """Passwords and tokens are; user names are not."""
    found = {
        (name, each.name) for name, preset in presets.presets().items() for each in preset.parameters if each.secret
    }
    assert {each for each in found if each[0] in ("mainbrainer", "teletracker", "vanilla", "vault")} == {
        ("mainbrainer", "password"),
        ("mainbrainer", "private_token"),
        ("teletracker", "password"),
        ("vanilla", "token"),
        ("vault", "secret_id"),
        ("vault", "jwt"),
    }


def test_a_parameter_that_is_null_is_as_good_as_absent() -> None:
    """Templates of other tools write null for what they do not have."""
    keys = {**TELETRACKER, "base_url": None, "account_id": None, "authorization": None, "masquerade_path": None}
    assert config_of("teletracker", keys) == config_of("teletracker", TELETRACKER)


@pytest.mark.parametrize("name", presets.presets())
def test_a_configuration_to_begin_with_loads_once_its_secrets_are_there(name: str, tmp_path: Path) -> None:
    """Every parameter stands in it, those that may be left out as comments; with those it loads as well."""
    text = presettext.starter(name)
    path = tmp_path / "begun.yaml"
    path.touch(mode=0o600)
    key_file = tmp_path / "key_file.json"
    key_file.touch(mode=0o600)
    key_file.write_text(json.dumps({"private_key": "PEM", "client_email": "tool@project.example.com"}))
    environ = dict.fromkeys(re.findall(r"\{env: (\w+)\}", text), TOKEN)
    names = "|".join(each.name for each in presets.presets()[name].parameters)
    for begun in (text, re.sub(rf"^  # (?=({names}): )", "  ", text, flags=re.MULTILINE)):
        config = load(Source(begun, "begun", path, str(path)), environ=environ)
        assert list(config.credentials) == ["default"]
    for parameter in presets.presets()[name].parameters:
        assert re.search(rf"^  (# )?{parameter.name}: ", text, re.MULTILINE)


def test_what_a_preset_denies_is_denied_wherever_its_token_goes() -> None:
    """Also where another credential lends it."""
    data = {
        "routes": [
            {"prefix": "/a", "upstream": "https://a.example", "credential": "v"},
            {"prefix": "/b", "upstream": "https://a.example", "credential": "lent"},
        ],
        "credentials": {
            "lent": {"type": "static", "token": {"credential": "v"}},
            "v": {"preset": "vault", "base_url": "https://a.example", "role": "r", "secret_id": {"env": "P"}},
        },
    }
    config = load(Source(yaml.safe_dump(data), "text", None, "env:X"), environ=ENVIRON)
    assert config.routes[0].deny == config.routes[1].deny != ()
    assert config.routes[1].refresh_on == (403,)
