"""What the sync and the async call share: where gRPC listens, how a conversation is asked for, what a fault means."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypedDict
from urllib.parse import urlsplit

from omni_client.connection import Connection
from omni_client.errors import APIConnectionError, APIError, MissingDependency
from omni_client.events import Modality
from omni_client.media import Audio
from omni_client.sound import MICROPHONE_SAMPLE_RATE, Paced

if TYPE_CHECKING:
    from omni_client.content import Conversation
    from omni_client.wire import Effort, ToolChoice

Source = Iterable[bytes] | AsyncIterable[bytes] | Audio
CALL_NOT_OPEN = "the conversation is not open; expected `with client.converse(...) as call:`"
MOST_MESSAGE_BYTES = 64 << 20  # pictures come whole
KEEPALIVE_MS = 30_000  # a server that is gone without a word is found out; servers refuse more than 3 a minute


class CallWishes(TypedDict, total=False):
    """What may be said when a conversation is opened. What is left out is left to the server.

    modalities: what answers are made of; words and voice by default.
    voice: who speaks; see `voices()`.
    system: what the model is told before the conversation. history: the turns before this call, as `generate` takes them.
    model: a model's name; the server's own by default.
    temperature, top_p, top_k, seed, presence_penalty, frequency_penalty, stop, max_tokens: as in `generate`.
    sample_rate: samples per second of what is sent, 8000 to 48000; that of the source, else 16000.
    output_sample_rate: the same of what comes back; the model's own by default.
    turns: who finds the end of the person's turn: `server`, by voice activity, or `client`, by `end_turn()` alone.
    threshold (above 0, below 1), prefix_padding_ms, silence_duration_ms: how the server finds it.
    interrupt_response: whether the person's voice stops the answer; true by default.
    captions: whether the person's words are written down too, which costs the model a second reading.
    tools, tool_choice: as in `generate`; what a tool answered goes back with `send_tool_result`, and the model goes on.
    reasoning_effort: as in `generate`.
    ratio, previews: how pictures are drawn: width to height such as `4:3`, and how many pictures on the way, 0 to 3.
    """

    modalities: Sequence[Modality]
    voice: str
    system: str
    history: Conversation
    model: str
    temperature: float
    top_p: float
    top_k: int
    seed: int
    presence_penalty: float
    frequency_penalty: float
    stop: str | Sequence[str]
    max_tokens: int
    sample_rate: int
    output_sample_rate: int
    turns: Literal["server", "client"]
    threshold: float
    prefix_padding_ms: int
    silence_duration_ms: int
    interrupt_response: bool
    captions: bool
    tools: Sequence[Mapping[str, Any]]
    tool_choice: ToolChoice
    reasoning_effort: Effort
    ratio: str
    previews: int


@dataclass(frozen=True, slots=True)
class CallSetup:
    """One conversation to be opened at `target`, a host and a port."""

    connection: Connection
    target: str
    request_id: str
    wishes: CallWishes
    model: str | None
    sample_rate: int

    @property
    def metadata(self) -> list[tuple[str, str]]:
        api_key = self.connection.api_key
        key = [("authorization", f"Bearer {api_key}")] if api_key is not None else []
        return [("x-request-id", self.request_id), *key]

    def first_request(self, wire: Any) -> Any:
        return wire.config_request({**self.wishes, "sample_rate": self.sample_rate}, self.model)

    def channel(self, grpc: Any) -> Any:
        """A channel of `grpc` or of `grpc.aio`."""
        options = [
            ("grpc.max_receive_message_length", MOST_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MOST_MESSAGE_BYTES),
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ]
        if self.connection.url.startswith("https:"):
            ca_file = self.connection.ca_file
            trusted = Path(ca_file).read_bytes() if ca_file is not None else None
            return grpc.secure_channel(self.target, grpc_module().ssl_channel_credentials(trusted), options=options)
        return grpc.insecure_channel(self.target, options=options)

    def stub(self, channel: Any) -> Any:
        from omni.v1.omni_service_pb2_grpc import OmniServiceStub

        return OmniServiceStub(channel)

    def error(self, fault: Any, *, begun: bool) -> APIError:
        """Of a grpc.RpcError. `begun` is whether the server had answered by then."""
        from omni_client.call_errors import call_error

        trailers = fault.trailing_metadata() or ()
        return call_error(fault.code().name, fault.details() or "", trailers, self.request_id, self.target, begun=begun)


def call_setup(
    connection: Connection, target: str | None, request_id: str, source: Source | None, wishes: CallWishes, model: str | None
) -> CallSetup:
    """TypeError for a wish that there is not."""
    unknown = sorted(set(wishes) - CallWishes.__optional_keys__)
    if unknown:
        known = ", ".join(f"`{name}`" for name in sorted(CallWishes.__optional_keys__))
        raise TypeError(f"`{unknown[0]}` is not known here; expected some of {known}")
    url = urlsplit(connection.url)
    # The server listens for gRPC one port above HTTP, unless it is told otherwise.
    target = target or f"{url.hostname}:{(url.port or (443 if url.scheme == 'https' else 80)) + 1}"
    sample_rate = wishes.get("sample_rate", getattr(source, "sample_rate", MICROPHONE_SAMPLE_RATE))
    return CallSetup(connection, target, request_id, wishes, wishes.get("model", model), sample_rate)


def paced(source: Source | None) -> Iterable[bytes] | AsyncIterable[bytes] | None:
    """A recording is sent as fast as it would be spoken; every other source as it comes."""
    return Paced(source) if isinstance(source, Audio) else source


def connect_error(setup: CallSetup) -> APIConnectionError:
    return APIConnectionError(f"no server answers at {setup.target}, where gRPC was expected", request_id=setup.request_id)


def grpc_module() -> ModuleType:
    try:
        import grpc
        import grpc.aio
    except ImportError as missing:
        raise MissingDependency(f"`converse` needs gRPC: `pip install 'omni-server[client]'` ({missing})") from missing
    return grpc


def wire_module() -> ModuleType:
    """The one module that knows protobuf."""
    try:
        from omni_client import speech
    except ImportError as missing:
        raise MissingDependency(f"`converse` needs gRPC: `pip install 'omni-server[client]'` ({missing})") from missing
    return speech
