"""The clauses of the store's contract, a file for each of its parts; :class:`outbox.testing.StoreSuite` joins them."""
