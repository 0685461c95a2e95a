"""vllm_sampling.py alone, without an engine: noise by seed and place samples what it should, and a draft changes no token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from vllm.platforms import current_platform
from vllm.v1.sample.logits_processor import LogitsProcessors
from vllm.v1.sample.metadata import SamplingMetadata
from vllm.v1.spec_decode.metadata import SpecDecodeMetadata

from omni_server.vllm_sampling import chosen, chosen_anywhere, judged, place_noise, seeds_at
from tests.doubles_runner import Batch

current_platform.import_kernels()
WORDS = 12
MODEL = torch.randn(WORDS, WORDS, generator=torch.Generator().manual_seed(5)) * 1.5  # likelihoods after each word


def sampling(temperatures: Sequence[float], **more: Any) -> SamplingMetadata:
    count = len(temperatures)
    fields: dict[str, Any] = {
        "temperature": torch.tensor(temperatures),
        "all_greedy": not any(temperatures),
        "all_random": all(temperatures),
        "top_p": None,
        "top_k": None,
        "generators": {},
        "max_num_logprobs": None,
        "no_penalties": True,
        "prompt_token_ids": None,
        "frequency_penalties": torch.zeros(count),
        "presence_penalties": torch.zeros(count),
        "repetition_penalties": torch.ones(count),
        "output_token_ids": [],
        "allowed_token_ids_mask": None,
        "bad_words_token_ids": {},
        "logitsprocs": LogitsProcessors(),
    }
    return SamplingMetadata(**(fields | more))


def step(seeds: list[int], places: list[int], last: Tensor, drafts: list[list[int]], parameters: SamplingMetadata) -> Any:
    """One step of an engine whose model is the table above: what it says after each request's last word and its draft."""
    return step_and_runner(seeds, places, last, drafts, parameters)[0]


def step_and_runner(
    seeds: list[int], places: list[int], last: Tensor, drafts: list[list[int]], parameters: SamplingMetadata
) -> tuple[Any, Batch]:
    widths = torch.tensor([len(draft) + 1 for draft in drafts])
    starts = torch.cat([torch.zeros(1, dtype=torch.long), widths.cumsum(0)])
    positions = torch.cat([torch.arange(place, place + width) for place, width in zip(places, widths.tolist(), strict=True)])
    runner = Batch(seeds, starts, positions)
    place_noise(runner)
    words = torch.cat([torch.tensor([int(word), *draft]) for word, draft in zip(last, drafts, strict=True)])
    logits = MODEL[words].clone()
    if not any(drafts):
        return runner.sampler(logits=logits, sampling_metadata=parameters), runner
    metadata = SpecDecodeMetadata.make_dummy(drafts, torch.device("cpu"))
    drafted = torch.ones(len(words), dtype=torch.bool)
    drafted[starts[1:] - 1] = False
    rows = torch.arange(len(words), dtype=torch.int32)
    metadata.logits_indices, metadata.target_logits_indices = rows, rows[drafted]
    metadata.bonus_logits_indices = rows[~drafted]
    return runner.rejection_sampler(metadata, None, logits, parameters), runner


def likely(found: Tensor, wanted: Tensor) -> None:
    """Each count that is not too small within 4.5 standard deviations of what the probabilities say."""
    expected = wanted * found.sum()
    assert (expected > 20).sum() > 5
    apart = (found - expected).abs() / (expected * (1 - wanted)).sqrt()
    assert apart[expected > 20].max() < 4.5


@pytest.mark.parametrize("choose", [chosen, chosen_anywhere])
@pytest.mark.parametrize("along", ["places", "seeds"])
def test_a_sample_of_the_softmax(choose: Callable[[Tensor, Tensor], Tensor], along: str) -> None:
    """Would catch noise that prefers a token, that is alike at neighbouring places, or with neighbouring seeds."""
    count = 60_000
    numbers = torch.arange(count)
    seeds = seeds_at(torch.tensor(7), numbers) if along == "places" else seeds_at(numbers, torch.tensor(7))
    sampled = choose(MODEL[3].expand(count, -1).contiguous(), seeds)
    wanted = MODEL[3].softmax(dim=-1)
    likely(torch.bincount(sampled, minlength=WORDS), wanted)
    pairs = torch.bincount(sampled[:-1] * WORDS + sampled[1:], minlength=WORDS * WORDS)
    likely(pairs, torch.outer(wanted, wanted).flatten())


@pytest.mark.parametrize("choose", [chosen, chosen_anywhere])
def test_what_is_forbidden_is_not_said(choose: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Would catch noise that lifts a token over a mask, in a vocabulary as wide as a real one."""
    logits = torch.full((16, 100_000), -torch.inf)
    logits[:, [3, 70_000]] = 0.0
    sampled = choose(logits, seeds_at(torch.tensor(-5), torch.arange(16)))
    assert set(sampled.tolist()) == {3, 70_000}


def test_a_draft_leaves_the_distribution_alone() -> None:
    """Would catch a draft that makes its own words likelier or rarer: of the first token, and of the second after the first."""
    count = 10_000
    seeds = list(range(1000, 1000 + count))
    drafted = torch.randint(0, WORDS, (count,), generator=torch.Generator().manual_seed(1)).tolist()
    told = step(seeds, [9] * count, torch.full((count,), 3), [[word] for word in drafted], sampling([1.0] * count))
    first, second = told.sampled_token_ids.long().T
    likely(torch.bincount(first, minlength=WORDS), MODEL[3].softmax(dim=-1))
    assert ((second >= 0) == (first == torch.tensor(drafted))).all()
    best = int(MODEL[3].argmax())
    told = step(seeds, [9] * count, torch.full((count,), 3), [[best]] * count, sampling([1.0] * count))
    after = told.sampled_token_ids[told.sampled_token_ids[:, 0] == best, 1].long()
    likely(torch.bincount(after, minlength=WORDS), MODEL[best].softmax(dim=-1))


def test_a_draft_changes_no_token() -> None:
    """Would catch noise that depends on how far a draft reached, on the requests beside it, or on what it said: requests with
    temperatures, cuts and seeds of their own say the same word by word as with drafts that are right, wrong, or absent."""
    temperatures, seeds, words = [0.0, 1.3, 0.7, 1.0], [0, 11, 11, -4], 40
    top_p, top_k = torch.tensor([1.0, 0.8, 1.0, 1.0]), torch.tensor([WORDS, WORDS, 3, WORDS])
    parameters = sampling(temperatures, top_p=top_p, top_k=top_k)
    plain = torch.tensor([[3], [3], [3], [3]])
    for place in range(words):
        told = step(seeds, [place] * 4, plain[:, -1], [[]] * 4, parameters)
        plain = torch.cat([plain, told.sampled_token_ids], dim=1)
    assert len({tuple(row.tolist()) for row in plain}) == 4

    draw = torch.Generator().manual_seed(2)
    spoken: list[list[int]] = [[3] for _ in seeds]
    steps = 0
    while min(map(len, spoken)) <= words:
        drafts = []
        for row, said in zip(plain.tolist(), spoken, strict=True):
            width = int(torch.randint(0, 4, (), generator=draw))
            draft = [*row[len(said) : len(said) + width]]  # right, but for one word now and then
            if draft and torch.rand((), generator=draw) < 0.5:
                draft[-1] = (draft[-1] + 1) % WORDS
            drafts.append(draft)
        last = torch.tensor([said[-1] for said in spoken])
        told = step(seeds, [len(said) - 1 for said in spoken], last, drafts, parameters)
        for said, row in zip(spoken, told.sampled_token_ids.tolist(), strict=True):
            said += [word for word in row if word >= 0]
        steps += 1
    assert [said[: words + 1] for said in spoken] == plain.tolist()
    assert steps < words * 0.9


def test_a_draft_knows_the_noise_that_judges_it() -> None:
    """Would catch a draft with the noise of another place or request: one that knows the model is then wrong at a temperature.
    After drafts that were right, wrong and absent, each request's next three words are guessed, and all are what it says."""
    parameters = sampling([1.2, 1.0, 0.0, 0.9])
    seeds, last = [4, 5, 6, 7], torch.tensor([3, 3, 3, 3])
    wrong = int(MODEL[3].argmin())
    told, runner = step_and_runner(seeds, [8, 20, 31, 2], last, [[wrong, 1], [], [int(MODEL[3].argmax())], [wrong]], parameters)
    said = [[word for word in row if word >= 0] for row in told.sampled_token_ids.tolist()]
    assert [len(words) for words in said] == [1, 1, 2, 1]
    runner.drafter.model = SimpleNamespace(compute_logits=lambda words: MODEL[words])
    words = torch.tensor([row[-1] for row in said])
    guessed = []
    for _ in range(3):
        words, likely = runner.drafter._sample_draft_tokens(words, parameters)
        assert likely is None
        guessed.append(words)
    places = [place + len(row) for place, row in zip([8, 20, 31, 2], said, strict=True)]
    drafts = torch.stack(guessed, dim=1).tolist()
    told = step(seeds, places, torch.tensor([row[-1] for row in said]), drafts, parameters)
    assert told.sampled_token_ids[:, :3].tolist() == drafts
    assert (told.sampled_token_ids[:, 3] >= 0).all()


def test_likelihoods_are_of_what_is_said() -> None:
    """Would catch likelihoods of the drafted word in place of the sampled one, or of the row beside it."""
    seeds, last = [5, 6], torch.tensor([3, 4])
    parameters = sampling([1.0, 0.0], max_num_logprobs=1)
    told = step(seeds, [0, 0], last, [[1, 2], [int(MODEL[4].argmax()), 0]], parameters)
    words = told.sampled_token_ids.tolist()
    scores = told.logprobs_tensors.logprobs.view(2, 3, -1)
    for request, start in enumerate(last.tolist()):
        before = start
        for place, word in enumerate(word for word in words[request] if word >= 0):
            assert scores[request, place, 0] == pytest.approx(float(MODEL[before].log_softmax(-1)[word]), abs=1e-5)
            before = word


def test_penalties_reach_the_words_of_a_draft() -> None:
    """Would catch a penalty that forgets what the draft before it has said, or that is laid on another request's row."""
    best = int(MODEL[3].argmax())
    following = int(MODEL[best].argmax())
    parameters = sampling(
        [0.0, 0.0],
        no_penalties=False,
        prompt_token_ids=torch.full((2, 1), WORDS),
        presence_penalties=torch.tensor([0.0, 100.0]),
        output_token_ids=[[following], [following]],
        spec_token_ids=[[best], [best]],
    )
    told = step([1, 2], [0, 0], torch.tensor([3, 3]), [[best], [best]], parameters).sampled_token_ids.tolist()
    assert told[0] == [best, following]
    allowed = MODEL[best].clone()
    allowed[[best, following]] = -torch.inf
    assert told[1] == [best, int(allowed.argmax())]


def test_the_end_of_a_wrong_draft() -> None:
    """Would catch a token after the first wrong one, a lost correction, and a request that drafted nothing."""
    told = judged(torch.tensor([1, 2, 3, 4, 5]), torch.tensor([1, 9, 3, 4, 5]), torch.tensor([6, 7, 8]), [3, 0, 2], 3)
    assert told.tolist() == [[1, 9, -1, -1], [7, -1, -1, -1], [4, 5, 8, -1]]
