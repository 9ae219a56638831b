"""Writes metrics in Prometheus's text format, version 0.0.4, which every version of Prometheus reads.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a family; `suffix` is what its name has beyond the family's."""

    value: float
    labels: Labels
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """All samples of one metric; without any it is still announced."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: Sequence[Sample] = ()


def histogram(labels: Labels, bounds: Sequence[float], counts: Sequence[float], total: float) -> Iterator[Sample]:
    """The samples of one histogram.

    `counts` says how many observations are in each bucket alone, those beyond the last of the `bounds` too; `total`
    is the sum of all observations.
    """
    so_far = 0.0
    for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
        so_far += count
        yield Sample(so_far, {**labels, "le": bound}, "_bucket")
    yield Sample(so_far, labels, "_count")
    yield Sample(total, labels, "_sum")


def exposition(families: Iterable[Family]) -> bytes:
    """The whole page."""
    return "".join(line for family in families for line in _lines(family)).encode()


def _lines(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.kind}\n"
    for sample in family.samples:
        labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in sorted(sample.labels.items()))
        yield f"{family.name}{sample.suffix}{f'{{{labels}}}' if labels else ''} {float(sample.value)!r}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
