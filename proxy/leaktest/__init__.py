"""Sends canaries through every log, error, metric and export path of a running copy, and looks for them.

Law: the copy has the user's configuration and none of its secrets; whatever it reaches is ours, on loopback. What
searches (`leaks`, `decodings`) shares no code with what masks (`proxy/redact.py`).
"""
