"""Token requests and token replies, as data: what to send, and what an answer means. Pure."""
