"""The one place where boto3 is called, and where what it raises becomes what a store raises."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

try:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectTimeoutError,
        CredentialRetrievalError,
        EndpointConnectionError,
        MetadataRetrievalError,
        NoCredentialsError,
        ParamValidationError,
        PartialCredentialsError,
        ProfileNotFound,
        ProxyConnectionError,
        SSOError,
        TokenRetrievalError,
    )
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'SQSStore needs boto3: pip install "durable-outbox[sqs]"', name=error.name
    ) from error

from outbox.errors import AmbiguousPut, ConfigurationError, StoreUnavailable
from outbox.stores.forking import whole_after_fork
from outbox.values import printable

__all__ = ["Client", "Refused", "read"]

_CONNECT: Final = 10
_READ: Final = 40
"""Longer than the longest poll, 20 s, by what an answer may take."""
_NOT_SENT: Final = (
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    MetadataRetrievalError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    ProxyConnectionError,
    SSOError,
    TokenRetrievalError,
)
_SERVER: Final = 500
_WORDY: Final = frozenset(
    {
        "AuthorizationHeaderMalformed",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidSignature",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
    }
)
"""To these the service repeats what was signed, and with it the token of who asks."""
_PERMISSION: Final = "its credentials lack a permission: docs/sqs.md lists those that are needed"
_UNKNOWN: Final = "its credentials are not known there: look at the profile or the environment"
_NO_CREDENTIALS: Final = (
    "no credentials of AWS were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE or ?profile= for one "
    "of those in ~/.aws, or give the machine a role; `aws sts get-caller-identity` says what is found"
)
_EXPIRED: Final = "its credentials have expired: renew them"
_CLOCK: Final = "look at this machine's clock"
_SLOWER: Final = "it asks for fewer requests a second"
_KEY: Final = (
    "the key that encrypts the queue is denied, disabled or gone: docs/sqs.md lists what is needed of it"
)
_ADVICE: Final = {
    "AccessDenied": _PERMISSION,
    "AccessDeniedException": _PERMISSION,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "InvalidAccessKeyId": _UNKNOWN,
    "InvalidClientTokenId": _UNKNOWN,
    "NoSuchBucket": "content is set aside in a bucket that is not there: look at its name and its region",
    "OverLimit": "too many messages are in flight in this queue: see that those claimed are settled",
    "QueueDeletedRecently": "SQS makes a queue of that name again a minute after it was deleted",
    "RequestExpired": _CLOCK,
    "RequestThrottled": _SLOWER,
    "RequestTimeTooSkewed": _CLOCK,
    "SignatureDoesNotMatch": "its secret key is wrong, or this machine's clock is",
    "Throttling": _SLOWER,
    "ThrottlingException": _SLOWER,
    "UnrecognizedClientException": _UNKNOWN,
}


class Refused(StoreUnavailable):
    """The service answered, and did nothing; *code* says why."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


class Client:
    """A client of one service, which each process makes for itself.

    boto3's clients are safe from many threads, not across a fork.  Nothing is
    repeated unseen: what is sent twice is in a standard queue twice.

    Raises:
        ConfigurationError: it cannot be made of these settings.
    """

    def __init__(
        self, service: str, *, region: str | None, endpoint: str | None, profile: str | None, session: Any
    ) -> None:
        self._session = session
        self._make: Callable[[Any], Any] = lambda own: _made(service, region, endpoint, own)
        self._open: Callable[[], Any] = lambda: _opened(service, profile) if session is None else session
        self._lock = threading.Lock()
        whole_after_fork(self._lock)
        self._clients: dict[int, Any] = {}
        self.region: str | None = self._client().meta.region_name

    def call(self, verb: str, what: str, *, sending: bool = False, **asked: Any) -> dict[str, Any]:
        """The answer to *verb*.

        Args:
            what: What it is about, for the text of an error.
            sending: Whether a lost answer leaves open what was stored.

        Raises:
            Refused: the service says that it did nothing.
            StoreUnavailable: nothing was done, or it makes no difference.
            ConfigurationError: there are no credentials; nothing was done.
            AmbiguousPut: it was *sending*, and nobody can tell.
        """
        try:
            answer: dict[str, Any] = getattr(self._client(), verb)(**asked)
        except ClientError as error:
            # Without its cause: a traceback would say what is left out here.
            raise _answered(error, what, self._secrets(), sending=sending) from None
        except NoCredentialsError as error:
            # A client looks for them once: waiting brings none.
            raise ConfigurationError(f"{what}: {_NO_CREDENTIALS}") from error
        except BotoCoreError as error:
            raise _failed(error, what, sending=sending) from error
        return answer

    def close(self) -> None:
        """Close the connections of this process."""
        with self._lock:
            client = self._clients.pop(os.getpid(), None)
        if client is not None:
            client.close()

    def _client(self) -> Any:
        client = self._clients.get(os.getpid())
        if client is not None:
            return client
        with self._lock:
            client = self._clients.get(os.getpid())
            if client is None:
                self._session = self._open()
                client = self._clients[os.getpid()] = self._make(self._session)
            return client

    def _secrets(self) -> list[str]:
        """What is said nowhere, whatever the service repeats."""
        try:
            credentials = self._session.get_credentials()
            known = credentials and credentials.get_frozen_credentials()
        except BotoCoreError:
            return []
        return [each for each in (known.token, known.secret_key, known.access_key) if each] if known else []


def read(body: Any, what: str) -> bytes:
    """All of an object's content; raises StoreUnavailable."""
    try:
        with body:
            data: bytes = body.read()
    except (BotoCoreError, OSError) as error:
        raise StoreUnavailable(printable(f"{what}: {error}")) from error
    return data


def _opened(service: str, profile: str | None) -> Any:
    try:
        return boto3.Session(profile_name=profile)
    except (BotoCoreError, ValueError) as error:
        raise _unmade(service, error) from error


def _made(service: str, region: str | None, endpoint: str | None, session: Any) -> Any:
    settings = Config(
        connect_timeout=_CONNECT, read_timeout=_READ, retries={"total_max_attempts": 1, "mode": "standard"}
    )
    try:
        return session.client(service, region_name=region, endpoint_url=endpoint, config=settings)
    except (BotoCoreError, ValueError) as error:
        raise _unmade(service, error) from error


def _unmade(service: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"a client of {service} cannot be made: {printable(str(error))}: look at region, endpoint and profile"
    )


def _answered(
    error: ClientError, what: str, secrets: Sequence[str], *, sending: bool
) -> StoreUnavailable | AmbiguousPut:
    told = error.response.get("Error", {})
    full = str(told.get("Code", ""))
    code = full.rpartition(".")[2]
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    words = str(told.get("Message", ""))
    if code in _WORDY:
        words = words.partition("\n")[0].partition(". ")[0]
    for secret in secrets:
        words = words.replace(secret, "***")
    text = printable(f"{what}: {full}: {words}".rstrip(": "))
    if sending and status >= _SERVER:
        return AmbiguousPut(f"{text}: nobody can tell what was stored")
    advice = _KEY if full.upper().startswith("KMS") else _ADVICE.get(code)
    return Refused(f"{text}: {advice}" if advice else text, code)


def _failed(error: BotoCoreError, what: str, *, sending: bool) -> StoreUnavailable | AmbiguousPut:
    text = printable(f"{what}: {error}")
    if sending and not isinstance(error, _NOT_SENT):
        return AmbiguousPut(f"{text}: its answer was lost, and nobody can tell what was stored")
    return StoreUnavailable(text)
