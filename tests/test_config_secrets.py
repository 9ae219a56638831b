"""Secrets by reference: each kind, its failures, and who else may read a secret file (threats 125, 134)."""

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest
import yaml
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked

from proxy.config import Source, find, load, secrets
from proxy.config.secrets import FORMS, LiteralSecret, SecretReader
from proxy.errors import ConfigError
from proxy.redact import Secret

TOKEN = "cNrY-t0ken-9f8e7d6c5b4a"
REFUSED = "no secrets here"
EMPTY_MOUNTS = Path(os.devnull)


@pytest.fixture
def reader(tmp_path: Path) -> SecretReader:
    """A reader below the test's folder, which is on an ordinary file system as far as it knows."""
    return SecretReader({"T": TOKEN, "PATH": "/usr/bin:/bin"}, tmp_path, REFUSED, mounts=EMPTY_MOUNTS)


def secret_file(folder: Path, mode: int = 0o600, content: bytes = TOKEN.encode()) -> Path:
    """A file with a secret."""
    path = folder / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def refusal(reader: SecretReader, reference: object) -> str:
    """The sentence that refuses a reference; it never holds the secret."""
    with pytest.raises(ValueError, match=r".") as caught:
        reader.read(reference)
    assert TOKEN not in str(caught.value)
    return str(caught.value)


def test_a_reader_does_not_print_the_environment(reader: SecretReader) -> None:
    """It holds secrets, ours and those of others."""
    assert TOKEN not in repr(reader)


def test_the_environment_gives_a_secret(reader: SecretReader) -> None:
    """As it is, and described by the name of the variable."""
    source = reader.read({"env": "T"})
    assert source.value == Secret(TOKEN)
    assert source.describe() == {"env": "T"}
    assert TOKEN not in repr(source)


class Desktop(KeyringBackend):
    """A keyring with one password, which may be locked."""

    priority = 1

    def __init__(self, *, locked: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # keyring's
        self.locked = locked

    def get_password(self, service: str, username: str) -> str | None:
        """The password of api.example.com/v2 and ann."""
        if self.locked:
            raise KeyringLocked(TOKEN)
        return TOKEN if (service, username) == ("api.example.com/v2", "ann") else None

    def set_password(self, service: str, username: str, password: str) -> None:
        """Nothing is set here."""

    def delete_password(self, service: str, username: str) -> None:
        """Nothing is deleted here."""


@pytest.fixture
def desktop() -> Iterator[Desktop]:
    """The keyring in use."""
    before = keyring.get_keyring()
    made = Desktop()
    keyring.set_keyring(made)
    yield made
    keyring.set_keyring(before)


@pytest.mark.threat(135)
def test_the_keyring_gives_a_secret_by_service_and_user(reader: SecretReader, desktop: Desktop) -> None:
    """The user stands behind the last slash; what is not there or locked is said, never shown."""
    source = reader.read({"keyring": "api.example.com/v2/ann"})
    assert source.value == Secret(TOKEN)
    assert source.describe() == {"keyring": "api.example.com/v2/ann"}
    assert "run `keyring set api.example.com bob`" in refusal(reader, {"keyring": "api.example.com/bob"})
    assert "SERVICE/USER" in refusal(reader, {"keyring": "ann"})
    desktop.locked = True
    assert "unlock it" in refusal(reader, {"keyring": "api.example.com/v2/ann"})


@pytest.mark.threat(135)
def test_135_a_keyring_that_waits_for_a_person_holds_nobody_up(
    reader: SecretReader, desktop: Desktop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may show its question on a screen where nobody sits."""
    answered = threading.Event()
    monkeypatch.setattr(secrets, "KEYRING_SECONDS", 0.05)
    monkeypatch.setattr(desktop, "get_password", lambda *_: answered.wait())
    assert "did not answer" in refusal(reader, {"keyring": "api.example.com/v2/ann"})
    answered.set()


@pytest.mark.threat(135)
def test_without_the_extra_the_keyring_says_what_to_install(
    reader: SecretReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers do not have it."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert "pip install 'bearer-proxy[keyring]'" in refusal(reader, {"keyring": "a/b"})


@pytest.mark.parametrize(
    ("content", "pointer", "found"),
    [
        (b'{"a": {"b": "%s"}}' % TOKEN.encode(), "/a/b", TOKEN),
        (b'["%s"]' % TOKEN.encode(), "/0", TOKEN),
        (b'{"a": 1}', "/a", None),
        (b'{"a": ""}', "/a", None),
        (b'{"a": "x"}', "/b", None),
        (b"not JSON " + TOKEN.encode(), "/a", None),
        (b'{"a": "x"}', 5, None),
    ],
)
def test_a_member_of_a_json_document_is_a_secret(
    reader: SecretReader, tmp_path: Path, content: bytes, pointer: object, found: str | None
) -> None:
    """A cloud's key file, by a JSON pointer; what is no text is refused."""
    secret_file(tmp_path, content=content)
    if found is None:
        refusal(reader, {"file": "secret", "json": pointer})
        return
    source = reader.read({"file": "secret", "json": pointer})
    assert source.value == Secret(found)
    assert source.describe() == {"file": "secret", "json": pointer}


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n"])
def test_a_file_gives_a_secret_without_its_line_end(reader: SecretReader, tmp_path: Path, end: bytes) -> None:
    """Editors and `echo` add line ends; nothing else is taken off."""
    secret_file(tmp_path, content=b" " + TOKEN.encode() + b" " + end)
    source = reader.read({"file": "secret"})
    assert source.value == Secret(f" {TOKEN} ")
    assert source.describe() == {"file": "secret"}
    assert source.warning is None


def test_a_command_gives_a_secret_without_a_shell(reader: SecretReader) -> None:
    """Its output without the line end; arguments go through as they are, and are not shown again."""
    source = reader.read({"command": ("printf", "%s\\n", f"$T `id` {TOKEN}")})
    assert source.value == Secret(f"$T `id` {TOKEN}")
    assert source.describe() == {"command": ["printf", "***"]}


@pytest.mark.threat(83)
def test_083_a_command_sees_the_environment_of_the_proxy_without_its_secrets() -> None:
    """Password managers need HOME and their agents' sockets, and nobody's token."""
    environ = {"T": TOKEN, "HOME": "/srv/x", "PATH": "/usr/bin:/bin"}
    written = {
        "upstream": "https://a.example",
        "credential": {"type": "static", "token": {"command": ["sh", "-c", "echo ${T-none}$HOME-long-enough"]}},
        "guard": {"client_key": {"env": "T"}},
    }
    loaded = load(Source(yaml.safe_dump(written), "test", None, "test"), environ=environ)
    [token] = [source for path, source in loaded.secrets() if path[-1] == "token"]
    assert token.value == Secret("none/srv/x-long-enough")


def test_what_a_command_writes_to_standard_error_is_not_shown(
    reader: SecretReader, capfd: pytest.CaptureFixture[str]
) -> None:
    """It might be the secret."""
    sentence = refusal(reader, {"command": ("sh", "-c", f"echo {TOKEN} >&2; exit 4")})
    assert sentence == "the command sh ended with status 4: run it by hand to see why"
    assert capfd.readouterr() == ("", "")


def test_a_command_that_does_not_end_is_ended(tmp_path: Path) -> None:
    """The start does not wait for a password prompt for ever."""
    reader = SecretReader({"PATH": "/usr/bin:/bin"}, tmp_path, REFUSED, command_seconds=0.05)
    sentence = refusal(reader, {"command": ("sleep", "60")})
    assert sentence == "the command sleep did not end within 0.05 seconds: run it by hand"


def test_a_command_that_prints_without_end_is_ended_at_once(reader: SecretReader) -> None:
    """Neither the memory nor the time is spent on it."""
    before = time.monotonic()
    assert refusal(reader, {"command": ("yes",)}) == "yes gave more than 64 KiB: that is no secret"
    assert time.monotonic() - before < reader.command_seconds / 2
    script = "head -c 65537 /dev/zero; exec sleep 60"
    assert "more than 64 KiB" in refusal(reader, {"command": ("sh", "-c", script)})
    assert time.monotonic() - before < reader.command_seconds / 2


def test_the_longest_secret_of_a_command_is_64_kib(reader: SecretReader) -> None:
    """In as many pieces as the pipe makes of it."""
    script = "head -c 65000 /dev/zero | tr '\\0' x; head -c 536 /dev/zero | tr '\\0' x"
    assert reader.read({"command": ("sh", "-c", script)}).value == Secret("x" * 65536)


def test_a_child_of_a_command_in_the_background_costs_no_secret(reader: SecretReader) -> None:
    """An agent that is started on the way keeps the output open."""
    before = time.monotonic()
    assert reader.read({"command": ("sh", "-c", "echo $T; sleep 11 &")}).value == Secret(TOKEN)
    assert time.monotonic() - before < reader.command_seconds / 2


@pytest.mark.threat(136)
def test_systemd_gives_a_secret(tmp_path: Path) -> None:
    """From $CREDENTIALS_DIRECTORY, whose modes are systemd's affair."""
    path = secret_file(tmp_path, 0o444)
    reader = SecretReader({"CREDENTIALS_DIRECTORY": str(tmp_path)}, Path("/"), REFUSED, mounts=EMPTY_MOUNTS)
    source = reader.read({"systemd": "secret"})
    assert source.value == Secret(TOKEN)
    assert source.describe() == {"systemd": "secret"}
    assert source.warning == f"others on this machine can read {path}: run `chmod 600 {path}`"
    assert refusal(reader, {"systemd": "../secret"}) == "systemd takes the name of a credential, without slashes"


@pytest.mark.threat(125, 134)
@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o606, 0o777])
def test_a_file_that_others_can_read_is_refused_with_the_command_that_mends_it(
    reader: SecretReader, tmp_path: Path, mode: int
) -> None:
    """On an ordinary file system."""
    path = secret_file(tmp_path, mode)
    assert refusal(reader, {"file": str(path)}) == f"others on this machine can read {path}: run `chmod 600 {path}`"


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_file_that_nobody_else_can_read_is_taken(reader: SecretReader, tmp_path: Path, mode: int) -> None:
    """Owner only."""
    assert reader.read({"file": str(secret_file(tmp_path, mode))}).warning is None


@pytest.mark.skipif(os.geteuid() != 0, reason="this machine's user is not root, and only root can give a file away")
def test_the_group_may_read_a_file_that_is_not_ours(reader: SecretReader, tmp_path: Path) -> None:
    """Root's file, readable by the service's group, is how secrets are handed over."""
    path = secret_file(tmp_path, 0o640)
    os.chown(path, 65534, -1)
    assert reader.read({"file": str(path)}).warning is None
    path.chmod(0o644)
    assert refusal(reader, {"file": str(path)}).startswith("others on this machine can read")


@pytest.mark.parametrize(
    ("mounts", "lenient"),
    [
        ("tmpfs {folder} tmpfs rw 0 0\n", True),
        ("/dev/x / ext4 rw 0 0\nramfs {parent} ramfs rw 0 0\n", True),
        ("tmpfs / tmpfs rw 0 0\n/dev/x {folder} ext4 rw 0 0\n", False),
        ("tmpfs {folder} tmpfs rw 0 0\n/dev/x {folder} ext4 rw 0 0\n", False),
        ("tmpfs {folder}x tmpfs rw 0 0\n/dev/x / ext4 rw 0 0\n", False),
    ],
)
def test_on_a_file_system_in_memory_an_open_file_is_only_warned_about(
    tmp_path: Path, mounts: str, *, lenient: bool
) -> None:
    """The innermost mount counts, and the last one on the same point; orchestrators choose the modes there."""
    folder = tmp_path / "a b"
    folder.mkdir()
    path = secret_file(folder, 0o644)
    table = tmp_path / "mounts"
    written = {"folder": str(folder).replace(" ", "\\040"), "parent": str(tmp_path)}
    table.write_text(mounts.format(**written))
    reader = SecretReader({}, tmp_path, REFUSED, mounts=table)
    if lenient:
        assert (
            reader.read({"file": str(path)}).warning
            == f"others on this machine can read {path}: run `chmod 600 {path}`"
        )
    else:
        assert "can read" in refusal(reader, {"file": str(path)})


def test_a_machine_without_a_table_of_mounts_is_ordinary(tmp_path: Path) -> None:
    """Not every system has one."""
    path = secret_file(tmp_path, 0o644)
    reader = SecretReader({}, tmp_path, REFUSED, mounts=tmp_path / "none")
    assert "can read" in refusal(reader, {"file": str(path)})


def test_the_warning_about_an_open_file_names_line_and_key(tmp_path: Path) -> None:
    """It is one of the configuration's warnings."""
    path = secret_file(tmp_path, 0o644)
    config = load(
        Source(
            "upstream: https://a.example\ncredential:\n  type: static\n  token: {systemd: secret}\n", "c", None, "x"
        ),
        environ={"CREDENTIALS_DIRECTORY": str(tmp_path)},
    )
    assert config.warnings == [
        f"c:4: credential.token: others on this machine can read {path}: run `chmod 600 {path}`"
    ]


@pytest.mark.threat(134)
def test_files_that_hold_no_secret_are_refused(reader: SecretReader, tmp_path: Path) -> None:
    """Each with a sentence of its own; a pipe or socket does not hold the start."""
    path = secret_file(tmp_path, content=b"\n")
    assert refusal(reader, {"file": "secret"}) == f"the file {path} is empty: put the secret there"
    secret_file(tmp_path, content=b"\xff\xfe")
    assert refusal(reader, {"file": "secret"}) == f"{path} gave bytes that are not UTF-8 text"
    secret_file(tmp_path, content=b"x" * (64 * 1024 + 1))
    assert refusal(reader, {"file": "secret"}) == f"{path} gave more than 64 KiB: that is no secret"
    assert refusal(reader, {"file": "."}).startswith(f"the file {tmp_path} cannot be read")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert refusal(reader, {"file": "pipe"}) == f"{pipe} is not a regular file: name the file that holds the secret"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        assert "cannot be read" in refusal(reader, {"file": "s"})


@pytest.mark.parametrize(
    "reference",
    [
        {},
        {"env": "A", "file": "b"},
        {"vault": TOKEN},
        {TOKEN: None},
        {"env": None},
        {"file": ""},
        {"file": "a\0b"},
        [TOKEN],
        None,
        True,
    ],
)
def test_what_is_no_reference_is_refused_without_being_repeated(reader: SecretReader, reference: object) -> None:
    """`{S3cret}` is a mapping whose key is the secret."""
    assert refusal(reader, reference) == f"write a reference to a secret: {FORMS}"


@pytest.mark.threat(125)
@pytest.mark.parametrize("literal", [TOKEN, 4711, LiteralSecret(TOKEN)])
def test_a_literal_is_refused_where_the_file_is_not_private(reader: SecretReader, literal: object) -> None:
    """Whatever its kind; the sentence is that of the source."""
    assert refusal(reader, literal) == REFUSED
    assert TOKEN not in repr(literal) or isinstance(literal, str)


@pytest.mark.parametrize(("mode", "private"), [(0o600, True), (0o400, True), (0o640, False), (0o604, False)])
def test_a_private_file_may_hold_secrets(tmp_path: Path, mode: int, *, private: bool) -> None:
    """Owner and mode 0600; else the sentence has the command."""
    path = tmp_path / "c.yaml"
    path.write_text(f"upstream: https://a.example\ncredential: {{type: static, token: {TOKEN}}}\n")
    path.chmod(mode)
    source = find(str(path), {})
    if private:
        [(_path, secret)] = load(source, environ={}).secrets()
        assert (secret.value, secret.describe()) == (Secret(TOKEN), "***")
        return
    with pytest.raises(ConfigError) as caught:
        load(source, environ={})
    [problem] = caught.value.problems
    assert problem == (
        f"{path}:2: credential.token: a secret is not written out here: write {{env: NAME}} or {{file: PATH}}, "
        f"or run `chmod 600 {path}`"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="this machine's user is not root, and only root can give a file away")
def test_a_private_file_of_somebody_else_may_not(tmp_path: Path) -> None:
    """Its owner reads it."""
    path = tmp_path / "c.yaml"
    path.write_text(f"upstream: https://a.example\ncredential: {{type: static, token: {TOKEN}}}\n")
    path.chmod(0o600)
    os.chown(path, 65534, -1)
    with pytest.raises(ConfigError, match=f"run `sudo chown .* && chmod 600 {path}`"):
        load(find(str(path), {}), environ={})


def test_text_in_the_environment_holds_no_secret() -> None:
    """Environments are shown by many tools."""
    text = f"upstream: https://a.example\ncredential: {{type: static, token: {TOKEN}}}\n"
    with pytest.raises(ConfigError) as caught:
        load(find(None, {"BEARER_PROXY_CONFIG_YAML": text}), environ={})
    [problem] = caught.value.problems
    assert problem == (
        "BEARER_PROXY_CONFIG_YAML:2: credential.token: BEARER_PROXY_CONFIG_YAML holds no secret: "
        "put it into a variable of its own and write {env: NAME}"
    )


def test_plain_values_under_secret_names_are_secrets(tmp_path: Path) -> None:
    """In a login, the name of a field decides; user names may be plain."""
    path = tmp_path / "c.yaml"
    path.write_text(
        "upstream: https://a.example\ncredential:\n  type: login\n  login:\n    url: https://a.example/login\n"
        f"    fields: {{user: plain, Password: {TOKEN}, pin_secret: 123456789, keyed: true}}\n"
        f"    headers: {{X-Private-Token: {TOKEN}, X-Client: plain}}\n"
    )
    path.chmod(0o600)
    found = {path[-1]: len(source.value) for path, source in load(find(str(path), {}), environ={}).secrets()}
    assert found == {"Password": len(TOKEN), "pin_secret": 9, "X-Private-Token": len(TOKEN)}
