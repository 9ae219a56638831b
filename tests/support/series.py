"""Reads an exposition of metrics as the library for Prometheus does."""

from prometheus_client.parser import text_string_to_metric_families

#: A sample by its name, without the beginning that all have, and its sorted labels.
Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def series(text: bytes) -> Series:
    """Every sample by its name and sorted labels."""
    return {
        (sample.name.removeprefix("bearer_proxy_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }
