"""The clauses of a transport's contract; :class:`outbox.testing.TransportSuite` joins them."""
