"""What the doctor finds: one line each, for people and for programs."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "failure"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the diagnosis: what was tried, and what came of it, with the mend where there is one to tell."""

    status: Status
    what: str
    detail: str
