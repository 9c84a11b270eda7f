"""From a URL, or a configuration file, to the store and the transport it names."""

from . import entries
from .config import Config
from .durations import parse_duration, spell
from .grammar import Url
from .hints import did_you_mean
from .masking import holds_secret, masked, without
from .plugins import StoreFactory, TransportFactory
from .urls import store_from_url, transport_from_url

__all__ = [
    "Config",
    "StoreFactory",
    "TransportFactory",
    "Url",
    "did_you_mean",
    "entries",
    "holds_secret",
    "masked",
    "parse_duration",
    "spell",
    "store_from_url",
    "transport_from_url",
    "without",
]
