"""Thin adapters to other libraries, each an extra, built on the public names only."""
