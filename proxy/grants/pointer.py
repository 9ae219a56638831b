"""Finds a value in a parsed JSON document by its JSON pointer (RFC 6901)."""

import re
from typing import Any, Final

#: Section 4: no leading zeros. Bounded, because Python refuses to read numbers of thousands of digits.
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")


def unescaped(part: str) -> str:
    """The name that a part of a pointer stands for."""
    return part.replace("~1", "/").replace("~0", "~")  # in this order: section 4


def resolve(document: object, pointer: str, *, missing: object = None) -> Any:  # noqa: ANN401  JSON is of any type
    """The value that `pointer` names in `document`, or `missing`. The empty pointer names the whole document."""
    found = document
    for part in pointer.split("/")[1:]:
        name = unescaped(part)
        if isinstance(found, dict) and name in found:
            found = found[name]
        elif isinstance(found, list) and _INDEX.fullmatch(name) and int(name) < len(found):
            found = found[int(name)]
        else:
            return missing
    return found
