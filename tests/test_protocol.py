"""PROTOCOL.md says what the code does: every tag, every limit, every reason, and its example's bytes."""

import json
import re
import typing
from pathlib import Path

import msgpack
import msgspec
import pytest

import daemon
from daemon import codec, messages
from daemon.bus import consumer, endpoint, frames, outbox, producer, records, wake

TEXT = (Path(daemon.__file__).parent / "PROTOCOL.md").read_text()


def section(name):
    return re.search(rf"^##+ {re.escape(name)}$(.*?)(?=^##+ |\Z)", TEXT, re.MULTILINE | re.DOTALL)[1]


def tags_of(union):
    return {kind.__struct_config__.tag for kind in typing.get_args(union)}


HEADER_TAGS = tags_of(frames.Header)
MESSAGE_TAGS = (
    tags_of(messages.Observation)
    | tags_of(messages.Upward)
    | tags_of(messages.Record)
    | tags_of(messages.Reply)
    | {"wake", "incident"}
)


@pytest.mark.parametrize("tag", sorted(HEADER_TAGS | MESSAGE_TAGS))
def test_document_names_every_tag(tag):
    assert f"`{tag}`" in TEXT


def test_document_names_no_payload_tag_that_does_not_exist():
    assert (
        set(re.findall(r"`([a-z-]+)`", section("Payloads"))) - {"low", "middle", "batch", "type"}
        == MESSAGE_TAGS
    )


@pytest.mark.parametrize("kind", typing.get_args(frames.Header))
def test_document_names_every_header_field(kind):
    (row,) = re.findall(rf"^\| `{kind.__struct_config__.tag}` \|.*$", section("Frames"), re.MULTILINE)
    for name in kind.__struct_fields__:
        assert name in {"v", "edge"} or f"`{name}`" in row


LIMITS = {
    "Limits": [
        endpoint.MAX_SOCKET_PATH,
        frames.MAX_HEADER_BYTES,
        frames.MAX_SOURCES,
        frames.MAX_SOURCE_CHARACTERS,
        codec.MAX_BATCH_BYTES,
        codec.MAX_BATCH,
        producer.MAX_FRAME_MESSAGES,
        records.MAX_RECORD_BYTES,
        wake.MAX_WAKE_BYTES,
        endpoint.MAX_FRAME_BYTES,
        messages.MAX_TEXT,
        messages.MAX_NAME,
        messages.MAX_VALUES,
        messages.MAX_LIST,
        consumer.RECEIVE_AT_ONCE,
        records.RECEIVE_AT_ONCE,
        wake.RECEIVE_AT_ONCE,
        consumer.MAX_EPOCHS,
    ],
    "Frames": [frames.PROTOCOL_VERSION, frames.MAX_NUMBER],
    "Flow": [consumer.CREDIT, consumer.WINDOW, producer.HELLO_AFTER_S],
    "What is full": [
        outbox.MAX_SAMPLES,
        outbox.ROOM_LINES,
        outbox.ROOM_CHARACTERS,
        outbox.MAX_LINES,
        outbox.MAX_EVENTS,
        producer.HELD_BYTES,
        frames.MAX_SOURCES,
        frames.MAX_SOURCE_CHARACTERS,
    ],
    "Requests": [records.REMEMBERED],
    "Wake": [wake.LOOK_EVERY_S],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, found in LIMITS.items() for value in found]
)
def test_document_states_every_limits_value(name, value):
    assert re.search(rf"\b{value:g}\b" if isinstance(value, float) else rf"\b{value}\b", section(name))


@pytest.mark.parametrize("reason", [*frames.Drop, "unsent", "ledger"])
def test_document_names_every_reason_to_drop(reason):
    assert f"| `{reason}` |" in section("Drop rules")


def test_document_gives_no_other_reason_to_drop():
    named = re.findall(r"^\| `([a-z-]+)` \|", section("Drop rules"), re.MULTILINE)
    assert set(named) == {*frames.Drop, "unsent", "ledger"}


def test_documents_example_is_what_the_code_sends_and_reads():
    header, payload = (
        bytes.fromhex(block) for block in re.findall(r"```\n([0-9a-f \n]+)```", section("Example"))
    )
    line = messages.Line(messages.Stamp("0" * 32, 1.5, 1700000000.5), "kernel", "oom-kill", 4)
    assert header == frames.encode_header(frames.Batch(1, "low", 5, 1, {"kernel": (2, 1)}))
    assert frames.decode_header(header, "low") == frames.Batch(1, "low", 5, 1, {"kernel": (2, 1)})
    assert payload == codec.encode([line])
    assert codec.observation_decoder().decode(payload) == [line]
    assert f"Header ({len(header)} bytes)" in TEXT
    assert f"Payload ({len(payload)} bytes)" in TEXT
    as_json = re.search(r"```json\n(.*?)```", TEXT, re.DOTALL)[1]
    first, rest = as_json.split("\n", 1)
    assert json.loads(first) == msgpack.unpackb(header)
    assert json.loads(rest) == msgpack.unpackb(payload)


def test_unknown_further_fields_are_ignored():
    header = {"t": "hello", "v": 1, "edge": "low", "epoch": 1, "first": 1, "since-version-1.1": 7}
    assert frames.decode_header(msgpack.packb(header), "low") == frames.Hello(1, "low", 1, 1)


def test_longest_header_fits_its_limit():
    counts = {
        f"{n:03}" + "\U0001f600" * (frames.MAX_SOURCE_CHARACTERS - 3): (2**53 - 1, 2**53 - 1)
        for n in range(128)
    }
    header = frames.Batch(1, "low", 2**53 - 1, 2**53 - 1, counts | {"*": (2**53 - 1, 2**53 - 1)})
    data = frames.encode_header(header)
    assert len(data) <= frames.MAX_HEADER_BYTES
    assert frames.decode_header(data, "low") == header


def test_every_field_of_a_message_has_a_bound():
    """A text, list or map without a limit would let one message grow to the whole frame."""

    def unbounded(kind):
        for field in msgspec.inspect.type_info(kind).fields:
            found = field.type
            if isinstance(
                found, msgspec.inspect.StrType | msgspec.inspect.ListType | msgspec.inspect.DictType
            ):
                yield from [field.name] if found.max_length is None else []

    kinds = [
        *typing.get_args(messages.Observation),
        *typing.get_args(messages.Upward),
        *typing.get_args(messages.Record),
    ]
    assert {kind.__name__: list(unbounded(kind)) for kind in kinds if list(unbounded(kind))} == {}
