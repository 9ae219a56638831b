"""The reference says what the program says."""

from tests.support.reference import PAGE, page


def test_the_reference_is_that_of_this_program() -> None:
    """Where it differs: `python -m tests.support.reference`."""
    assert PAGE.read_text("utf-8") == page()
