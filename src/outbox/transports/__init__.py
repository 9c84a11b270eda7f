"""The transports: each hands messages to one kind of relay.  Import the one you use from its own module."""
