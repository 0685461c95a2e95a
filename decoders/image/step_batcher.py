"""Step 7, continuous batching of pictures: those that are being drawn advance together, one step at a time.

Each picture has its own size, noise, schedule, step and guidance. A newcomer joins at the next step; one that leaves is gone
at the next step. Synchronous, with no socket and no clock; knows nothing of where codes come from, files or requests.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor
from torch.nn import functional

from decoders.image.step_network import Steering, StepNetwork, rotation
from decoders.image.token_diffusion import TokenDiffusionPipeline, grid_positions

PREVIEW_SIDE = 32  # latents on a preview's longer side, at most: what pixels cost goes with the area
SIZES_KEPT = 64  # of pictures, whose tables stay in memory
TILE_ROWS = 256  # rows of one product; with as many, weights are read often enough, and more make no picture faster

Size = tuple[int, int]  # rows and columns of latents


@dataclass(frozen=True, slots=True)
class Drawing:
    """One picture to be: `codes` [1, codes], `noise` [positions, channels]; `previews` are steps, counted from 1."""

    codes: Tensor
    size: Size
    noise: Tensor
    steps: int
    guidance: float = 0.0
    previews: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Advanced:
    """One picture after `step` of its `steps`; `preview` is small, `pixels` are the end, both [3, height, width] in -1..1."""

    step: int
    steps: int
    preview: Tensor | None = None
    pixels: Tensor | None = None


@dataclass(slots=True, eq=False)
class Place:
    """One picture's place among the others. `news` waits to be taken; `over` once drawn, failed or `left`."""

    drawing: Drawing
    news: deque[Advanced] = field(default_factory=deque)
    fault: Exception | None = None
    drawn: bool = False
    left: bool = False

    @property
    def over(self) -> bool:
        return self.drawn or self.left or self.fault is not None


@dataclass(slots=True, eq=False)
class Running:
    """A picture between its first step and its last. `steerings`: of the network, then of the weak one where it is guided."""

    place: Place
    scheduler: FlowMatchEulerDiscreteScheduler
    steerings: list[Steering]
    flow: Tensor  # [positions, channels]
    step: int = 0  # steps done
    pulls: list[Tensor] = field(default_factory=list)  # each network's velocity in the step being taken


@contextmanager
def _faults_of(*places: Place) -> Iterator[None]:
    """Whatever a model raises here ends these pictures and no other."""
    try:
        yield
    except Exception as fault:  # noqa: BLE001 - told by `Place.fault` to whoever asked for the picture
        for place in places:
            place.fault = fault


class StepBatcher:
    """Advances up to `slots` pictures together; the others wait in the order they came."""

    def __init__(self, pipeline: TokenDiffusionPipeline, slots: int = 8) -> None:
        self._pipeline, self._slots = pipeline, slots
        transformers = [pipeline.transformer] + ([] if pipeline.transformer2 is None else [pipeline.transformer2])
        self._networks = [StepNetwork(transformer) for transformer in transformers]
        self._waiting: deque[Place] = deque()
        self._running: list[Running] = []
        self._stepping = threading.Lock()
        self._turns_of = lru_cache(SIZES_KEPT)(self._new_turns)
        self._tiles_of = lru_cache(SIZES_KEPT)(self._new_tiles)

    def join(self, drawing: Drawing) -> Place:
        """A place in the queue; its first step is taken together with the others' next one."""
        place = Place(drawing)
        self._waiting.append(place)
        return place

    @property
    def running(self) -> int:
        """Pictures that hold a slot."""
        return len(self._running)

    @torch.inference_mode()
    def advance(self, place: Place | None = None) -> None:
        """One step for every running picture; none where `place` has news already, because another's call brought it."""
        with self._stepping:
            if place is not None and (place.news or place.over):
                return
            self._running = [running for running in self._running if not running.place.over]
            while self._waiting and len(self._running) < self._slots:
                with _faults_of(self._waiting[0]):
                    self._running += self._start(self._waiting.popleft())
            for network in range(len(self._networks)):
                self._pull(network)
            for running in self._running:
                with _faults_of(running.place):
                    self._take_step(running)
            self._running = [running for running in self._running if not running.place.over]

    def _start(self, place: Place) -> list[Running]:
        """Computes once all that the picture's steps share; none where it has left already."""
        if place.over:
            return []
        drawing, pipeline = place.drawing, self._pipeline
        scheduler = pipeline.new_scheduler(drawing.steps)
        condition, pooled = pipeline.steer_by(drawing.codes.to(pipeline.weights.device), drawing.size)
        times = pipeline.network_times(scheduler.timesteps)
        networks = self._networks if drawing.guidance else self._networks[:1]
        steerings = [network.steer(condition[0], pooled, times) for network in networks]
        return [Running(place, scheduler, steerings, drawing.noise.to(condition))]

    def _pull(self, network: int) -> None:
        """Evaluates one network for every picture that it steers, as many of a size at once as `_tiles_of` allows."""
        by_size: dict[Size, list[Running]] = {}
        for running in self._running:
            if network < len(running.steerings) and not running.place.over:
                by_size.setdefault(running.place.drawing.size, []).append(running)
        for size, pictures in by_size.items():
            while pictures:
                count = next(tile for tile in self._tiles_of(network, size) if tile <= len(pictures))
                tile, pictures = pictures[:count], pictures[count:]
                with _faults_of(*(running.place for running in tile)):
                    flow = torch.stack([running.flow for running in tile])
                    steerings = [running.steerings[network] for running in tile]
                    steps = [running.step for running in tile]
                    velocity = self._networks[network].velocity(flow, steerings, steps, self._turns_of(network, size))
                    for running, pull in zip(tile, velocity, strict=True):
                        running.pulls.append(pull)

    def _take_step(self, running: Running) -> None:
        place, drawing, scheduler = running.place, running.place.drawing, running.scheduler
        if place.over:
            return
        velocity = running.pulls[0]
        for weak in running.pulls[1:]:
            velocity = velocity + drawing.guidance * (velocity - weak)
        running.pulls.clear()
        before, noise_share = running.flow, scheduler.sigmas[running.step]
        running.flow = scheduler.step(velocity, scheduler.timesteps[running.step], before, return_dict=False)[0]
        running.step += 1
        preview = pixels = None
        if running.step == drawing.steps:
            pixels = self._pixels(running.flow, drawing.size)
        elif running.step in drawing.previews:
            # Where the flow would end if it went straight on from here.
            preview = self._preview(before - noise_share * velocity, drawing.size)
        place.news.append(Advanced(running.step, drawing.steps, preview, pixels))
        place.drawn = pixels is not None

    def _preview(self, flow: Tensor, size: Size) -> Tensor:
        latents = flow.t().unflatten(-1, size)[None]
        shrink = PREVIEW_SIDE / max(size)
        if shrink < 1:
            smaller = [max(1, round(side * shrink)) for side in size]
            latents = functional.interpolate(latents, smaller, mode="area")
        return self._pipeline.decode(latents)[0]

    def _pixels(self, flow: Tensor, size: Size) -> Tensor:
        return self._pipeline.decode(flow.t().unflatten(-1, size)[None])[0]

    def _new_turns(self, network: int, size: Size) -> Tensor:
        return rotation(grid_positions(size, self._pipeline.weights.device), self._networks[network].axes)

    def _new_tiles(self, network: int, size: Size) -> list[int]:
        """How many pictures of a size one product may hold, most first. Products of other heights may add in another order;
        only those are allowed that on this machine give each picture, bit for bit, what it gets alone."""
        tiles = [tile for tile in (8, 4, 2) if tile * size[0] * size[1] <= TILE_ROWS]
        return [tile for tile in tiles if self._same_in_company(network, size, tile)] + [1]

    def _same_in_company(self, network: int, size: Size, tile: int) -> bool:
        one, turns = self._networks[network], self._turns_of(network, size)
        config, weights, positions = one.transformer.config, self._pipeline.weights, size[0] * size[1]
        random = torch.Generator().manual_seed(0)

        def noise(*shape: int) -> Tensor:
            return torch.randn(shape, generator=random).to(weights)

        flow, times = noise(tile, positions, config.in_channels), noise(tile).sigmoid()
        steerings = [one.steer(noise(positions, config.context_in_dim), noise(1, config.vec_in_dim), times) for _ in times]
        together = one.velocity(flow, steerings, range(tile), turns)
        return all(
            torch.equal(together[place], one.velocity(flow[place : place + 1], [steerings[place]], [place], turns)[0])
            for place in range(tile)
        )
