"""Globs in which only `*` is special, as regular expressions that take linear time (threat 118)."""

import re


def glob_expression(pattern: str) -> str:
    """The expression that a whole text must match; `*` stands for any characters.

    The first place where a middle piece fits is as good as any later one, so nothing is tried twice: `*a*a*b` on
    a long run of `a` would else take cubic time.
    """
    first, *rest = map(re.escape, pattern.split("*"))
    if not rest:
        return first
    *middle, last = rest
    return first + "".join(f"(?>.*?{piece})" for piece in middle) + f".*{last}"
