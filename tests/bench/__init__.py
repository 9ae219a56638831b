"""`make bench`: the cost of a request through this proxy, beside those of the proxies that people know."""
