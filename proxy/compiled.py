"""Which build this is: the data path as Python source, or compiled (docs/adr/0007-compiled.md)."""

from importlib.machinery import ExtensionFileLoader
from importlib.util import find_spec


def is_compiled() -> bool:
    """Is the data path native code?"""
    spec = find_spec("proxy.relay")
    return spec is not None and isinstance(spec.loader, ExtensionFileLoader)
