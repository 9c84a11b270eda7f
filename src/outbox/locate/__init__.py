"""From a URL, or a configuration file, to the store and the transport it names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from outbox.lazily import names_of

__all__ = [
    "KEYS",
    "BounceSettings",
    "Config",
    "Hiding",
    "Key",
    "Migration",
    "Origin",
    "Said",
    "Setting",
    "StoreFactory",
    "SuppressSettings",
    "TransportFactory",
    "Url",
    "did_you_mean",
    "entries",
    "holds_secret",
    "leaves",
    "loaded",
    "masked",
    "migration_from_url",
    "others_may_read",
    "parse_duration",
    "plain",
    "settings_of",
    "spell",
    "spelled",
    "store_from_url",
    "toml",
    "transport_from_url",
]

if TYPE_CHECKING:
    from . import entries
    from .conduct import BounceSettings, SuppressSettings
    from .config import Config, Said
    from .durations import parse_duration, spell
    from .grammar import Url
    from .hints import did_you_mean
    from .keys import KEYS, Key
    from .masking import Hiding, holds_secret, masked
    from .named import loaded
    from .plugins import StoreFactory, TransportFactory
    from .secret_files import others_may_read
    from .sources import Origin, Setting, settings_of
    from .spelling import leaves, plain, spelled, toml
    from .urls import Migration, migration_from_url, store_from_url, transport_from_url
else:
    # Hidden from type checkers, which would take it to mean that any name exists.

    _LAZY: Final = {
        "BounceSettings": ".conduct",
        "Config": ".config",
        "Hiding": ".masking",
        "KEYS": ".keys",
        "Key": ".keys",
        "Migration": ".urls",
        "Origin": ".sources",
        "Said": ".config",
        "Setting": ".sources",
        "StoreFactory": ".plugins",
        "SuppressSettings": ".conduct",
        "TransportFactory": ".plugins",
        "Url": ".grammar",
        "did_you_mean": ".hints",
        "entries": ".entries",
        "holds_secret": ".masking",
        "leaves": ".spelling",
        "loaded": ".named",
        "masked": ".masking",
        "migration_from_url": ".urls",
        "others_may_read": ".secret_files",
        "parse_duration": ".durations",
        "plain": ".spelling",
        "settings_of": ".sources",
        "spell": ".durations",
        "spelled": ".spelling",
        "store_from_url": ".urls",
        "toml": ".spelling",
        "transport_from_url": ".urls",
    }

    __getattr__ = names_of(__name__, _LAZY)

    def __dir__() -> list[str]:
        return sorted(__all__)
