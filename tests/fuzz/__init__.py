"""Fuzzers: what may come from outside, as any bytes, and what has to hold of it (`make fuzz`)."""
