"""The inputs that the fuzzers keep, without atheris: all hold, and one finds a mutant of each target."""

import re
import subprocess
import sys
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Final, NoReturn

import pytest

from tests.fuzz import __main__ as command
from tests.fuzz import engine
from tests.fuzz.targets import CORPUS, TARGETS, corpus

#: More would not be read by anybody.
MOST_FILES, LONGEST = 200, 2048


def run(name: str) -> None:
    """Every kept input of a target."""
    for file in corpus(name):
        TARGETS[name].check(file.read_bytes())


@pytest.mark.threat(1, 28, 31, 40, 47, 56, 76, 134)
@pytest.mark.unmeasured
@pytest.mark.parametrize("name", TARGETS)
def test_what_once_broke_something_does_not_any_more(name: str) -> None:
    """And what was kept because it goes another way through the code."""
    run(name)


def test_the_corpora_are_those_of_the_targets_and_small() -> None:
    """Each target has some."""
    assert {each.name for each in CORPUS.iterdir()} == set(TARGETS)
    files = [file for name in TARGETS for file in corpus(name)]
    assert len(files) <= MOST_FILES
    assert max(file.stat().st_size for file in files) <= LONGEST


def telling(text: str, _whence: str) -> NoReturn:
    """A sentence that quotes."""
    raise ValueError(f"{text} is no secret")


#: A defence of each target turned off: where, and what stands there instead.
MUTANTS: Final[dict[str, tuple[str, str, object]]] = {
    "paths": ("proxy.routes", "climbs", lambda _path: False),
    "paths, rules": ("proxy.routes", "readings", lambda path: {path.decode("latin-1")}),
    "paths, query": ("tests.fuzz.paths", "strip_query", lambda query, _names: query),
    "hosts": ("proxy.guard", "_HOST", re.compile(rb"(localhost|[^:]*)(?::.*)?")),
    "hosts, origin": ("proxy.guard", "Guard.allows_origin", lambda _self, _origin: True),
    "fields, alias": ("proxy.headers", "canonical", bytes.lower),
    "fields, key": ("proxy.clientkeys", "ClientKeys.stands_in", lambda _self, _value: False),
    "fields, echo": ("proxy.headers", "_holds", lambda _line, _echoes: False),
    "redaction": ("proxy.redact", "forms", lambda value: {value}),
    "redaction, base64": ("proxy.forms", "_base64_cores", lambda _raw: ()),
    "replies": ("proxy.grants.reply", "_PRINTABLE", re.compile(r".+", re.DOTALL)),
    "replies, lifetime": ("proxy.grants.expiry", "LONGEST_LIFETIME", 1e200),
    "replies, words": ("proxy.grants.oauth2", "_quoted", lambda _hidden: None),
    "replies, line ends": ("proxy.http1.section", "_check_text", lambda _value: None),
    "configs": ("proxy.config.secrets", "_proper", telling),
    "configs, defect": ("proxy.config.load", "_Parts.wanted", lambda self: dict(enumerate(self._data["routes"]))),
}


@pytest.mark.patches
@pytest.mark.unmeasured
@pytest.mark.parametrize("name", MUTANTS)
def test_a_defence_that_is_off_is_found_by_a_kept_input(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the properties would hold of anything."""
    module, path, instead = MUTANTS[name]
    *owner, attribute = path.split(".")
    monkeypatch.setattr(reduce(getattr, owner, import_module(module)), attribute, instead)
    with pytest.raises((AssertionError, TypeError)):
        run(name.partition(",")[0])


def test_a_find_can_be_tried_again_without_a_fuzzer() -> None:
    """As the fuzzer says that it can: in a process of its own, status 0 where all holds."""
    called = [sys.executable, "-m", "tests.fuzz", "hosts", "--on", *map(str, corpus("hosts"))]
    done = subprocess.run(called, cwd=command.ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_an_input_that_breaks_something_is_raised_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not hold is said by the exception."""
    (tmp_path / "find").write_bytes(b"localhost\r\nOrigin: http://evil.example")
    monkeypatch.setattr("proxy.guard.Guard.allows_origin", lambda _self, _origin: True)
    with pytest.raises(AssertionError, match="a foreign origin"):
        command.replay("hosts", [tmp_path / "find"])


@pytest.mark.parametrize(("ci", "status"), [("", 0), ("true", 1)])
def test_without_a_fuzzer_nothing_is_fuzzed_and_that_is_said(
    ci: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no person looks, that is a failure."""
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(sys, "argv", ["fuzz"])
    monkeypatch.setattr(command, "find_spec", lambda _name: None)
    assert command.main() == status
    assert "atheris is not installed" in capsys.readouterr().out


def test_the_dictionary_is_as_libfuzzer_reads_it() -> None:
    """Bytes by their numbers, since quotes and line ends are among them."""
    assert engine.written(b'a"\n') == "\\x61\\x22\\x0a"


def test_the_command_line_takes_targets_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    """And says which."""
    assert command.arguments([]).seconds == 10
    assert set(command.NAMES) == set(TARGETS)
    for wrong in (["nothing"], ["--on", "x"], ["hosts", "paths", "--on", "x"]):
        with pytest.raises(SystemExit):
            command.arguments(wrong)
    assert "hosts" in capsys.readouterr().err
