"""The repository keeps its own rules: it speaks of itself alone, and modules and exceptions say why they exist."""

import ast
import io
import re
import shutil
import subprocess
import tokenize
from pathlib import Path
from typing import Final

import pytest

import proxy
from tests.support import skips

ROOT: Final = Path(__file__).parent.parent
PRODUCT: Final = sorted((ROOT / "proxy").rglob("*.py"))
PYTHON: Final = sorted([*PRODUCT, *(ROOT / "tests").rglob("*.py")])
#: A room that one can still take in at a glance.
LONGEST_MODULE: Final = 300
#: A table is as long as what it lists.
TABLES: Final = {"proxy/errors.py": 490}

#: Where packages and images come from is the affair of whoever installs; a person's folders are nobody's affair.
FOREIGN: Final = {
    "a registry host": re.compile(
        r"\b(?:pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|crates\.io|rubygems\.org|proxy\.golang\.org"
        r"|docker\.io|ghcr\.io|gcr\.io|quay\.io)\b"
    ),
    "a folder of somebody's machine": re.compile(rf"/(?:home|Users)/\w+|/root/\w+|{re.escape(str(ROOT))}/"),
}
SUPPRESSION: Final = re.compile(r"#\s*(?:noqa|type:\s*ignore|pragma:)")
EXPLAINED: Final = re.compile(
    r"# (?:noqa: [A-Z]+\d+(?:, [A-Z]+\d+)*  |type: ignore\[[a-z-]+(?:, ?[a-z-]+)*\]  # )\w.*"
)
UNFINISHED: Final = re.compile(r"\b(?:[T]ODO|[F]IXME|[X]XX|[H]ACK)\b")

DOCUMENTS: Final = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Dockerfile",
    "LICENSE",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "config.example.yaml",
    "docs/architecture.md",
    ".ci/run",
)


def relative(path: Path) -> str:
    """The id of a row of a table."""
    return str(path.relative_to(ROOT))


def tracked() -> list[Path]:
    """Every file that is, or is about to be, under version control."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine has no git, or these files are no checkout")
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]


def comments(text: str) -> list[str]:
    """Each comment of a Python module; what stands in strings does not count."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return [token.string for token in tokens if token.type == tokenize.COMMENT]


@pytest.mark.parametrize("what", FOREIGN)
def test_no_file_names_something_foreign(what: str) -> None:
    """Neither code nor documents point to a registry or to a folder of the machine they were written on."""
    found = [
        f"{relative(path)}:{number}: {match[0]}"
        for path in tracked()
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1)
        for match in FOREIGN[what].finditer(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("a registry host", "pip install --index-url https://" + "pypi" + ".org/simple"),
        ("a folder of somebody's machine", "see /home/" + "ann/notes"),
        ("a folder of somebody's machine", f"see {ROOT}/proxy"),
    ],
)
def test_something_foreign_would_be_noticed(what: str, line: str) -> None:
    """The patterns above match what they are for."""
    assert FOREIGN[what].search(line)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_people_look_for_first_is_there(name: str) -> None:
    """A repository without one of these sends its reader away."""
    assert (ROOT / name).stat().st_size > 0


def test_the_licence_is_the_one_that_the_package_names() -> None:
    """Apache-2.0, as pyproject.toml says."""
    assert "Apache License\n                           Version 2.0" in (ROOT / "LICENSE").read_text()
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text()


def test_the_changelog_has_this_version_and_room_for_the_next() -> None:
    """Keep a Changelog: one heading a version, the unreleased one first."""
    headings = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[:2] == ["Unreleased", proxy.__version__]


def test_every_module_says_what_it_is_for_and_is_one_room() -> None:
    """A docstring first, whose first line is a sentence; few enough lines to read at once."""
    texts = {relative(path): path.read_text() for path in PRODUCT}
    docstrings = {name: ast.get_docstring(ast.parse(text)) or "" for name, text in texts.items()}
    assert [name for name, found in docstrings.items() if len(found.partition("\n")[0].split()) < 2] == []
    long = [name for name, text in texts.items() if text.count("\n") > TABLES.get(name, LONGEST_MODULE)]
    assert long == []


def unexplained(text: str) -> list[str]:
    """Comments that silence a tool and do not give both a code and a reason."""
    if not SUPPRESSION.search(text):
        return []
    return [
        comment for comment in comments(text) if SUPPRESSION.match(comment) and not EXPLAINED.fullmatch(comment)
    ]


def test_every_silenced_warning_has_a_code_and_a_reason() -> None:
    """`# noqa: CODE  reason` and `# type: ignore[code]  # reason`, and nothing left for later."""
    texts = {relative(path): path.read_text() for path in PYTHON}
    # To find the comments of a module takes long: that is left for those where there can be one.
    assert {name: found for name, text in texts.items() if (found := unexplained(text))} == {}
    assert [
        name
        for name, text in texts.items()
        if UNFINISHED.search(text) and any(map(UNFINISHED.search, comments(text)))
    ] == []


@pytest.mark.parametrize(
    ("comment", "fine"),
    [
        ("# noqa: S311  the bytes need not be secret", True),
        ("# noqa: S311, S324  the same", True),
        ("# type: ignore[assignment]  # a hash would be a fingerprint", True),
        ("# noqa", False),
        ("# noqa: S311", False),
        ("# noqa: S311 the bytes need not be secret", False),
        ("# type: ignore", False),
        ("# type: ignore[assignment]", False),
        ("# pragma: no cover  # never", False),
    ],
)
def test_a_silenced_warning_without_code_or_reason_would_be_noticed(comment: str, fine: bool) -> None:  # noqa: FBT001  a column of the table
    """The patterns above match what they are for."""
    assert (unexplained(f"x = 1  {comment}\n") == []) is fine


REPORT: Final = """<testsuites><testsuite><testcase classname="tests.a" name="b"/>
<testcase classname="tests.a" name="c"><skipped message="{reason}"/></testcase></testsuite></testsuites>"""


@pytest.mark.parametrize(
    ("reason", "strict", "status"),
    [
        ("this machine runs the tests as root, who may do everything", True, 0),
        ("this machine has no IPv6 loopback", True, 0),
        ("this machine has nginx 1.26, and the list is of 1.22", True, 0),
        ("this machine lets nobody make network namespaces (ip netns add x: Operation not permitted)", True, 0),
        ("this machine has no node", True, 1),
        ("this machine has no ip (iproute2)", True, 1),
        ("this machine's redis-server speaks no TLS", True, 1),
        ("this machine cannot", True, 1),
        ("this machine has no IPv6 loopback, or something else", True, 1),
        ("this machine has no /proc/PID/limits", True, 1),
        ("this machine has no setpriv, ip (util-linux)", True, 1),
        ("this machine has no node", False, 0),
        ("too slow today", False, 0),
        ("too slow today", True, 1),
    ],
)
def test_a_skip_counts_as_failure_where_no_person_looks_unless_its_reason_is_listed(
    reason: str,
    strict: bool,  # noqa: FBT001  a column of the table
    status: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All are printed with their reasons either way, and the failures once more, at the end."""
    report = tmp_path / "tests.xml"
    report.write_text(REPORT.format(reason=reason))
    assert skips.main(report, strict=strict) == status
    said = capsys.readouterr().out
    assert f"skipped: tests.a::c: {reason}\n" in said
    assert said.count(f"skipped without need: tests.a::c: {reason}\n") == status


@pytest.mark.parametrize("reason", skips.EXCUSED)
def test_each_reason_that_is_excused_is_that_of_a_test(reason: str) -> None:
    """So that the list loses what no test says any more: its fixed beginning stands in a file of the tests."""
    begin = re.split(r" \(|\\|[(\[]", reason)[0].removesuffix(" ")
    places = [path for path in PYTHON if path.name not in {"skips.py", "test_repository.py"}]
    assert any(begin in path.read_text() for path in places), begin


#: What `.ci/run` starts or looks for, beside what the test lacks.
STARTED: Final = (
    *("make", "apt-get", "python3", "gcc", "curl", "wget", "node", "setpriv", "mount", "openssl", "git", "git-lfs"),
    *("wrk", "nginx", "haproxy", "redis-server", "ip", "systemd-analyze", "chromium"),
)


@pytest.mark.parametrize(("lacks", "package"), [("chromium", "chromium"), ("openssl", "openssl"), (None, None)])
def test_what_could_not_be_installed_fails_the_run_of_ci_once_the_rest_is_tested(
    lacks: str | None, package: str | None, tmp_path: Path
) -> None:
    """Its programs are doubles that do nothing, so apt-get brings nothing; make tells what it was asked."""
    script, programs = tmp_path / ".ci/run", tmp_path / "bin"
    script.parent.mkdir()
    # The folders that it adds to PATH would lead to the programs of this machine.
    script.write_text((ROOT / ".ci/run").read_text().replace(":/usr/sbin:/sbin", ""))
    programs.mkdir()
    for name in STARTED:
        if name != lacks:
            (programs / name).write_text('#!/bin/sh\n[ "${0##*/}" != make ] || echo "make $*"\n')
            (programs / name).chmod(0o755)
    for name in ("sh", "dirname", "id"):
        (programs / name).symlink_to(shutil.which(name) or name)
    done = subprocess.run(
        [str(programs / "sh"), str(script)],
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (0 if lacks is None else 1), done.stderr
    targets = [line.split()[1] for line in done.stdout.splitlines()]
    assert targets == ["test", "test-slow", "fuzz", "mutants", "bench", "bench"]
    last = done.stderr.splitlines()[-1:]
    assert last == ([] if lacks is None else [f"Not everything was tested. Missing here: {package}"])
