"""The facade: what a program that embeds outbox sees."""

import datetime as dt
import threading
from email.message import EmailMessage

import attrs
import pytest

from outbox.errors import ConfigurationError, ConflictError, InvalidMessage
from outbox.lifecycle import State
from outbox.message import Message
from outbox.outbox import Outbox
from outbox.stores.memory import MemoryStore
from outbox.testing.clock import ManualClock
from outbox.testing.recording import RecordingTransport

HOUR = dt.timedelta(hours=1)


def an_email() -> EmailMessage:
    email = EmailMessage()
    email["From"], email["To"], email["Subject"] = "shop@example.org", "ann@example.com", "Your order"
    email.set_content("It is on its way.\n")
    return email


@pytest.fixture
def outbox() -> Outbox:
    return Outbox(MemoryStore(), RecordingTransport())


def recorded(outbox: Outbox) -> list[Message]:
    assert isinstance(outbox.transport, RecordingTransport)
    return outbox.transport.messages


def test_an_email_s_envelope_comes_from_its_headers(outbox: Outbox) -> None:
    id = outbox.submit(an_email())
    assert outbox.drain().delivered == 1
    (message,) = recorded(outbox)
    assert (message.id, message.sender, message.recipients) == (id, "shop@example.org", ("ann@example.com",))


def test_a_given_envelope_replaces_that_of_the_headers(outbox: Outbox) -> None:
    outbox.submit(an_email(), sender="bounces@example.org", recipients=["eve@example.net"])
    outbox.drain()
    (message,) = recorded(outbox)
    assert (message.sender, message.recipients) == ("bounces@example.org", ("eve@example.net",))


def test_bytes_are_a_mail_too(outbox: Outbox) -> None:
    outbox.submit(b"From: a@example.org\r\nTo: b@example.org\r\n\r\nhello\r\n")
    outbox.drain()
    assert recorded(outbox)[0].content.endswith(b"\r\n\r\nhello\r\n")


def test_a_message_goes_as_it_is(outbox: Outbox) -> None:
    message = Message(recipients=["b@example.org"], content=b"x", queue="mail")
    assert outbox.submit(message) == message.id
    outbox.drain()
    assert recorded(outbox) == [message]


def test_a_message_s_envelope_is_not_overridden_by_accident(outbox: Outbox) -> None:
    message = Message(recipients=["b@example.org"], content=b"x")
    with pytest.raises(InvalidMessage, match="carries its own envelope"):
        outbox.submit(message, sender="other@example.org")


def test_submitting_the_same_id_again_stores_nothing_new_also_after_delivery(outbox: Outbox) -> None:
    assert outbox.submit(an_email(), id="order-4711") == "order-4711"
    assert outbox.submit(an_email(), id="order-4711") == "order-4711"
    assert outbox.drain().delivered == 1
    assert outbox.submit(an_email(), id="order-4711") == "order-4711"
    assert outbox.drain().delivered == 0


def test_the_same_id_with_another_envelope_is_a_conflict(outbox: Outbox) -> None:
    outbox.submit(an_email(), id="order-4711")
    with pytest.raises(ConflictError, match="order-4711"):
        outbox.submit(an_email(), id="order-4711", recipients=["eve@example.net"])


def test_many_are_stored_all_or_none(outbox: Outbox) -> None:
    bad = an_email()
    del bad["To"]
    with pytest.raises(InvalidMessage):
        outbox.submit_many([an_email(), bad])
    assert outbox.drain().delivered == 0
    ids = outbox.submit_many([an_email(), an_email()])
    assert len(set(ids)) == 2
    assert outbox.drain().delivered == 2


def test_many_of_none_is_nothing(outbox: Outbox) -> None:
    assert outbox.submit_many([]) == []


def test_a_delay_is_from_now() -> None:
    clock = ManualClock()
    outbox = Outbox(MemoryStore(clock=clock), RecordingTransport(), clock=clock)
    outbox.submit(an_email(), delay=HOUR)
    assert outbox.drain().delivered == 0
    clock.advance(HOUR)
    assert outbox.drain().delivered == 1


def test_a_delay_and_an_instant_together_are_refused(outbox: Outbox) -> None:
    now = dt.datetime.now(dt.UTC)
    with pytest.raises(InvalidMessage, match="one of them"):
        outbox.submit(an_email(), delay=HOUR, not_before=now)


def test_a_delay_beyond_every_date_is_refused(outbox: Outbox) -> None:
    with pytest.raises(InvalidMessage, match="later than a date can say"):
        outbox.submit(an_email(), delay=dt.timedelta.max)


def test_mail_goes_to_the_first_queue_that_is_served_here() -> None:
    outbox = Outbox(MemoryStore(), RecordingTransport(), queues=["mail.bulk", "mail"])
    outbox.submit(an_email())
    assert outbox.drain().delivered == 1
    assert recorded(outbox)[0].queue == "mail.bulk"


def test_without_a_transport_it_only_submits() -> None:
    store = MemoryStore()
    outbox = Outbox(store)
    id = outbox.submit(an_email())
    record = store.get(id)
    assert record is not None
    assert record.summary.state is State.QUEUED
    with pytest.raises(ConfigurationError, match="only submits"):
        outbox.drain()


def test_a_wrong_setting_fails_where_it_is_said() -> None:
    with pytest.raises(ConfigurationError, match="workers"):
        Outbox(MemoryStore(), RecordingTransport(), workers=0)


def test_running_delivers_in_the_background_for_as_long_as_the_block_lasts() -> None:
    delivered, others = threading.Event(), set(threading.enumerate())
    outbox = Outbox(MemoryStore(), RecordingTransport(), listeners=[lambda _: delivered.set()])
    with outbox.running():
        outbox.submit(an_email())
        assert delivered.wait(60)
    assert not [t for t in set(threading.enumerate()) - others if t.name.startswith("outbox-")]


def test_leaving_the_with_block_closes_store_and_transport() -> None:
    transport = RecordingTransport()
    with Outbox(MemoryStore(), transport):
        pass
    assert transport.closed


def test_evolving_a_message_keeps_its_id() -> None:
    message = Message(recipients=["b@example.org"], content=b"x")
    assert attrs.evolve(message, priority=5).id == message.id
