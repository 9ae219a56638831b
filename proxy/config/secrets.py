"""Reads secrets by reference: environment, file, command, keyring, systemd; a literal only in a private file.

Law: a sentence from here names where the secret should have come from, never what came (threats 125, 134).
"""

import json
import os
import queue
import re
import stat
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from proxy.config.programs import LONGEST, output
from proxy.grants.pointer import resolve
from proxy.names import shown_path, shown_variable
from proxy.redact import MASK, Borrowed, Secret

COMMAND_SECONDS: Final = 10.0
KEYRING_SECONDS: Final = 5.0

#: Where orchestrators put secrets; they choose the modes there, and the folder itself is closed.
LENIENT_FOLDERS: Final = ("/run/secrets", "/var/run/secrets")
_MEMORY_FILE_SYSTEMS: Final = frozenset({"tmpfs", "ramfs"})

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")
#: The kinds whose reference is one text.
KINDS: Final = ("env", "file", "systemd", "keyring", "credential")
FORMS: Final = (
    "{env: NAME}, {file: PATH}, {command: [PROGRAM, ARGUMENT]}, {keyring: SERVICE/USER} or {systemd: NAME}; "
    "in a credential also {credential: NAME}"
)


class LiteralSecret:
    """A secret that was written out in the configuration; it does not print."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return MASK


@dataclass(frozen=True, slots=True)
class SecretSource:
    """A secret, and where it came from.

    `kind` is `env`, `file`, `command`, `keyring`, `systemd`, `credential` or `literal`; `reference` is the name,
    path or program (None for a literal); `warning` is a sentence to show at load, or None. The value of a
    `credential` is `Borrowed`: it comes when it is needed. `member` is the JSON pointer to it in what was read.
    `stands_in`: the value is none, since nothing was read (`unread.py`).
    """

    kind: str
    reference: str | tuple[str, ...] | None
    value: Secret
    warning: str | None = None
    member: str | None = None
    stands_in: bool = False

    def describe(self) -> object:
        """The reference as it may be shown; a command without its arguments, a literal as `***`."""
        if self.reference is None:
            return MASK
        member = {} if self.member is None else {"json": self.member}
        if isinstance(self.reference, tuple):
            arguments = [MASK] if len(self.reference) > 1 else []
            return {self.kind: [self.reference[0], *arguments], **member}
        return {self.kind: self.reference, **member}


@dataclass(frozen=True, slots=True)
class SecretReader:
    """Reads the secrets of one configuration.

    `folder` is what relative paths are relative to; `literals_refused` is None where literals are allowed, else
    the sentence that refuses them; `mounts` is the kernel's table of mounts; `withheld` are the variables that hold
    secrets of it, which no program sees.
    """

    environ: Mapping[str, str] = field(repr=False)
    folder: Path
    literals_refused: str | None
    mounts: Path = Path("/proc/self/mounts")
    command_seconds: float = COMMAND_SECONDS
    withheld: frozenset[str] = frozenset()

    def read(self, value: object) -> SecretSource:
        """The secret that `value` (a reference or a literal) stands for; raises `ValueError`."""
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            value = LiteralSecret(str(value))
        if isinstance(value, LiteralSecret):
            return self._literal(value.text)
        if isinstance(value, Mapping) and len(value) == 2 and "json" in value:
            whole = {key: each for key, each in value.items() if key != "json"}
            return _member(self.read(whole), value["json"])
        if not isinstance(value, Mapping) or len(value) != 1:
            raise ValueError(f"write a reference to a secret: {FORMS}")
        [(kind, reference)] = value.items()
        if kind == "command":
            return self._command(reference)
        if kind not in KINDS or not isinstance(reference, str) or not reference or "\0" in reference:
            raise ValueError(f"write a reference to a secret: {FORMS}")
        read = {
            "env": self._env,
            "file": self._file,
            "systemd": self._systemd,
            "keyring": _keyring,
            "credential": _credential,
        }[kind]
        return read(reference)

    def warning_of_mode(self, path: Path) -> str | None:
        """What is wrong with the mode of a file that holds a secret; raises `ValueError` where that is refused."""
        return self._mode_warning(path, path.stat())

    def _literal(self, text: str) -> SecretSource:
        if self.literals_refused is not None:
            raise ValueError(self.literals_refused)
        return SecretSource("literal", None, _proper(text, "the secret"))

    def _env(self, variable: str) -> SecretSource:
        if not _VARIABLE.fullmatch(variable):
            raise ValueError("env takes the name of an environment variable: letters, digits and '_'")
        text, named = self.environ.get(variable), f"the environment variable {shown_variable(variable)}"
        if text is None:
            raise ValueError(f"{named} is not set: export it, or correct the name")
        return SecretSource("env", variable, _proper(text, named))

    def _file(self, reference: str) -> SecretSource:
        path = self.folder / reference
        text, warning = self._contents(path)
        return SecretSource("file", reference, _proper(text, f"the file {path}"), warning)

    def _systemd(self, credential: str) -> SecretSource:
        folder = self.environ.get("CREDENTIALS_DIRECTORY")
        if not folder:
            raise ValueError("CREDENTIALS_DIRECTORY is not set: give the unit LoadCredential=, or use {file: PATH}")
        if "/" in credential or credential in {".", ".."}:
            raise ValueError("systemd takes the name of a credential, without slashes")
        text, warning = self._contents(Path(folder) / credential)
        return SecretSource("systemd", credential, _proper(text, f"the systemd credential {credential}"), warning)

    def _command(self, reference: object) -> SecretSource:
        if (
            not isinstance(reference, list | tuple)
            or not reference
            or not all(isinstance(x, str) for x in reference)
        ):
            raise ValueError("command takes a list, program first, each argument in quotes: [pass, show, api]")
        command = tuple(str(part) for part in reference)
        program = command[0]
        seen = {name: value for name, value in self.environ.items() if name not in self.withheld}
        printed = output(command, seen, self.command_seconds)
        return SecretSource("command", command, _proper(_text(printed, program), f"the output of {program}"))

    def _contents(self, path: Path) -> tuple[str, str | None]:
        """Text of a secret file, and a warning about its mode; raises `ValueError`."""
        # What is no file may be the secret itself.
        named = shown_path(str(path))
        try:
            # Without O_NONBLOCK a pipe that nobody writes to would hold the start for ever.
            with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123  a descriptor
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):
                    raise ValueError(f"{path} is not a regular file: name the file that holds the secret")
                raw = file.read(LONGEST + 1)
        except FileNotFoundError:
            raise ValueError(f"the file {named} does not exist: create it, or correct the path") from None
        except (OSError, UnicodeError):
            raise ValueError(f"the file {named} cannot be read by this user: check its owner and mode") from None
        return _text(raw, str(path)), self._mode_warning(path, found)

    def _mode_warning(self, path: Path, found: os.stat_result) -> str | None:
        """None for a private file, a warning where somebody else sets the modes; raises `ValueError` elsewhere."""
        # A root-owned file that our group may read is the usual way to hand a secret to a service.
        forbidden = stat.S_IRWXO | (stat.S_IRWXG if found.st_uid == os.geteuid() else 0)
        if not found.st_mode & forbidden:
            return None
        sentence = f"others on this machine can read {path}: run `chmod 600 {path}`"
        if self._is_lenient(path):
            return sentence
        raise ValueError(sentence)

    def _is_lenient(self, path: Path) -> bool:
        folders = [*LENIENT_FOLDERS, self.environ.get("CREDENTIALS_DIRECTORY") or LENIENT_FOLDERS[0]]
        resolved = path.resolve()
        return (
            any(each.is_relative_to(folder) for each in (path, resolved) for folder in folders)
            or bool(os.statvfs(resolved).f_flag & os.ST_RDONLY)
            or self._file_system(resolved) in _MEMORY_FILE_SYSTEMS
        )

    def _file_system(self, path: Path) -> str | None:
        """The type of the file system that holds `path`: the longest mount point above it, the last one wins."""
        try:
            table = self.mounts.read_text("utf-8", "surrogateescape")
        except OSError:
            return None
        kind, longest = None, -1
        for line in table.splitlines():
            point, system = line.split(" ")[1:3]
            # The kernel writes blanks in mount points as octal escapes (proc(5)).
            point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point)
            if path.is_relative_to(point) and len(point) >= longest:
                kind, longest = system, len(point)
        return kind


def _member(source: SecretSource, pointer: object) -> SecretSource:
    """A text inside of what a reference leads to, which is JSON: a cloud's key file, say."""
    if not isinstance(pointer, str) or source.kind == "credential":
        raise ValueError("json takes a JSON pointer into what the reference leads to, such as /private_key")
    try:
        found = resolve(json.loads(source.value.reveal()), pointer)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, str) or not found:
        raise ValueError("json names no text there, or what the reference leads to is no JSON: correct json")
    return replace(source, value=Secret(found), member=pointer)


def _keyring(reference: str) -> SecretSource:
    """A password of the desktop's keyring, by service and user."""
    service, _slash, user = reference.rpartition("/")
    if not service or not user:
        raise ValueError("keyring takes SERVICE/USER, as `keyring set SERVICE USER` was given them")
    try:
        import keyring  # noqa: PLC0415  an extra, which few need
    except ImportError:
        raise ValueError("the keyring needs an extra: pip install 'bearer-proxy[keyring]'") from None
    answers: queue.SimpleQueue[str | Exception | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(keyring.get_password(service, user))
        except Exception as error:  # noqa: BLE001  every backend has failures of its own
            answers.put(error)

    # One that is locked may ask on a screen where nobody sits, and wait for ever (threat 135).
    threading.Thread(target=ask, daemon=True).start()
    try:
        text = answers.get(timeout=KEYRING_SECONDS)
    except queue.Empty:
        raise ValueError(f"the keyring did not answer within {KEYRING_SECONDS:g} seconds: unlock it") from None
    if isinstance(text, Exception):
        # Its own text is not ours to show.
        raise ValueError("the keyring cannot be opened: unlock it, or use another reference")  # noqa: TRY004  pydantic collects ValueError only
    if text is None:
        raise ValueError(f"the keyring has no password for {reference}: run `keyring set {service} {user}`")
    return SecretSource("keyring", reference, _proper(text, f"the keyring's entry {reference}"))


def _credential(reference: str) -> SecretSource:
    if not _NAME.fullmatch(reference):
        raise ValueError("credential takes the name of another credential")
    return SecretSource("credential", reference, Borrowed(reference))


def _text(raw: bytes, whence: str) -> str:
    """The text of a file or of an output, without the line end that editors and programs add."""
    if len(raw) > LONGEST:
        raise ValueError(f"{whence} gave more than 64 KiB: that is no secret")
    try:
        return raw.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"{whence} gave bytes that are not UTF-8 text") from None


def _proper(text: str, whence: str) -> Secret:
    if not text:
        raise ValueError(f"{whence} is empty: put the secret there")
    return Secret(text)
