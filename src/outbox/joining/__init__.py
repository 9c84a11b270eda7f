"""Whose transaction it is: from what a program holds (a Session, Django's ``connection``) to the driver's own connection.

A store's ``within`` takes a connection of its database's driver.  Libraries
wrap it, and give another one for the next transaction; so it is looked for
anew at each put, in the file named after the library.
"""

from .joined import join

__all__ = ["join"]
