"""Configurations that load: short and long form, defaults, the example, the effective form, the schema."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from proxy.cli.reload import in_log
from proxy.config import (
    Config,
    ExecCredential,
    LoginCredential,
    Source,
    StaticCredential,
    TcpAddress,
    UnixAddress,
    find,
    load,
)
from proxy.config.effective import effective
from proxy.config.model import GuardConfig
from proxy.config.routing import RouteConfig
from proxy.config.schema import schema
from proxy.errors import ConfigError
from proxy.grants.login import Step
from proxy.injection import Place, Replace
from proxy.redact import Redactor, Secret
from proxy.routes import Origin

ROOT = Path(__file__).parent.parent
TOKEN = "cNrY-t0ken-9f8e7d6c5b4a"
ENVIRON = {"T": TOKEN}
SHORT_SECRET = (
    "text:4: credentials.short.token: this secret is shorter than 8 characters: "
    "it is masked by field, not wherever it stands"
)
STATIC = "{type: static, token: {env: T}}"


def config_of(text: str, *, environ: dict[str, str] = ENVIRON) -> Config:
    """The configuration that the text is, as if it came from the environment."""
    return load(Source(text, "text", None, "env:BEARER_PROXY_CONFIG_YAML"), environ=environ)


def route_of(text: str) -> RouteConfig:
    """The one route of a short form with these further lines."""
    return config_of(f"upstream: https://a.example\ncredential: {STATIC}\n{text}\n").routes[0]


def credential_of(text: str) -> StaticCredential:
    """The static credential of a short form with these further keys."""
    found = config_of(f"upstream: https://a.example\ncredential: {{type: static, token: {{env: T}}, {text}}}")
    credential = found.credentials["default"]
    assert isinstance(credential, StaticCredential)
    return credential


def test_the_short_form_is_one_route_at_the_root_with_the_default_credential() -> None:
    """Nothing but an upstream and a credential is needed."""
    config = config_of(f"upstream: https://a.example/v2/\ncredential: {STATIC}")
    [route] = config.routes
    assert (route.name, route.prefix, route.credential) == ("default", "/", "default")
    assert (route.upstream_origin, route.base_path) == (Origin("https", "a.example", 443), "/v2")
    assert config.credentials["default"].place == (Place("header", "Authorization", "Bearer"),)
    assert config.listen == (TcpAddress("127.0.0.1", 8080),)
    assert config.warnings == []


def test_the_short_form_is_the_same_value_as_its_long_form() -> None:
    """Every setting of a route may stand in the short form."""
    short = config_of(f"upstream: https://a.example\nrefresh_on: [401]\ncredential: {STATIC}")
    long = config_of(
        "routes:\n"
        "  - {name: default, prefix: /, upstream: 'https://a.example', refresh_on: [401], credential: default}\n"
        f"credentials: {{default: {STATIC}}}"
    )
    assert short == long


def test_the_short_form_may_name_a_credential() -> None:
    """`credential: NAME` leads to `credentials`, as in a route."""
    config = config_of(f"upstream: https://a.example\ncredential: mine\ncredentials: {{mine: {STATIC}}}")
    assert config.routes[0].credential == "mine"
    assert set(config.credentials) == {"mine"}


def test_a_configuration_does_not_change_after_load() -> None:
    """Models are frozen."""
    config = config_of("upstream: https://a.example")
    with pytest.raises(ValueError, match="frozen"):
        config.limits.connections = 5  # type: ignore[misc]  # that is the point


@pytest.mark.parametrize(
    ("route", "name"),
    [
        ("prefix: /billing", "billing"),
        ("prefix: /a/b/", "a-b"),
        ("prefix: /", "default"),
        ("prefix: /%7Ex, name: y", "y"),
        ("prefix: /x%20y", "x-20y"),
        ("host: Api.Localhost", "Api.Localhost"),
        ("host: x.localhost, prefix: /z", "z"),
    ],
)
def test_a_route_is_named_after_its_prefix(route: str, name: str) -> None:
    """Else after its host, and at the root `default`."""
    assert config_of(f"routes: [{{{route}, upstream: https://a.example}}]").routes[0].name == name


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("5", 5.0), ("0.5", 0.5), ("250ms", 0.25), ("30s", 30.0), ("5m", 300.0), ("1h", 3600.0), ("29d", 2505600.0)],
)
def test_durations(written: str, seconds: float) -> None:
    """Numbers are seconds; units are ms, s, m, h and d."""
    assert route_of(f"timeouts: {{connect: {written}}}").timeouts.connect == seconds


@pytest.mark.parametrize(
    ("written", "size"), [("0", 0), ("512", 512), ("64KiB", 65536), ("1MiB", 1 << 20), ("1GiB", 1 << 30)]
)
def test_sizes(written: str, size: int) -> None:
    """Numbers are bytes; units are binary."""
    replay = route_of(f"replay: {{memory: {written}, disk: {written}}}").replay
    assert (replay.memory, replay.disk) == (size, size)


@pytest.mark.parametrize(
    ("written", "places"),
    [
        ("{header: Authorization}", (Place("header", "Authorization", "Bearer"),)),
        ("{scheme: Token}", (Place("header", "Authorization", "Token"),)),
        ("{header: Authorization, scheme: null}", (Place("header", "Authorization", None),)),
        ('{header: Authorization, scheme: ""}', (Place("header", "Authorization", None),)),
        ("{header: X-Api-Key}", (Place("header", "X-Api-Key", None),)),
        ("{header: Authentication, scheme: Bearer}", (Place("header", "Authentication", "Bearer"),)),
        ("{query: access_token}", (Place("query", "access_token"),)),
        ("[{cookie: session}, {query: t}]", (Place("cookie", "session"), Place("query", "t"))),
    ],
)
def test_places(written: str, places: tuple[Place, ...]) -> None:
    """Bearer is the scheme of Authorization only; elsewhere the bare token is the custom."""
    assert credential_of(f"place: {written}").place == places


@pytest.mark.parametrize(
    ("written", "inject"),
    [("overwrite", "overwrite"), ("if-absent", "if-absent"), ("{replace: TOKEN}", Replace(b"TOKEN"))],
)
def test_inject(written: str, inject: object) -> None:
    """The three ways to treat what the client sends."""
    assert route_of(f"inject: {written}").inject == inject


@pytest.mark.parametrize(
    ("written", "listen", "shown"),
    [
        ("127.0.0.1:0", TcpAddress("127.0.0.1", 0), "127.0.0.1:0"),
        ('"[::1]:80"', TcpAddress("::1", 80), "[::1]:80"),
        ("localhost:80", TcpAddress("localhost", 80), "localhost:80"),
        ("{tcp: 127.0.0.1:80}", TcpAddress("127.0.0.1", 80), "127.0.0.1:80"),
        ("{tcp: 127.0.0.1:0, reuse_port: false}", TcpAddress("127.0.0.1", 0), "127.0.0.1:0"),
        ("[{tcp: '[::1]:80', reuse_port: true}]", TcpAddress("::1", 80, reuse_port=True), "[::1]:80"),
        ("unix:/run/p.sock", UnixAddress("/run/p.sock"), "unix:/run/p.sock"),
        ("{unix: /run/p.sock}", UnixAddress("/run/p.sock"), "unix:/run/p.sock"),
        ("{unix: /run/p.sock, mode: 600}", UnixAddress("/run/p.sock"), "unix:/run/p.sock"),
        ("{unix: /run/p.sock, mode: 0660}", UnixAddress("/run/p.sock", 0o660), "unix:/run/p.sock"),
        (
            "[{unix: /run/p.sock, mode: '0660', group: api}]",
            UnixAddress("/run/p.sock", 0o660, "api"),
            "unix:/run/p.sock",
        ),
        (
            "{unix: /run/p.sock, mode: 660, group: 2000}",
            UnixAddress("/run/p.sock", 0o660, "2000"),
            "unix:/run/p.sock",
        ),
    ],
)
def test_listen_addresses(written: str, listen: object, shown: str) -> None:
    """host:port, unix:/path or a mapping; the effective form is read as the same."""
    config = config_of(f"listen: {written}\nupstream: https://a.example")
    assert config.listen == (listen,)
    assert str(config.listen[0]) == shown
    assert config_of(effective(config)).listen == config.listen


@pytest.mark.parametrize(
    ("listen", "guard", "warns"),
    [
        ("0.0.0.0:1", "{client_key: {env: T}, peers: {uids: [self]}}", True),
        ("0.0.0.0:1", "{client_key: {env: T}, peers: {uids: any}}", False),
        ("0.0.0.0:1", "{client_keys: {a: {key: {env: T}}}}", False),
        ("127.0.0.1:1", "{client_key: {env: T}, peers: {uids: [self]}}", False),
        ("{unix: /run/p.sock, mode: 0666}", "{peers: {uids: [5]}}", False),
        ("{unix: /run/p.sock, mode: 0666}", "{client_keys: {a: {key: {env: T}}}}", False),
    ],
)
def test_users_of_this_machine_do_not_come_from_others(listen: str, guard: str, *, warns: bool) -> None:
    """A list of them keeps everybody out who comes by the network."""
    config = config_of(f"listen: {listen}\nupstream: https://a.example\nguard: {guard}")
    sentence = "only users of this machine may connect, although others can reach it: write uids: any"
    assert [warning.partition("guard.peers.uids: ")[2] for warning in config.warnings] == [sentence] * warns


@pytest.mark.threat(2)
@pytest.mark.parametrize(
    ("listen", "guard", "warned"),
    [
        (
            "127.0.0.1:1",
            "{hosts: [api.test, api.localhost, 127.0.0.2, '[::1]']}",
            ["guard.hosts.0", "routes.0.host"],
        ),
        ("[127.0.0.1:1, unix:/run/p.sock]", "{}", ["routes.0.host"]),
        ("unix:/run/p.sock", "{hosts: [api.test]}", []),
        ("127.0.0.1:1", "{hosts: [api.test], client_key: {env: T}}", []),
        ("127.0.0.1:1", "{hosts: [api.test], client_keys: {a: {key: {env: T}}}}", []),
    ],
)
def test_002_a_name_to_which_browsers_do_not_say_who_asks_is_warned_of(
    listen: str, guard: str, warned: list[str]
) -> None:
    """Unless a key is needed, or no browser can come."""
    config = config_of(
        f"listen: {listen}\nguard: {guard}\nroutes: [{{prefix: /, host: b.example, upstream: 'https://a.example'}}]"
    )
    sentence = "browsers do not tell this name which page asks: set guard.client_key, or end it in .localhost"
    assert [warning.split(": ", 1)[1] for warning in config.warnings] == [f"{path}: {sentence}" for path in warned]


@pytest.mark.parametrize("guard", ["{}", "{peers: {uids: any}}", "{peers: {uids: [self, 5]}, browser: true}"])
def test_the_guard_survives_its_effective_form(guard: str) -> None:
    """As it is with its defaults."""
    config = config_of(f"upstream: https://a.example\nguard: {guard}")
    assert config_of(effective(config)).guard == config.guard


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost", "x.localhost"])
def test_loopback_needs_neither_https_nor_a_client_key(host: str) -> None:
    """What stays on this machine is not shown to the network."""
    config = config_of(f'listen: "{host}:0"\nupstream: "http://{host}:9"')
    assert config.routes[0].upstream_origin.port == 9


@pytest.mark.parametrize("host", ["10.0.0.1", "0.0.0.0", "localhost.example", "127.1.example", "2130706433"])
def test_everything_else_counts_as_the_network(host: str) -> None:
    """Odd spellings of addresses get no trust."""
    with pytest.raises(Exception, match="plain http shows the token"):
        config_of(f"upstream: http://{host}:9")


@pytest.mark.threat(7, 59)
def test_beyond_loopback_with_a_client_key_and_plain_http_where_it_is_asked_for() -> None:
    """Each danger has its own key."""
    config = config_of(
        "listen: 0.0.0.0:1\nupstream: http://a.example\ninsecure_http: true\nguard: {client_key: {env: T}}\n"
        "tls: {insecure: true}"
    )
    assert config.guard.client_key is not None
    assert config.guard.client_key.value == Secret(TOKEN)
    assert config.warnings == ["text:5: tls.insecure: anybody on the way to the upstream can read the token"]


@pytest.mark.parametrize(
    ("upstream", "socket", "base"),
    [
        ("http+unix:///run/api.sock", "/run/api.sock", ""),
        ("http+unix:///run/api.sock:/", "/run/api.sock", ""),
        ("http+unix:///run/api.sock:/v2/", "/run/api.sock", "/v2"),
        ("HTTP+UNIX:///run/api.sock:/v2/a:b", "/run/api.sock", "/v2/a:b"),
        ("http+unix:///run/a%3Ab%20%25c.sock:/%20", "/run/a:b %c.sock", "/%20"),
        ("http+unix:///" + "x" * 102, "/" + "x" * 102, ""),
    ],
)
def test_an_upstream_on_a_unix_socket(upstream: str, socket: str, base: str) -> None:
    """Path of the socket, decoded, and base path, raw; it stays on this machine and calls itself localhost."""
    route = config_of(f"upstream: '{upstream}'").routes[0]
    assert route.upstream_origin == Origin("http", "localhost", 80, socket)
    assert (route.base_path, route.upstream_origin.authority) == (base, "localhost")


def test_two_sockets_are_two_origins() -> None:
    """A credential is bound to one of them, as to any origin, and shown as it was written."""
    text = (
        "routes:\n- {prefix: /a, upstream: 'http+unix:///run/a.sock:/v1', credential: c}\n"
        "- {prefix: /b, upstream: 'http+unix:///run/b%20c.sock', credential: c}\n"
        "credentials: {c: {type: static, token: {env: T}, ORIGINS}}"
    )
    with pytest.raises(ConfigError, match="its credential is bound to another origin"):
        config_of(text.replace(", ORIGINS", ""))
    config = config_of(text.replace("ORIGINS", "origins: ['http+unix:///run/b%20c.sock']"))
    assert "http+unix:///run/b%20c.sock" in effective(config).partition("origins:")[2]


@pytest.mark.parametrize(
    ("via", "host", "port"),
    [
        ("http://proxy.example:3128", "proxy.example", 3128),
        ("HTTP://Proxy.example", "proxy.example", 80),
        ("{url: 'http://[::1]:3128/'}", "::1", 3128),
        ("{url: 'http://10.0.0.1:1', username: u, password: {env: T}}", "10.0.0.1", 1),
    ],
)
def test_an_outbound_proxy(via: str, host: str, port: int) -> None:
    """A URL, or a mapping where it wants to know who we are; its password is a secret as any other."""
    config = config_of(f"upstream: https://a.example\nvia: {via}")
    found = config.routes[0].via
    assert found is not None
    assert found.origin == Origin("http", host, port)
    expected = [] if found.username is None else [(("routes", 0, "via", "password"), Secret(TOKEN))]
    assert [(path, source.value) for path, source in config.secrets()] == expected
    assert TOKEN not in effective(config)
    again = load(Source(effective(config), "again", None, "env:X"), environ=ENVIRON)
    assert again.routes[0].via == found


def test_plain_http_through_an_outbound_proxy_is_asked_for() -> None:
    """What is loopback there is not loopback here."""
    config = config_of("upstream: http://localhost:9000\nvia: http://proxy.example:3128\ninsecure_http: true")
    assert config.warnings == []


def test_an_open_key_file_on_a_file_system_in_memory_is_only_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where somebody else sets the modes; the warning names the key that names the file."""
    monkeypatch.setattr("proxy.config.secrets.LENIENT_FOLDERS", (str(tmp_path),))
    for name in ("client.pem", "both.pem"):
        (tmp_path / name).touch(mode=0o644)
    path = tmp_path / "c.yaml"
    for written, line in (("cert: client.pem, key: both.pem", "tls.key"), ("cert: both.pem", "tls.cert")):
        path.write_text(f"upstream: https://a.example\ntls: {{{written}}}\n")
        mend = f"others on this machine can read {tmp_path}/both.pem: run `chmod 600 {tmp_path}/both.pem`"
        assert load(find(str(path), {}), environ={}).warnings == [f"{path}:2: {line}: {mend}"]


def test_a_credential_may_serve_two_origins_that_are_named() -> None:
    """All origins but one must stand in `origins`."""
    config = config_of(
        "routes:\n"
        "  - {prefix: /a, upstream: 'https://a.example/x', credential: c}\n"
        "  - {prefix: /b, upstream: 'https://b.example', credential: c}\n"
        "  - {prefix: /c, upstream: 'https://a.example/y', credential: c}\n"
        "credentials: {c: {type: static, token: {env: T}, origins: ['https://B.example:443']}}\n"
    )
    assert config.credentials["c"].origins == (Origin("https", "b.example", 443),)


def test_what_is_doubtful_is_warned_about() -> None:
    """An unused credential, and a secret too short to be masked wherever it stands."""
    config = config_of(
        "upstream: https://a.example\n"
        f"credentials:\n  spare: {STATIC}\n  short: {{type: static, token: {{env: S}}}}",
        environ={**ENVIRON, "S": "1234567"},
    )
    assert config.warnings == [
        "text:3: credentials.spare: no route uses this credential",
        "text:4: credentials.short: no route uses this credential",
        SHORT_SECRET,
    ]


def test_grants_of_an_upstream_that_pass_are_warned_about() -> None:
    """Where the answers are made with a credential; else they are what any page could have."""
    route = "{prefix: /, upstream: 'https://a.example', rewrite: {cors: false}, credential: c}"
    config = config_of(f"routes: [{route}]\ncredentials: {{c: {STATIC}}}")
    [warning] = config.warnings
    assert warning == (
        "text:1: routes.0.rewrite.cors: the upstream's CORS grants were not made for requests with your "
        "credential: what a browser has cached may be read by pages that guard.origins does not name"
    )
    assert config_of("upstream: https://a.example\nrewrite: {cors: false}").warnings == []


def test_words_and_numbers_of_yaml_1_1_stay_text() -> None:
    """`off`, `yes`, leading zeros, `1:30` and dates are what was written (threat 125)."""
    route = route_of("headers: {set: {A: off, B: yes, C: 0123, D: 1:30, E: 2020-01-01, F: 0x1F, G: 1_000}}")
    assert list(route.headers.set.values()) == ["off", "yes", "0123", "1:30", "2020-01-01", "0x1F", "1_000"]


def test_lists_and_references_of_yaml_are_shared_within_reason() -> None:
    """An alias is an ordinary way not to repeat oneself."""
    config = config_of(
        "routes:\n  - {prefix: /a, upstream: 'https://a.example', deny: &d [{paths: [/x]}]}\n"
        "  - {prefix: /b, upstream: 'https://a.example', deny: *d}\n"
    )
    assert config.routes[0].deny == config.routes[1].deny


def test_the_admin_address_knows_whether_it_was_chosen() -> None:
    """Only a default one may move to a free port."""
    base = "upstream: https://a.example\n"
    assert config_of(base).admin.listen_is_default
    assert config_of(f"{base}admin: {{key: null}}").admin.listen_is_default
    assert not config_of(f"{base}admin: {{listen: 127.0.0.1:8081}}").admin.listen_is_default
    assert config_of(f"{base}admin: {{listen: null}}").admin.listen is None
    # A listener on the default admin port is no conflict: admin moves away.
    assert config_of(f"{base}listen: 127.0.0.1:8081").admin.listen_is_default


def test_hosts_and_origins_of_the_guard_are_normalised() -> None:
    """Lower case; hosts without brackets, origins without default port, as browsers write them."""
    guard = config_of(
        "upstream: https://a.example\n"
        'guard: {hosts: [Proxy.Local, "[FE80::1]"], origins: ["HTTPS://App.example:443", "http://localhost:3000"]}'
    ).guard
    assert guard.hosts == ("proxy.local", "fe80::1")
    assert guard.origins == ("https://app.example", "http://localhost:3000")


def test_a_rule_names_methods_paths_or_both() -> None:
    """What is absent means all."""
    route = route_of("allow: [{methods: [GET]}]\ndeny: [{paths: [/a/*]}]")
    assert route.allow is not None
    assert [(rule.methods, rule.paths) for rule in (*route.allow, *route.deny)] == [
        (("GET",), ("*",)),
        (None, ("/a/*",)),
    ]


def test_rules_of_expiry() -> None:
    """Statuses are a list, the word any, or those of the route."""
    rules = credential_of(
        "expired: [{statuses: any, headers: {X-A: '*b*'}}, {statuses: [200]}, {body: {/a/0: 1, /b: null},"
        " unless: {headers: {R: '0'}}}]"
    ).expired
    assert rules is not None
    assert [rule.statuses for rule in rules] == ["any", (200,), None]
    assert rules[2].body == {"/a/0": 1, "/b": None}
    assert rules[2].unless.headers == {"R": "0"}


def test_a_login_becomes_the_description_that_the_grant_takes() -> None:
    """Secrets, plain values and the words for tokens keep their kinds."""
    config = config_of(
        "upstream: https://a.example\n"
        "credential:\n"
        "  type: login\n"
        "  login:\n"
        "    url: https://id.example/login?x=1\n"
        "    encoding: json\n"
        "    fields: {user: {env: T}, password: {env: T}, account: 4711, remember: true, none: null}\n"
        "    headers: {X-Api-Key: {env: T}, X-Client: me}\n"
        "  refresh: {url: 'https://id.example/refresh', method: PUT, fields: {refresh_token: $refresh_token}}\n"
        "  then: [{url: 'http://127.0.0.1/as', fields: {access_token: $access_token}}]\n"
        "  response: {token: 'header:X-T', refresh_token: text, default_lifetime: 1h, success: {/ok: true}}\n"
    )
    credential = config.credentials["default"]
    assert isinstance(credential, LoginCredential)
    description = credential.description()
    assert description.login.fields == {
        "user": Secret(TOKEN),
        "password": Secret(TOKEN),
        "account": 4711,
        "remember": True,
        "none": None,
    }
    assert description.login.headers == {"X-Api-Key": Secret(TOKEN), "X-Client": "me"}
    assert description.refresh == Step(
        "https://id.example/refresh", method="PUT", fields={"refresh_token": "$refresh_token"}
    )
    assert description.then[0].fields == {"access_token": "$access_token"}
    assert (description.response.token, description.response.default_lifetime) == ("header:X-T", 3600.0)
    assert description.response.success == {"/ok": True}


# --- the example ---


class Anything(dict[str, str]):
    """An environment in which every variable is set."""

    def __missing__(self, key: str) -> str:
        return f"{TOKEN}-{key}"

    def get(self, key: str, default: Any = None) -> Any:
        """The value, which is always there, but for what says where metadata services are."""
        return default if key in {"IDENTITY_ENDPOINT", "GCE_METADATA_HOST"} else self[key]


@pytest.fixture
def example() -> Config:
    """`config.example.yaml`, loaded."""
    return load(find(str(ROOT / "config.example.yaml"), {}), environ=Anything())


def keys_of(annotation: object, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key path of the models below an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            yield (*above, name)
            yield from keys_of(field.annotation, (*above, name))
    for argument in get_args(annotation):
        yield from keys_of(argument, above)


def written_keys(data: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key path of plain data; indexes of lists leave no trace."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield (*above, key)
            yield from written_keys(value, (*above, key))
            # The name of a credential or a client is no key of a model.
            if above in {("credentials",), ("guard", "client_keys")}:
                yield from written_keys(value, above)
    elif isinstance(data, list):
        for value in data:
            yield from written_keys(value, above)


def test_the_example_loads_without_a_warning(example: Config) -> None:
    """Everything in it works as it stands."""
    assert example.warnings == []
    assert len(example.routes) == 13


def test_the_example_shows_every_key_that_there_is() -> None:
    """A setting that is not in the example is not documented."""
    data = yaml.safe_load((ROOT / "config.example.yaml").read_text("utf-8"))
    missing = set(keys_of(Config)) - set(written_keys(data)) - {("warnings",)}
    # `refresh` and `then` take the keys of `login`, which are all there.
    steps = {("credentials", step) for step in ("refresh", "then")}
    assert {path for path in missing if path[:2] not in steps} == set()


@pytest.mark.parametrize(
    ("credential", "warning"),
    [
        (
            "{type: oauth2, grant: refresh_token, token_url: 'https://i.example', refresh_token: {env: T}}",
            (
                "credential.refresh_token: a server that rotates takes it once: "
                "set store.kind: file, or the next start may find it spent"
            ),
        ),
        (
            "{type: jwt, algorithm: HS384, key: {env: T}}",
            "credential.key: HS384 wants a key of at least 48 bytes (RFC 7518 section 3.2)",
        ),
        (
            "{type: oauth2, grant: password, token_url: 'https://i.example', username: u, password: {env: SHORT}}",
            (
                "credential.password: this secret is shorter than 8 characters: "
                "it is masked by field, not wherever it stands"
            ),
        ),
    ],
)
def test_what_will_not_last_or_is_weak_is_warned_of(credential: str, warning: str) -> None:
    """It works today; the log has every word of it."""
    text = f"upstream: https://a.example\ncredential: {credential}\n"
    config = load(Source(text, "text", None, "test"), environ={"T": TOKEN, "SHORT": "pa55"})
    assert config.warnings == [f"text:2: {warning}"]
    logged = in_log(config.warnings[0])
    assert Redactor().text(logged) == logged


def test_what_a_program_is_given_is_not_shown() -> None:
    """Arguments and input may be secrets."""
    text = f"upstream: https://a.example\ncredential: {{type: exec, command: [a, {TOKEN}], stdin: {TOKEN}}}\n"
    shown = yaml.safe_load(effective(load(Source(text, "text", None, "test"), environ={})))["credentials"][
        "default"
    ]
    assert (shown["command"], shown["stdin"]) == (["a", "***"], "***")


# --- the effective configuration ---


def test_the_effective_configuration_loads_to_the_same_value(example: Config) -> None:
    """What `check` prints is a configuration again, with every default filled in."""
    again = load(Source(effective(example), "again", None, "env:X"), environ=Anything())
    assert again == example


@pytest.mark.threat(84)
def test_the_effective_configuration_holds_no_secret(example: Config) -> None:
    """References are shown, values never; neither do they print in a repr."""
    assert TOKEN not in effective(example) + repr(example) + str(example)
    assert "token: {env: REPORTS_TOKEN}" in effective(example)


@pytest.mark.threat(84)
def test_secrets_written_out_and_arguments_of_commands_are_masked(tmp_path: Path) -> None:
    """A private file may hold secrets; what is shown of it may not."""
    path = tmp_path / "c.yaml"
    path.write_text(
        f"upstream: https://a.example\ncredential:\n  type: static\n  token: {TOKEN}\n"
        f"  headers: {{X-Secret: {TOKEN}, X-Plain: plain}}\n"
        f"guard: {{client_key: {{command: [printf, {TOKEN}]}}}}\n"
        "inject: {replace: P}\n"
    )
    path.chmod(0o600)
    shown = effective(load(find(str(path), {}), environ={"PATH": "/usr/bin:/bin"}))
    assert TOKEN not in shown
    assert yaml.safe_load(shown)["credentials"]["default"]["token"] == "***"
    assert yaml.safe_load(shown)["credentials"]["default"]["headers"] == {"X-Secret": "***", "X-Plain": "plain"}
    assert yaml.safe_load(shown)["guard"]["client_key"] == {"command": ["printf", "***"]}
    assert yaml.safe_load(shown)["routes"][0]["inject"] == {"replace": "***"}


def test_every_secret_can_be_found_to_be_registered(example: Config) -> None:
    """`secrets` walks routes, credentials, guard and admin, with key paths."""
    found = {".".join(map(str, path)): source.reference for path, source in example.secrets()}
    assert found == {
        "credentials.ledger.client_secret": "LEDGER_SECRET",
        "credentials.tracker.login.fields.username": "TELETRACKER_USER",
        "credentials.tracker.login.fields.password": "TELETRACKER_PASSWORD",
        "credentials.crm.login.fields.userName": "MAINBRAINER_USER",
        "credentials.crm.login.fields.password": "MAINBRAINER_PASSWORD",
        "credentials.crm.login.fields.privateToken": "MAINBRAINER_PRIVATE_TOKEN",
        "credentials.community.token": "VANILLA_TOKEN",
        "credentials.reports.token": "REPORTS_TOKEN",
        "credentials.billing.login.fields.user": "BILLING_USER",
        "credentials.billing.login.fields.password": "BILLING_PASSWORD",
        "credentials.ci.key": "CI_PRIVATE_KEY",
        "credentials.warehouse.key": "WAREHOUSE_SECRET",
        "guard.client_key": "CLIENT_KEY",
        "guard.client_keys.reader.key": "READER_KEY",
        "routes.1.via.password": "OUTBOUND_PROXY_PASSWORD",
    }


# --- the schema ---


def properties_at(node: dict[str, Any], definitions: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The schemas of `key` in every object that `node` allows."""
    if "$ref" in node:
        return properties_at(definitions[node["$ref"].rpartition("/")[2]], definitions, key)
    found = [node["properties"][key]] if key in node.get("properties", {}) else []
    extra = node.get("additionalProperties")
    found += [extra] if isinstance(extra, dict) else []
    for part in [*node.get("anyOf", []), *node.get("oneOf", []), *([node["items"]] if "items" in node else [])]:
        if isinstance(part, dict):
            found += properties_at(part, definitions, key)
    return found


def test_the_schema_knows_every_key_of_the_example_and_no_other() -> None:
    """An editor accepts what `load` accepts."""
    made = schema()
    assert json.loads(json.dumps(made)) == made
    data = yaml.safe_load((ROOT / "config.example.yaml").read_text("utf-8"))
    assert unknown_keys(data, [made], made["$defs"]) == []
    assert unknown_keys({"upstream": "x", "credential": {"preset": "vanilla"}}, [made], made["$defs"]) == []
    assert unknown_keys({"guard": {"hots": []}}, [made], made["$defs"]) == ["hots"]
    assert unknown_keys({"warnings": []}, [made], made["$defs"]) == ["warnings"]


def unknown_keys(data: Any, nodes: list[dict[str, Any]], definitions: dict[str, Any]) -> list[str]:
    """Keys of the data that none of the schemas has; a schema without properties takes any."""
    if isinstance(data, list):
        return [key for each in data for key in unknown_keys(each, nodes, definitions)]
    if not isinstance(data, dict):
        return []
    found: list[str] = []
    for key, value in data.items():
        inner = [schema for node in nodes for schema in properties_at(node, definitions, key)]
        found += unknown_keys(value, inner, definitions) if inner else [key]
    return found


def test_every_property_of_the_schema_has_a_description() -> None:
    """The descriptions come from the docstrings of the fields."""
    made = schema()
    bare = [
        f"{name}.{key}"
        for name, definition in {"": made, **made["$defs"]}.items()
        for key, each in definition["properties"].items()
        # A reference has the description of what it leads to.
        if "description" not in {**each, **made["$defs"].get(each.get("$ref", "").rpartition("/")[2], {})}
        and key != "preset"
    ]
    assert bare == []
    assert not re.search(r"SecretSource|pydantic", json.dumps(made))


def test_models_are_not_validated_without_a_reader_of_secrets() -> None:
    """A programming mistake is not reported as a mistake in the configuration."""
    with pytest.raises(TypeError, match=r"validated by proxy\.config\.load"):
        GuardConfig.model_validate({"client_key": {"env": "T"}})


@pytest.mark.parametrize("literal", ["upstream", "client", "api.example", "api.example:8443"])
def test_the_host_header_may_be_a_literal(literal: str) -> None:
    """Or one of two words."""
    assert route_of(f"host_header: {literal}").host_header == literal


def test_what_a_program_does_not_get_is_what_the_configuration_names(example: Config) -> None:
    """By one count and by the other: the references that were read, and those that were written."""
    written = yaml.safe_load((ROOT / "config.example.yaml").read_text("utf-8"))
    assert example.withheld() == set(_named(written))


def _named(written: object) -> Iterator[str]:
    if isinstance(written, dict):
        if isinstance(name := written.get("env"), str):
            yield name
        written = list(written.values())
    for each in written if isinstance(written, list) else ():
        yield from _named(each)


def test_a_program_gets_only_those_secrets_of_the_environment_that_it_is_given() -> None:
    """Those that the configuration names anywhere, before it or after, are withheld."""
    document = {
        "routes": [
            {"prefix": f"/{name}", "upstream": f"https://{name}.example", "credential": name} for name in "abc"
        ],
        "credentials": {
            "a": {"type": "static", "token": {"env": "A"}},
            "b": {"type": "exec", "command": ["x"], "env": {"B": {"env": "B"}, "OWN": {"env": "A"}, "PLAIN": "1"}},
            "c": {"type": "static", "token": {"env": "C"}},
        },
    }
    values = {name: f"{name}-{TOKEN}" for name in "ABCD"}
    program = config_of(yaml.safe_dump(document), environ=values).credentials["b"]
    assert isinstance(program, ExecCredential)
    given = program.environment()
    del given["KUBERNETES_EXEC_INFO"]
    assert given == {"A": None, "C": None, "B": values["B"], "OWN": values["A"], "PLAIN": "1"}
