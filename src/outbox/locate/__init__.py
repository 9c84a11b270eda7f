"""From a URL, or a configuration file, to the store and the transport it names."""

from .config import Config
from .durations import parse_duration, spell
from .urls import masked, store_from_url, transport_from_url

__all__ = ["Config", "masked", "parse_duration", "spell", "store_from_url", "transport_from_url"]
