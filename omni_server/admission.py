"""Who may come in now, and if not now, when: by what is scarce. Pure state; no task, no socket, the clock is handed in.

Whoever is refused is told when to come back, and a place in line is kept for the same wish until then; so what is told comes
true, and newcomers do not overtake. A kept place weighs as much as those who were refused have come back lately, so that
clients which never return cannot keep an idle server closed.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from omni_server.estimates import Drain, Line

EARLY = 0.1  # seconds before the time told at which somebody may come back
GRACE = 2.0  # seconds after it, and a tenth of what was told, for which the place is kept
LONGEST = 120.0  # seconds ahead for which places are kept; stock clients do not come back later
MOST_KEPT = 4096
SHORTEST = 0.1  # seconds that anybody is sent away for
CAUTION = 2.0  # average errors that are added to what a service is expected to take
# Who comes back should not meet the longest queue that is allowed, or chance decides whether they fit: half of it, and with a
# deadline none and half of the time to spare on top.
MARGIN = 0.5
KINDS = 64  # kinds of request of which the service is remembered
LEAST_SEEN = 8  # services before anything is called impossible


class Scarce(StrEnum):
    """What a reply needs of the server, and others then cannot have."""

    TOKENS = "tokens"  # of the engine's key-value cache
    REPLIES = "replies"  # that the engine writes at the same time
    VOICES = "voices"
    PICTURES = "pictures"


@dataclass(frozen=True, slots=True)
class Wish:
    """`kind`: requests of one kind take about as long. `who`: equal where the same request comes again. `within`: seconds until
    it must be done; `first_within`: until its first sound."""

    demand: Mapping[Scarce, float]
    kind: Hashable
    who: Callable[[], Hashable]
    within: float | None = None
    first_within: float | None = None


@dataclass(slots=True, eq=False)
class Place:
    """Somebody who is in; `started` is None while there is no room for it yet."""

    demand: dict[Scarce, float]
    kind: Hashable
    started: float | None = None
    passed: float = 0.0  # of `Admission._passed` when it started


@dataclass(frozen=True, slots=True)
class Later:
    """Not now, but in so many seconds; `reason` says what there is not enough of."""

    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Hopeless:
    """Not in the time that is given, however idle the server: it takes at least so many seconds."""

    seconds: float


@dataclass(slots=True)
class _Known:
    """Of one kind of request: seconds to the end and to the first sound, over company; the least of each; how many."""

    whole: Line = field(default_factory=Line)
    first: Line = field(default_factory=Line)
    least: float = 0.0
    least_first: float = 0.0
    count: int = 0
    written: float = 0.0  # tokens


@dataclass(frozen=True, slots=True)
class _Kept:
    demand: Mapping[Scarce, float]
    at: float
    until: float


class Admission:
    """`capacity`: how much there is of each scarce thing; what is not named is not counted. `most`: who may be in. `patience`:
    seconds that anybody who is in may be expected to wait for room."""

    def __init__(self, capacity: Mapping[Scarce, float], most: int, patience: float) -> None:
        self.capacity = dict(capacity)
        self._most, self._patience = most, patience
        self._running: set[Place] = set()
        self._waiting: OrderedDict[Place, None] = OrderedDict()
        self._held: Counter[Scarce] = Counter()  # by those who run
        self._wanted: Counter[Scarce] = Counter()  # by those who wait
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._promised: Counter[Scarce] = Counter()  # to those who were refused
        self._faith = 1.0  # share of those who come back
        self._lapses = float("inf")  # when the first kept place is given up
        self._drains = {thing: Drain(amount) for thing, amount in capacity.items()}
        self._known: OrderedDict[Hashable, _Known] = OrderedDict()
        self._now = 0.0
        self._passed = 0.0  # seconds times replies that ran in them

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def held(self, thing: Scarce) -> float:
        return self._held[thing]

    def written(self, kind: Hashable) -> float | None:
        """Tokens that replies of this kind have had lately."""
        known = self._known.get(kind)
        return known.written if known is not None else None

    def suits(self, wish: Wish) -> bool:
        """Whether `ask` would let it in as a newcomer."""
        known = self._known.get(wish.kind, _Known())
        return self._hopeless(wish, known) is None and self._too_long(wish, known, promised=False) is None

    def ask(self, wish: Wish, now: float) -> Place | Later | Hopeless:
        self._pass_time(now)
        known = self._known.get(wish.kind, _Known())
        if hopeless := self._hopeless(wish, known):
            return hopeless
        who = wish.who() if self._kept else None
        kept = self._kept.get(who)
        if kept is not None and now < kept.at - EARLY:
            return Later(kept.at - now, "kept")
        if kept is not None:
            self._forget(who, came_back=True)
        later = self._too_long(wish, known, promised=kept is not None)
        if later is None:
            return self._let_in(wish, now)
        self._keep(wish, later.seconds, now)
        return later

    def settle(self, place: Place, tokens: float) -> None:
        """What was guessed of its tokens is known better now."""
        counts = self._wanted if place in self._waiting else self._held if place in self._running else None
        if counts is not None and Scarce.TOKENS in place.demand:
            tokens = min(tokens, self.capacity[Scarce.TOKENS])
            counts[Scarce.TOKENS] += tokens - place.demand[Scarce.TOKENS]  # type: ignore[assignment]
            place.demand[Scarce.TOKENS] = tokens

    def leave(
        self, place: Place, now: float, written: int | None = None, first: float | None = None, broke: bool = False
    ) -> None:
        """It needs nothing any more. `written`: tokens of its reply, where it was done and not broken off; `first`: seconds
        from its start to its first sound. `broke`: by a fault, which says nothing of how fast things go."""
        self._pass_time(now)
        if place in self._waiting:
            del self._waiting[place]
            self._wanted.subtract(place.demand)
        elif place in self._running:
            self._running.remove(place)
            for thing, units in place.demand.items():
                if not broke:
                    self._drains[thing].free(units, self._held[thing])
            self._held.subtract(place.demand)
            if written is not None and place.started is not None:
                self._learn(place, now - place.started, written, first)
        self._start_waiting(now)

    def _learn(self, place: Place, seconds: float, written: int, first: float | None) -> None:
        known = self._known.pop(place.kind, None) or _Known(least=seconds, written=written)
        company = (self._passed - place.passed) / seconds if seconds > 0 else 1.0
        known.whole.feed(company, seconds)
        known.least = min(seconds, known.least + (seconds - known.least) / 64)
        known.written += (written - known.written) / 10
        if first is not None:
            known.least_first = min(first, known.least_first + (first - known.least_first) / 64) if known.first.known else first
            known.first.feed(company, first)
        known.count += 1
        self._known[place.kind] = known
        while len(self._known) > KINDS:
            self._known.popitem(last=False)

    def _hopeless(self, wish: Wish, known: _Known) -> Hopeless | None:
        for within, least in ((wish.within, known.least), (wish.first_within, known.least_first)):
            if within is not None and known.count >= LEAST_SEEN and within < least / 2:
                return Hopeless(least)
        return None

    def _too_long(self, wish: Wish, known: _Known, promised: bool) -> Later | None:
        """A newcomer stands behind those who were promised a place, but takes one that is free now; whoever was promised one
        gets it, unless their deadline would not be met."""
        wait, reason = self._wait(wish.demand, 0.0)
        if wait and not promised:
            wait, reason = self._wait(wish.demand, self._faith)
        allowed, early = self._patience, self._patience * MARGIN
        inside = len(self._running) + len(self._waiting)
        rate, bound = self._rate(), False
        company = min(inside + 1.0, self.capacity.get(Scarce.REPLIES, inside + 1.0))
        for limit, line in ((wish.within, known.whole), (wish.first_within, known.first)):
            if limit is None or not line.known or not inside:
                continue
            bound, within = True, limit - CAUTION * line.off
            left = within - line.at(company)
            if left < 0:  # it would be too slow in this company, even at once
                over = inside + 1 + self._promised[Scarce.REPLIES] * self._faith - max(0.0, line.reach(within))
                return Later(max(SHORTEST, over / rate), "deadline")
            if left < allowed:
                allowed, early, reason = left, -left * MARGIN, "deadline" if wait > left else reason
        if inside >= self._most:
            over = inside + 1 - self._most + self._promised[Scarce.REPLIES] * self._faith
            return Later(max(SHORTEST, over / rate, wait - early), "queue")
        if wait <= allowed or (promised and not bound):
            return None
        return Later(max(SHORTEST, wait - early), reason)

    def _rate(self) -> float:
        """Replies that are done in a second; one while nothing is known."""
        drain = self._drains.get(Scarce.REPLIES)
        return drain.rate or 1.0 if drain is not None else 1.0

    def _wait(self, demand: Mapping[Scarce, float], faith: float) -> tuple[float, str]:
        """Seconds until all that is wanted is free, and what comes free last."""
        longest, reason = 0.0, ""
        for thing, capacity in self.capacity.items():
            ahead = self._held[thing] + self._wanted[thing] + self._promised[thing] * faith
            units = min(demand.get(thing, 0.0), capacity)
            over, rate = ahead + units - capacity, self._drains[thing].rate
            if units and over > 0 and rate and over / rate > longest:
                longest, reason = over / rate, str(thing)
        return longest, reason

    def _let_in(self, wish: Wish, now: float) -> Place:
        demand = {
            thing: min(wish.demand[thing], capacity) for thing, capacity in self.capacity.items() if wish.demand.get(thing)
        }
        place = Place(demand, wish.kind)
        self._waiting[place] = None
        self._wanted.update(demand)  # type: ignore[arg-type]
        self._start_waiting(now)
        return place

    def _start_waiting(self, now: float) -> None:
        """In the order they came; what one lacks, those behind it cannot take, but the rest goes on."""
        lacking: set[Scarce] = set()
        for place in list(self._waiting):
            short = {thing for thing, units in place.demand.items() if self._held[thing] + units > self.capacity[thing]}
            if short or lacking & place.demand.keys():
                lacking |= short
                continue
            del self._waiting[place]
            self._running.add(place)
            place.started, place.passed = now, self._passed
            self._wanted.subtract(place.demand)
            self._held.update(place.demand)  # type: ignore[arg-type]

    def _keep(self, wish: Wish, seconds: float, now: float) -> None:
        who = wish.who()
        if seconds <= LONGEST and len(self._kept) < MOST_KEPT and who not in self._kept:
            until = now + seconds + GRACE + seconds / 10
            self._kept[who] = _Kept(wish.demand, now + seconds, until)
            self._promised.update(wish.demand)  # type: ignore[arg-type]
            self._lapses = min(self._lapses, until)

    def _forget(self, who: Hashable, came_back: bool) -> None:
        self._promised.subtract(self._kept.pop(who).demand)
        self._faith += (came_back - self._faith) / 16

    def _pass_time(self, now: float) -> None:
        seconds, self._now = max(0.0, now - self._now) if self._now else 0.0, now
        self._passed += seconds * len(self._running)
        for thing, drain in self._drains.items():
            drain.pass_time(seconds, self._held[thing])
        if self._lapses < now:
            for who in [who for who, kept in self._kept.items() if kept.until < now]:
                self._forget(who, came_back=False)
            self._lapses = min((kept.until for kept in self._kept.values()), default=float("inf"))
