"""What is said of a database that cannot be meant shows nothing of its password."""

from __future__ import annotations

import pytest

from outbox.errors import ConfigurationError
from outbox.stores.postgres import PostgresStore


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://shop:c4n/4ry@db/shop",
        "postgresql://shop:c4n/4ry@db:5432/shop",
        "postgresql://shop:c4n@4ry@db/shop",
        "postgresql://shop:c4n4ry@db/sh op=1",
        "host=db password=c4n4ry port",
        "host=db dbname='shop password=c4n4ry'",
        "host='db password=c4n4ry' dbname=shop",
    ],
)
def test_a_password_with_a_slash_is_shown_by_no_error(dsn: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        PostgresStore(dsn)

    assert not [part for part in ("c4n", "4ry") if part in str(refused.value)]
