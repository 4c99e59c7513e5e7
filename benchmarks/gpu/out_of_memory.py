"""Part 4: the card is full for a moment, because another process takes nearly all of it and gives it back.

On a CPU the neighbour is made up: the first passes of the model find no memory.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaModel

from benchmarks.gpu.processes import Processes
from benchmarks.gpu.run import Run
from benchmarks.kit.table import Figure
from encoders.encoder import Encoder
from encoders.errors import EncodingFailed, Outcome, Unencodable
from schemas.contexts import PostContext
from schemas.ids import Micros, PostId, Revision

_LEFT_SHARE: Final = 0.05
"""Of a large card that is enough for a whole batch."""
_LEFT_BYTES: Final = 64 << 20
"""Enough for a few texts."""
_PIECE_BYTES: Final = 32 << 20
_TURN: Final = 512
"""Posts that are encoded at a time, as the encode stage does."""
_OUTAGES: Final = 200
_AGAIN_S: Final = 0.1
_REFUSED_PASSES: Final = 3
_START_S: Final = 60.0


def measure(run: Run) -> None:
    if not run.device.is_gpu:
        run.arm("a made-up neighbour", partial(_encode_beside, run, 0))
        return
    free = run.device.free_bytes()
    run.arm("a neighbour leaves 5 % of the card", partial(_encode_beside, run, int(free * _LEFT_SHARE)))
    run.arm("a neighbour leaves nearly nothing", partial(_encode_beside, run, _LEFT_BYTES))


def _encode_beside(run: Run, left_bytes: int) -> Iterator[Figure]:
    encoder = run.models.encoder(run.models.main, limit=run.sizes.member_tokens)
    contexts = posts(run.models.posts(run.models.layout(run.models.main).num_posts))
    budget = encoder.budget_tokens
    run.device.free()
    with _neighbour(run, left_bytes) as leave, ThreadPoolExecutor(1) as pool:
        work = pool.submit(_encode_all, encoder, contexts)
        time.sleep(run.sizes.neighbour_s)
        leave()
        outcomes, outages = work.result()
    lost = [outcome for outcome in outcomes if isinstance(outcome, Unencodable)]
    for cause in sorted({outcome.cause for outcome in lost})[:3]:
        print(f"    lost: {cause}", flush=True)
    yield Figure("posts without a vector", len(lost), 0, "at_most")
    yield Figure("times the encoder said that the device fails", outages)
    yield Figure("times the budget was halved", encoder.stats.halvings)
    yield Figure("budget at the end of that, tokens", encoder.budget_tokens)
    encoder.forget_unused(0.0)
    _encode_all(encoder, contexts)
    yield Figure(
        "budget after as many posts on a card with room / at the start", encoder.budget_tokens / budget, run.aim(1.0)
    )


def posts(texts: list[str]) -> list[PostContext]:
    return [PostContext(PostId(f"p{number}"), Revision(1), Micros(1), text=text) for number, text in enumerate(texts)]


def _encode_all(encoder: Encoder, contexts: list[PostContext]) -> tuple[list[Outcome], int]:
    """As the stage does: where the device fails, its process begins anew and takes the same records again. Returns also
    how often it failed."""
    outcomes: list[Outcome] = []
    outages = 0
    while len(outcomes) < len(contexts):
        try:
            outcomes += encoder.encode_posts(contexts[len(outcomes) : len(outcomes) + _TURN])
        except EncodingFailed:
            outages += 1
            if outages > _OUTAGES:
                raise
            time.sleep(_AGAIN_S)
    return outcomes, outages


@contextmanager
def _neighbour(run: Run, left_bytes: int) -> Iterator[Any]:
    """Yields what makes it leave."""
    if run.device.is_gpu:
        processes = Processes(run)
        there, leave = processes.event(), processes.event()
        started = processes.start(take_memory, run.device.name, left_bytes, there, leave)
        if not there.wait(_START_S):
            raise TimeoutError("the neighbour took no memory in a minute")
        try:
            yield leave.set
        finally:
            leave.set()
        print(f"    the neighbour had {started.result() / 1e9:.1f} GB", flush=True)
    else:
        hook = nn.modules.module.register_module_forward_pre_hook(_Refusing(_REFUSED_PASSES))
        try:
            yield hook.remove
        finally:
            hook.remove()


def take_memory(device: str, left_bytes: int, there: Any, leave: Any) -> int:
    """In a process of its own: takes all but so much. Returns how many bytes it had."""
    taken: list[torch.Tensor] = []
    torch.empty(1, device=device)
    while (more := int(torch.cuda.mem_get_info(device)[0]) - left_bytes) > _PIECE_BYTES:
        try:
            taken.append(torch.empty(max(_PIECE_BYTES, more // 2), dtype=torch.uint8, device=device))
        except torch.OutOfMemoryError:
            break
    there.set()
    leave.wait()
    return sum(map(len, taken))


class _Refusing:
    """A hook before every module: the first passes of a LLaMA find no memory."""

    def __init__(self, passes: int) -> None:
        self._left = passes

    def __call__(self, module: nn.Module, _: object) -> None:
        if isinstance(module, LlamaModel) and self._left > 0:
            self._left -= 1
            raise torch.OutOfMemoryError("the made-up neighbour has the memory")
