"""HTTP/1.1 on the wire (RFC 9112), both ways: field sections, start lines, bodies; no I/O."""
