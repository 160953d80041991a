"""The bus: ZeroMQ over ipc in the runtime directory; daemon/PROTOCOL.md is its specification."""

from daemon.bus.consumer import Arrival, FlowConsumer
from daemon.bus.endpoint import Wire
from daemon.bus.producer import FlowProducer
from daemon.bus.records import Asked, RecordsClient, RecordsServer
from daemon.bus.wake import LOOK_EVERY_S, WakeListener, WakePublisher

__all__ = [
    "LOOK_EVERY_S",
    "Arrival",
    "Asked",
    "FlowConsumer",
    "FlowProducer",
    "RecordsClient",
    "RecordsServer",
    "WakeListener",
    "WakePublisher",
    "Wire",
]
