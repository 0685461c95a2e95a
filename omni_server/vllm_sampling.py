"""Step 5. Sampling inside vLLM: the noise of a token comes of its request's seed and of its place, and of nothing else.

So a draft changes no token, sampled or greedy. Every drafted place is sampled as it would be without a draft, and a draft is
right where it says the token that was sampled there anyway. The draft is told the noise of that place, so that it guesses what
will be sampled, and not what is likeliest. vLLM 0.32 draws from one running generator a request instead, as often as there are
drafts, and takes what a draft offers; on a CPU it reads the temperatures of drafted places from memory that nobody has written,
and fails where the prompt of a seeded request is read in pieces.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from vllm.v1.outputs import SamplerOutput
from vllm.v1.sample.logits_processor import LogitsProcessors
from vllm.v1.sample.metadata import SamplingMetadata
from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p
from vllm.v1.sample.rejection_sampler import PLACEHOLDER_TOKEN_ID, RejectionSampler
from vllm.v1.sample.sampler import _SAMPLING_EPS, Sampler
from vllm.v1.spec_decode.metadata import SpecDecodeMetadata

from omni_server.vllm_plugin import SEED

# Numbers of SplitMix64, as signed ones.
STEP, FIRST, SECOND = -7046029254386353131, -4658895280553007687, -7723592293110705685


def mixed(number: Tensor) -> Tensor:
    """Each int64 for another one that shows nothing of it: the end of SplitMix64."""
    number = (number ^ _shifted(number, 30)) * FIRST
    number = (number ^ _shifted(number, 27)) * SECOND
    return number ^ _shifted(number, 31)


def _shifted(number: Tensor, bits: int) -> Tensor:
    """To the right, with zeros from the left."""
    return (number >> bits) & ((1 << 64 - bits) - 1)


def seeds_at(seeds: Tensor, places: Tensor) -> Tensor:
    """One seed for the noise of each row, from its request's seed and its place in the sequence; all [rows]."""
    return mixed(seeds + (places + 1) * STEP)


def chosen(logits: Tensor, seeds: Tensor) -> Tensor:
    """The likeliest token of each row [rows, vocabulary] after Gumbel noise from its seed: a sample of its softmax."""
    if logits.device.type == "cpu":
        return torch.ops._C.fused_gumbel_argmax(logits, seeds)
    return chosen_anywhere(logits, seeds)


def chosen_anywhere(logits: Tensor, seeds: Tensor) -> Tensor:
    """The same, with other noise, by operations that every device has."""
    tokens = torch.arange(logits.shape[-1], device=logits.device)
    noise = mixed(seeds[:, None] + (tokens + 1) * STEP)
    # 32 random bits, so small that none of the lower ones is lost near 0, where the winners are.
    uniform = (noise & 0xFFFF) * 2.0**-16 + ((noise >> 16 & 0xFFFF) + 0.5) * 2.0**-32
    return (logits - (-torch.log1p(-uniform)).log()).argmax(dim=-1)


def judged(drafts: Tensor, sampled: Tensor, after: Tensor, counts: list[int], width: int) -> Tensor:
    """What each request says: the sampled tokens up to the first one that its draft did not say, with that one.

    `drafts` and `sampled` [drafted places], request after request; `after` [requests], the token after a draft that is right to
    its end. Returns [requests, width + 1]; what comes after the end of a row is vLLM's placeholder.
    """
    device = drafts.device
    drafted = torch.tensor(counts, device=device)
    requests = torch.arange(len(counts), device=device)
    owner = requests.repeat_interleave(drafted)
    place = torch.arange(len(drafts), device=device) - (drafted.cumsum(0) - drafted)[owner]
    told = torch.full((len(counts), width + 1), PLACEHOLDER_TOKEN_ID, dtype=torch.int32, device=device)
    told[owner, place] = sampled.int()
    told[requests, drafted] = after.int()
    right = torch.zeros(len(counts), width, dtype=torch.int32, device=device)
    right[owner, place] = (drafts == sampled).int()
    last = right.cumprod(dim=1).sum(dim=1)
    return told.masked_fill_(torch.arange(width + 1, device=device) > last[:, None], PLACEHOLDER_TOKEN_ID)


class Choice(nn.Module):
    """In the place of vLLM's own last step. What it is handed as generators are the seeds of the rows."""

    def __init__(self, logprobs_mode: str) -> None:
        super().__init__()
        self.logprobs_mode = logprobs_mode

    def forward(
        self, logits: Tensor, seeds: Tensor, top_k: Tensor | None, top_p: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        logits = apply_top_k_top_p(logits, top_k, top_p)
        told = {"processed_logits": lambda: logits, "processed_logprobs": lambda: logits.log_softmax(dim=-1)}
        return chosen(logits, seeds), told.get(self.logprobs_mode, lambda: None)()


class PlacedSampler(Sampler):
    """Samples the last row of each request in vLLM's running batch, which `runner` knows."""

    def __init__(self, runner: Any) -> None:
        super().__init__(runner.sampler.logprobs_mode)
        self.topk_topp_sampler = Choice(self.logprobs_mode)
        self._runner = runner
        self.ahead = torch.zeros(0, dtype=torch.long)  # [requests], the place of the next token that is not sampled yet

    def forward(self, logits: Tensor, sampling_metadata: SamplingMetadata, *args: Any, **options: Any) -> SamplerOutput:
        count = logits.shape[0]
        owners = torch.arange(count, device=logits.device)
        rows = self._runner.query_start_loc.gpu[1 : count + 1] - 1
        places = self.places(rows)
        self.ahead = places + 1
        seeds = self.seeds(owners, places)
        return super().forward(logits, replace(sampling_metadata, generators=seeds), *args, **options)

    def places(self, rows: Tensor) -> Tensor:
        """Where in its sequence each row of the model's input lies."""
        return self._runner.positions[rows]

    def draft(self, hidden_states: Tensor, sampling_metadata: SamplingMetadata) -> tuple[Tensor, None]:
        """One more token of each request's draft, with the noise by which it will be judged. Takes the place of the
        proposer's own step, which calls it for one place after the other."""
        logits = self._runner.drafter.model.compute_logits(hidden_states)
        places, self.ahead = self.ahead, self.ahead + 1
        temperature = sampling_metadata.temperature
        if temperature is None:
            return logits.argmax(dim=-1), None
        noisy = temperature >= _SAMPLING_EPS
        warm = logits.float() / torch.where(noisy, temperature, 1.0)[:, None]
        seeds = self.seeds(torch.arange(len(places), device=logits.device), places)
        return torch.where(noisy, chosen(warm, seeds), logits.argmax(dim=-1)), None

    def seeds(self, owners: Tensor, places: Tensor) -> Tensor:
        """For places, each of one request of the batch; vLLM warms up with requests that are not there."""
        runner = self._runner
        told = [_seed(runner.requests[name].sampling_params) for name in runner.input_batch.req_ids]
        told += [0] * max(0, runner.max_num_reqs - len(told))
        return seeds_at(torch.tensor(told, device=owners.device)[owners], places)


def _seed(parameters: Any) -> int:
    return int((parameters.extra_args or {}).get(SEED, parameters.seed or 0))


class PlacedJudge(RejectionSampler):
    """Judges drafts by what is sampled at their places; of vLLM's it keeps penalties, masks, biases and likelihoods."""

    sampler: PlacedSampler

    def forward(
        self, metadata: SpecDecodeMetadata, draft_probs: Tensor | None, logits: Tensor, sampling_metadata: SamplingMetadata
    ) -> SamplerOutput:
        """`logits` [drafted places + requests, vocabulary]; how likely a draft found its own words does not matter."""
        told = sampling_metadata.max_num_logprobs
        bonus = self.sampler(
            logits=logits[metadata.bonus_logits_indices],
            sampling_metadata=replace(sampling_metadata, max_num_logprobs=-1),
            predict_bonus_token=True,
            logprobs_mode_override="processed_logits" if self.is_processed_logprobs_mode else "raw_logits",
        )
        raw = logits[metadata.target_logits_indices].float()
        judging = self.apply_logits_processors(raw.clone() if told is not None else raw, sampling_metadata, metadata)
        sampled, processed = self.sampler.sample(judging, self._of_places(metadata, sampling_metadata))
        tokens = judged(
            metadata.draft_token_ids,
            sampled,
            bonus.sampled_token_ids[:, 0],
            metadata.num_draft_tokens,
            metadata.max_spec_len,
        )
        said = (tokens != PLACEHOLDER_TOKEN_ID).sum(dim=1)
        self.sampler.ahead += said - 1 - torch.tensor(metadata.num_draft_tokens, device=said.device)
        scores = None
        if told is not None:
            shown = processed if self.is_processed_logprobs_mode and processed is not None else raw
            scores = self._get_logprobs_tensors(told, metadata, logits, shown, bonus.logprobs_tensors.logprobs, tokens)
        return SamplerOutput(sampled_token_ids=tokens, logprobs_tensors=scores)

    def _of_places(self, metadata: SpecDecodeMetadata, of_requests: SamplingMetadata) -> SamplingMetadata:
        """The parameters of each drafted place: its request's, with noise of its own."""
        device = metadata.draft_token_ids.device
        counts = torch.tensor(metadata.num_draft_tokens, device=device)
        owners = torch.arange(len(counts), device=device).repeat_interleave(counts)
        rows = metadata.logits_indices[metadata.target_logits_indices]
        of_places = {
            name: None if (values := getattr(of_requests, name)) is None else values[owners]
            for name in ("temperature", "top_k", "top_p")
        }
        seeds = self.sampler.seeds(owners, self.sampler.places(rows))
        # Penalties and biases are laid on already; what remains are processors that a draft excludes.
        return replace(of_requests, **of_places, generators=seeds, max_num_logprobs=None, logitsprocs=LogitsProcessors())


def place_noise(runner: Any) -> None:
    """Gives a model runner of vLLM, the first version of it, the samplers above."""
    runner.sampler = PlacedSampler(runner)
    drafts = runner.speculative_config
    if hasattr(runner, "rejection_sampler") and drafts.rejection_sample_method == "standard":
        runner.rejection_sampler = PlacedJudge(runner.sampler, drafts, runner.device)
        if drafts.method == "mtp" and drafts.draft_sample_method == "greedy":
            runner.drafter._sample_draft_tokens = runner.sampler.draft
