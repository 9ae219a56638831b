"""Where the configuration comes from: the order of places, and the quick form."""

import os
from pathlib import Path

import pytest

from proxy.config import StaticCredential, TcpAddress, find, load, quick
from proxy.errors import ConfigError
from proxy.redact import Secret

TOKEN = "cNrY-t0ken-9f8e7d6c5b4a"
TEXT = "upstream: https://a.example\n"


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """All five places at once, each with an upstream of its own; gives the environment."""
    (tmp_path / "xdg" / "bearer-proxy").mkdir(parents=True)
    for name in ("option.yaml", "variable.yaml", "bearer-proxy.yaml", "xdg/bearer-proxy/config.yaml"):
        (tmp_path / name).write_text(f"# {name}\n{TEXT}")
    monkeypatch.chdir(tmp_path)
    return {
        "BEARER_PROXY_CONFIG": "variable.yaml",
        "BEARER_PROXY_CONFIG_YAML": f"# text\n{TEXT}",
        "XDG_CONFIG_HOME": str(tmp_path / "xdg"),
    }


def test_the_places_are_tried_in_their_order(places: dict[str, str], tmp_path: Path) -> None:
    """Option, variable, text in a variable, the current folder, the user's folder."""
    found = [find("option.yaml", places), find(None, places)]
    del places["BEARER_PROXY_CONFIG"]
    found.append(find(None, places))
    del places["BEARER_PROXY_CONFIG_YAML"]
    found.append(find(None, places))
    (tmp_path / "bearer-proxy.yaml").unlink()
    found.append(find(None, places))
    assert [source.text.splitlines()[0] for source in found] == [
        "# option.yaml",
        "# variable.yaml",
        "# text",
        "# bearer-proxy.yaml",
        "# xdg/bearer-proxy/config.yaml",
    ]
    assert [source.identity for source in found] == [
        str(tmp_path / "option.yaml"),
        str(tmp_path / "variable.yaml"),
        "env:BEARER_PROXY_CONFIG_YAML",
        str(tmp_path / "bearer-proxy.yaml"),
        str(tmp_path / "xdg/bearer-proxy/config.yaml"),
    ]


def test_an_empty_variable_is_as_good_as_none(places: dict[str, str]) -> None:
    """Container files often set variables to nothing."""
    empty = dict.fromkeys(places, "")
    assert find(None, {**empty, "HOME": "/nonexistent"}).name == "bearer-proxy.yaml"


def test_without_any_place_the_sentence_says_where_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's folder is below HOME where XDG_CONFIG_HOME is not set."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        find(None, {"HOME": "/nonexistent"})
    [problem] = caught.value.problems
    assert problem == (
        "there is no configuration: write ./bearer-proxy.yaml or /nonexistent/.config/bearer-proxy/config.yaml, "
        "or name one with -c PATH, "
        "or give run, exec, check, doctor or explain --upstream URL --token-env NAME"
    )


def test_a_named_file_that_cannot_be_used_is_no_reason_to_look_elsewhere(places: dict[str, str]) -> None:
    """What was asked for is used, or an error."""
    for name, sentence in {
        "missing.yaml": "missing.yaml: this file does not exist: create it, or correct the path",
        "xdg": "xdg: this is a folder: name the file in it",
        "a\0b": "a\0b: this file cannot be read by this user: check its owner and mode",
    }.items():
        with pytest.raises(ConfigError) as caught:
            find(name, places)
        assert caught.value.problems == [sentence]


def test_a_file_that_is_not_utf8_names_the_line(tmp_path: Path) -> None:
    """Without a byte of it."""
    path = tmp_path / "c.yaml"
    path.write_bytes(b"# \xc3\xa4\nupstream: \xff\n")
    with pytest.raises(ConfigError) as caught:
        find(str(path), {})
    assert caught.value.problems == [f"{path}:2: the file is not UTF-8 text: save it as UTF-8"]


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    """Some editors write one."""
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert load(find(str(path), {}), environ={}).routes[0].upstream == "https://a.example"


def test_relative_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the proxy was started."""
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "c.yaml").write_text(
        f"{TEXT}credential: {{type: static, token: {{file: token}}}}\n"
        "tls: {ca: ca.pem, cert: client.pem, key: client.key}\n"
    )
    (folder / "ca.pem").touch()
    (folder / "client.pem").touch()
    (folder / "client.key").touch(mode=0o600)
    (folder / "token").touch(mode=0o600)
    (folder / "token").write_text(TOKEN)
    monkeypatch.chdir(tmp_path)
    config = load(find(os.path.join("etc", "c.yaml"), {}), environ={})  # noqa: PTH118  as on a command line
    tls = config.routes[0].tls
    assert (tls.ca, tls.cert, tls.key) == (folder / "ca.pem", folder / "client.pem", folder / "client.key")
    [(_path, source)] = config.secrets()
    assert source.value == Secret(TOKEN)


def test_the_quick_form_takes_the_token_from_a_variable() -> None:
    """One upstream, one static token."""
    config = load(quick("https://a.example", "127.0.0.1:0", token_env="T"), environ={"T": TOKEN})
    credential = config.credentials["default"]
    assert isinstance(credential, StaticCredential)
    assert credential.token.describe() == {"env": "T"}
    assert config.listen == (TcpAddress("127.0.0.1", 0),)


def test_the_quick_form_takes_the_token_from_a_file_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As any program takes paths on its command line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").touch(mode=0o600)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    [(_path, source)] = load(quick("https://a.example", token_file="token"), environ={}).secrets()
    assert source.value == Secret(TOKEN)


def test_the_quick_form_takes_the_token_from_standard_input_and_does_not_print_it() -> None:
    """What was piped in was never in a file that others can read."""
    awkward = f'{TOKEN} "quoted" \\ #'
    source = quick("https://a.example", token_stdin=f"{awkward}\r\n")
    assert TOKEN not in repr(source)
    [(_path, secret)] = load(source, environ={}).secrets()
    assert secret.value == Secret(awkward)
    assert secret.describe() == "***"


def test_the_quick_form_takes_exactly_one_token() -> None:
    """None and two are both mistakes."""
    for given in ({}, {"token_env": "A", "token_file": "b"}):
        with pytest.raises(ConfigError, match="takes one of --token-env NAME, --token-file PATH and --token-stdin"):
            quick("https://a.example", **given)


def test_mistakes_in_the_quick_form_are_told_like_those_of_a_file() -> None:
    """By key path, with the command line as the file."""
    with pytest.raises(ConfigError) as caught:
        load(quick("ftp://x", "0.0.0.0:1", token_stdin=""), environ={})
    assert caught.value.problems == [
        "command line:1: listen: others can reach this address: set guard.client_key, or listen on 127.0.0.1",
        "command line:2: upstream: write a whole URL that begins with https:// or http://",
        "command line:3: credential.token: the secret is empty: put the secret there",
    ]
