"""The joints: what each step may ask of the next. Protocols only; nothing here runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from omni_server.types import DecodeOptions, Modality, Prompt, Request, Sampling, TokenChunk

if TYPE_CHECKING:
    import PIL.Image
    import torch

    from omni_server.dialect import Dialect, Piece

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
Media = TypeVar("Media", contravariant=True)


class Incremental(Protocol[In, Out]):
    """Feed it pieces of any size; the outputs, joined, do not depend on where the cuts were. Sync, no I/O, no clock."""

    def feed(self, item: In) -> Sequence[Out]: ...
    def finish(self) -> Sequence[Out]: ...


@runtime_checkable
class Stepwise(Incremental[In, Out], Protocol[In, Out]):
    """An Incremental whose ending takes many steps, which it shares with others: `advance` in place of `finish`."""

    def advance(self) -> Sequence[Out] | None:
        """What is new after the next step of all; None when nothing more will come."""
        ...

    def close(self) -> None:
        """Nobody waits any more. Quick, and from any thread."""
        ...


@runtime_checkable
class PictureStep(Protocol):
    """What a Stepwise picture gives before the picture: `step` of `steps` is done, and perhaps a look at it."""

    @property
    def step(self) -> int: ...

    @property
    def steps(self) -> int: ...

    @property
    def preview(self) -> PIL.Image.Image | None: ...


class Encoder(Protocol[Media]):
    """Continuous: what the backbone sees and hears."""

    def encode(self, media: Media) -> torch.Tensor:
        """Embeddings [n, hidden] in float32."""
        ...


class Codebook(Protocol[Media]):
    """Discrete: what the backbone could also have said."""

    @property
    def size(self) -> int: ...

    def encode(self, media: Media) -> list[int]:
        """Codes, each in [0, size)."""
        ...


class Backbone(Protocol):
    """The language model. Closing the generator aborts the request in the engine; closing the backbone ends every open
    generator with `EngineUnavailable`."""

    def stream(
        self, request_id: str, prompt: Prompt, sampling: Sampling, modalities: frozenset[Modality]
    ) -> AsyncGenerator[TokenChunk, None]: ...

    @property
    def cache_tokens(self) -> int:
        """Of prompts and replies, as many as it holds at the same time."""
        ...

    async def check(self) -> None:
        """Raises `EngineUnavailable` where the engine cannot serve."""
        ...

    async def close(self) -> None: ...


class TextReader(Protocol):
    """Tells what a model writes around its answer from the answer, of one reply. `ids` are what the text is made of."""

    @property
    def in_thought(self) -> bool: ...

    def feed(self, item: str, ids: Sequence[int] = ()) -> list[Piece]: ...
    def finish(self) -> list[Piece]: ...


class TextParsers(Protocol):
    """Readers of a deployment's choice. `reads_calls`: whether they read calls of tools too."""

    @property
    def reads_calls(self) -> bool: ...

    def open(self, request: Request, prompt: Prompt, dialect: Dialect) -> TextReader: ...

    def grammar(self, request: Request) -> Mapping[str, Any] | None:
        """What a reply that must be a call is held to; None where it cannot be held."""
        ...


class Decoder(Protocol[Out]):
    """Codes to a medium: one per modality, shared by all requests; `open` once per span.

    One that gathers the work of several spans into one call of its network says by `spans_at_once` how many threads may be
    inside it; without it there is one.
    """

    def open(self, options: DecodeOptions) -> Incremental[Sequence[int], Out]: ...
