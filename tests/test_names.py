"""What was put where a name belongs is quoted only where it looks like one."""

import base64
import random
import uuid
from pathlib import Path
from typing import Final

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from proxy.cli import main
from proxy.config import Source, load, quick
from proxy.config.effective import effective
from proxy.errors import ConfigError
from proxy.names import looks_like_a_name, shown_words
from tests.support.harness import StartProxy
from tests.support.leaks import Canaries

NAMES: Final = (
    *(
        "API_TOKEN",
        "_",
        "token",
        "BEARER_PROXY_CONFIG_YAML",
        "oauth2_client",
        "clientSecret",
        "X-Api-Key",
        "S3_KEY",
    ),
    *("/data/attributes/access_token", "team-a.reader", "AWS4_HMAC_SHA256_KEY_ID", "k8s", "S3_KEY"),
)
SECRETS: Final = (
    *(
        "S3cretCanaryValue9876543210",
        "0123456789abcdef0123456789abcdef",
        "ABCDEFGH23456789",
        "a" * 65,
        "Zm9vYmFyYmF6",
    ),
    *(
        "eyJhbGciOiJIUzI1NiJ9.e30.abc",
        "ghp_abcdefghijklmnop",
        "token_S3cretCanaryValue98",
        "correct horse",
        "a=b",
        "",
    ),
    *("p@ssword", "glpat-abcdefghijkl", "xyzzyxyzzyxyzzyxyzzyxyzzyxyzzyxyz", "9876543210987654"),
)


@pytest.mark.threat(75, 125)
def test_075_a_name_is_told_from_what_a_generator_makes() -> None:
    """By its characters, its length, and runs in which letters and digits are mixed."""
    assert [name for name in NAMES if not looks_like_a_name(name)] == []
    assert [secret for secret in SECRETS if looks_like_a_name(secret)] == []


@pytest.mark.threat(75)
@given(st.lists(st.text("aB3", min_size=10, max_size=20) | st.text(max_size=5)).map(" ".join))
def test_075_sentences_without_long_words_and_hints_are_spared_nothing(sentence: str) -> None:
    """What is masked in one is masked where every word is looked at, for a hint that stands before it."""
    assert shown_words(f"gh {sentence}") == f"gh {shown_words(sentence)}"


@pytest.mark.threat(75, 125)
def test_075_what_generators_make_is_told_from_names() -> None:
    """UUIDs, and base64 for addresses of 24 bytes and more, whatever `-` and `_` divide."""
    draw = random.Random(75)  # noqa: S311  shapes, no secrets
    uuids = [str(uuid.UUID(int=draw.getrandbits(128), version=4)) for _ in range(2000)]
    assert [each for each in uuids if looks_like_a_name(each) or shown_words(each) == each] == []
    made = [base64.urlsafe_b64encode(draw.randbytes(24)).decode() for _ in range(2000)]
    told = [each for each in made if looks_like_a_name(each) or shown_words(each) == each]
    assert len(told) <= len(made) // 200


@pytest.mark.threat(75, 125)
@pytest.mark.parametrize(
    "rest",
    [
        "credential: {type: static, token: {env: SECRET}}",
        "SECRET: 1",
        "SECRET: 1\nSECRET: 2",
        "limits: {SECRET: 1}",
        "guard: {client_keys: {SECRET: {key: {env: NONE}}}}",
        "guard: {client_keys: {SECRET!: {key: {env: NONE}}}}",
        "credentials: {SECRET: {type: none}}",
        "credential: SECRET",
    ],
)
def test_075_a_secret_in_the_place_of_a_name_is_not_quoted(rest: str, canaries: Canaries) -> None:
    """The sentence and the line say where it is all the same."""
    secret = "S3cret" + canaries.mint("token")[:24].replace("-", "x").replace("_", "x")
    text = "upstream: https://a.example\n" + rest.replace("SECRET", secret)
    with pytest.raises(ConfigError) as raised:
        load(Source(text, "c.yaml", None, "test"), environ={})
    assert raised.value.problems
    assert not any(secret in problem for problem in raised.value.problems)
    assert all(problem.startswith("c.yaml:") for problem in raised.value.problems)


@pytest.mark.threat(75, 125)
def test_075_the_name_of_a_variable_is_quoted_and_a_token_in_its_place_is_not() -> None:
    """`--token-env API_TOKEN`, and `--token-env $API_TOKEN`."""
    for name, said in (("API_TOKEN", "API_TOKEN"), (SECRETS[0], "***"), ("ABCDEFGH23456789", "***")):
        with pytest.raises(ConfigError, match=f"the environment variable {said.replace('*', '[*]')} is not set"):
            load(quick("https://a.example", token_env=name), environ={})


@pytest.mark.threat(75, 125)
@pytest.mark.parametrize(
    "rest",
    [
        "credential: {type: static, token: {env: SECRET}}",
        "credential: {type: static, SECRET}",
        "credential: {preset: vanilla, token: {env: SECRET}, SECRET}",
        "limits: {SECRET}",
    ],
)
@pytest.mark.parametrize("secret", ["correcthorsebatterystaple", "hunter2", "Tr0ub4dor_and_3", "welcome"])
def test_075_a_word_in_the_place_of_a_variable_or_of_a_key_is_not_quoted(rest: str, secret: str) -> None:
    """People make words secrets: variables have capitals, and a key has a value."""
    text = "upstream: https://a.example\n" + rest.replace("SECRET", secret)
    with pytest.raises(ConfigError) as raised:
        load(Source(text, "c.yaml", None, "test"), environ={})
    assert raised.value.problems
    assert not any(secret in problem for problem in raised.value.problems)


@pytest.mark.threat(75, 125)
def test_075_a_secret_in_the_place_of_a_path_is_not_quoted(tmp_path: Path) -> None:
    """The folder is, and so is a path."""
    for name, said in (("gitlab.token", "gitlab.token"), (SECRETS[0], "***")):
        with pytest.raises(ConfigError) as raised:
            load(quick("https://a.example", token_file=str(tmp_path / name)), environ={})
        assert f"{tmp_path.name}/{said} does not exist" in str(raised.value)


@pytest.mark.threat(75)
@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--upstream", "https://a.example", "SECRET"],
        ["run", "--SECRET"],
        ["--SECRET", "run"],
        ["SECRET"],
        ["token", "a", "SECRET"],
        ["init", "SECRET"],
        ["run", "--upstream=https://a.example", "--token-env=SECRET"],
        ["healthcheck", "--SECRET"],
    ],
)
def test_075_the_command_line_repeats_no_secret(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that was pasted where it does not belong, and a word that is none is still repeated."""
    monkeypatch.setenv("HOME", str(tmp_path))
    ended = CliRunner().invoke(main, [each.replace("SECRET", SECRETS[0]) for each in arguments])
    assert ended.exit_code == 2
    assert SECRETS[0] not in ended.output
    assert ended.output
    assert "No such command 'runn'" in CliRunner().invoke(main, ["runn"]).output
    assert shown_words("Got an unexpected extra argument (https://a.example/x)").endswith("(https://a.example/x)")


LITERALS: Final = """
routes:
  - prefix: /
    upstream: http://127.0.0.1:9
    credential: c
    inject: {replace: PLACEHOLDER-1}
    headers: {set: {X-Api-Key: constant-key-1, X-Version: version-2}}
credentials:
  c: {type: static, token: {env: T}, headers: {X-Client-Secret: constant-secret-3}}
"""
LOGIN: Final = """
upstream: http://127.0.0.1:9
credential: {type: login, login: {url: 'http://127.0.0.1:9/l?a=b&password=constant-4'}, response: {token: /t}}
"""


@pytest.mark.threat(84)
def test_084_what_is_written_out_is_not_shown_where_it_may_be_secret(tmp_path: Path) -> None:
    """A placeholder never, a header field by its name."""
    path = tmp_path / "c.yaml"
    path.touch(mode=0o600)
    path.write_text(LITERALS)
    config = load(Source(LITERALS, "c.yaml", path, str(path)), environ={"T": "t" * 20})
    shown = yaml.safe_load(effective(config))
    assert shown["routes"][0]["inject"] == {"replace": "***"}
    assert shown["routes"][0]["headers"]["set"] == {"X-Api-Key": "***", "X-Version": "version-2"}
    login = load(Source(LOGIN, "c.yaml", path, str(path)), environ={})
    assert "http://127.0.0.1:9/l?a=b&password=***\n" in effective(login)
    assert {each.reveal() for each in config.literals()} == {"PLACEHOLDER-1", "constant-key-1", "constant-secret-3"}


@pytest.mark.threat(75)
async def test_075_what_is_written_out_is_masked_in_the_log(proxying: StartProxy) -> None:
    """As a secret that was read from elsewhere is."""
    config = yaml.safe_load(LITERALS.replace(", headers: {X-Client-Secret: constant-secret-3}", ""))
    async with proxying(config, environ={"T": "t" * 20}) as proxy:
        await proxy.ask("GET", "/PLACEHOLDER-1/constant-key-1/version-2", {"Host": "evil.example"})
        assert [line["path"] for line in proxy.lines()] == ["/***/***/version-2"]
