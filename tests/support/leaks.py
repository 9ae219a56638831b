"""The searcher that `bearer-proxy leaktest` uses, under the name by which the tests know it."""

from proxy.leaktest.leaks import FRAGMENT, SHAPES, Artefact, Artefacts, Canaries, Hit, search

__all__ = ["FRAGMENT", "SHAPES", "Artefact", "Artefacts", "Canaries", "Hit", "search"]
