"""Trains the demo's model package from nothing, in some minutes on one core.

    python -m nearline.demo.train --out FOLDER

A LLaMA of 128 dimensions and four layers with its own byte-level tokenizer, taught by contrast: the texts of a pair
(see `corpus`) shall have a higher product than any two texts of different pairs in a batch. This is how the committed
package was made; nothing else in the project depends on how.
"""

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import click
import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaModel

from encoders.package.manifest import BaseModel, Manifest, MeanForm, PostTemplate, Templates, TokenLimits
from encoders.package_writer import write_package
from nearline.demo.corpus import DocumentationPairs, InventedPairs, Pair, Source, WorldPairs, documentation_roots
from trainer.model.lsi_initialization import zero_layer_outputs
from trainer.model.tokenizer import train_bpe

# Shapes: B pairs in a batch, T tokens of the longest text, H hidden.

HIDDEN: Final = 128
LAYERS: Final = 4
VOCABULARY: Final = 8_192
MAX_TOKENS: Final = 128
TRAIN_TOKENS: Final = 64
"""Training sees the start of longer texts: positions are relative, so the model can go on."""
TEMPERATURE: Final = 0.05
WARMUP_STEPS: Final = 50
WORLD_SEEDS: Final = (101, 102, 103)
"""None of them is the demo's or a test's."""

BEGIN: Final = "<|begin_of_text|>"
END: Final = "<|end_of_text|>"
TEXT: Final = "<|nearline:text|>"

Log = Callable[[str], None]


class Phase(NamedTuple):
    """One run of training."""

    name: str
    steps: int
    batch: int
    rate: float


WORDS_FIRST: Final = Phase("words", steps=900, batch=128, rate=1e-2)
"""Without layers: cheap, and most of what is to be learned is which words matter and which belong together."""
THEN_LAYERS: Final = Phase("layers", steps=200, batch=64, rate=1e-3)


def train_tokenizer(texts: Sequence[str]) -> Tokenizer:
    """As the trainer's, with a begin of text before each."""
    tokenizer = train_bpe(texts, VOCABULARY, [BEGIN, END, TEXT])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, _id(tokenizer, BEGIN))]
    )
    return tokenizer


def _id(tokenizer: Tokenizer, token: str) -> int:
    number = tokenizer.token_to_id(token)
    assert number is not None, f"{token} is one of the tokens that the tokenizer was made with"
    return number


def new_model(tokenizer: Tokenizer, seed: int, layers: int) -> LlamaModel:
    """Without layers a text's vector is the mean of its tokens' vectors, each after the last norm.

    The last norm ignores one dimension: a token that means little can grow there, which makes it small elsewhere.
    """
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=HIDDEN,
        intermediate_size=3 * HIDDEN,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=_id(tokenizer, BEGIN),
        eos_token_id=_id(tokenizer, END),
        tie_word_embeddings=False,
    )
    model = LlamaModel(config)
    with torch.no_grad():
        model.norm.weight[-1] = 0.0
    return model


def deepen(shallow: LlamaModel, tokenizer: Tokenizer, seed: int) -> LlamaModel:
    """The same vectors from a model with layers that say nothing yet."""
    model = new_model(tokenizer, seed, LAYERS)
    model.embed_tokens.load_state_dict(shallow.embed_tokens.state_dict())
    model.norm.load_state_dict(shallow.norm.state_dict())
    zero_layer_outputs(model)
    return model


class Texts:
    """Token ids of texts, as the package's prompts will have them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._start = [_id(tokenizer, BEGIN), _id(tokenizer, TEXT)]

    def batch(self, texts: Sequence[str], limit: int = TRAIN_TOKENS) -> tuple[Tensor, Tensor]:
        """Ids and a mask, both (B, T). Attention is causal, so that what is padded on the right changes nothing."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        rows = [(self._start + encoding.ids)[:limit] for encoding in encodings]
        longest = max(map(len, rows))
        ids_BT = np.zeros((len(rows), longest), dtype=np.int64)
        mask_BT = np.zeros((len(rows), longest), dtype=np.float32)
        for number, row in enumerate(rows):
            ids_BT[number, : len(row)] = row
            mask_BT[number, : len(row)] = 1
        return torch.from_numpy(ids_BT), torch.from_numpy(mask_BT)


def embed(model: LlamaModel, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """(B, H), of length one."""
    hidden_BTH = model(input_ids=ids_BT, use_cache=False).last_hidden_state
    return F.normalize((hidden_BTH * mask_BT.unsqueeze(-1)).sum(1), dim=-1)


def contrast(anchors_BH: Tensor, positives_BH: Tensor, labels: Sequence[str]) -> Tensor:
    """InfoNCE with the batch's other pairs as negatives, both ways; pairs of one label are left out."""
    scores_BB = anchors_BH @ positives_BH.T / TEMPERATURE
    same_BB = torch.tensor([[one == other for other in labels] for one in labels])
    same_BB.fill_diagonal_(False)
    scores_BB = scores_BB.masked_fill(same_BB, float("-inf"))
    target_B = torch.arange(len(labels))
    return (F.cross_entropy(scores_BB, target_B) + F.cross_entropy(scores_BB.T, target_B)) / 2


def fit(model: LlamaModel, texts: Texts, sources: Sequence[Source], phase: Phase, *, seed: int, log: Log) -> None:
    """Every batch is of one source, so that its negatives are hard ones."""
    rng = random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=phase.rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, phase.steps))
    started = time.perf_counter()
    losses: dict[int, float] = {}
    for step in range(phase.steps):
        which = step % len(sources)
        loss = _loss(model, texts, [sources[which].pair(rng) for _ in range(phase.batch)])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses[which] = 0.95 * losses.get(which, loss.item()) + 0.05 * loss.item()
        if (step + 1) % 50 == 0:
            shown = " ".join(f"{losses[number]:.3f}" for number in sorted(losses))
            log(f"{phase.name} {step + 1}/{phase.steps}  losses {shown}  {time.perf_counter() - started:.0f} s")


def _loss(model: LlamaModel, texts: Texts, pairs: Sequence[Pair]) -> Tensor:
    ids_BT, mask_BT = texts.batch([pair.anchor for pair in pairs] + [pair.positive for pair in pairs])
    anchors_BH, positives_BH = embed(model, ids_BT, mask_BT).chunk(2)
    return contrast(anchors_BH, positives_BH, [pair.label for pair in pairs])


def _rate(step: int, steps: int) -> float:
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    progress = (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS)
    return 0.05 + 0.95 * 0.5 * (1 + float(np.cos(np.pi * progress)))


def train(log: Log, seed: int = 1) -> tuple[LlamaModel, Tokenizer]:
    worlds, documentation = WorldPairs(WORLD_SEEDS), DocumentationPairs(documentation_roots())
    log(f"{len(worlds.texts())} posts, {len(documentation.texts())} documentation strings")
    tokenizer = train_tokenizer([*worlds.texts(), *documentation.texts()])
    texts = Texts(tokenizer)
    sources: list[Source] = [worlds, documentation, InventedPairs(documentation.texts())]
    shallow = new_model(tokenizer, seed, layers=0)
    fit(shallow, texts, sources, WORDS_FIRST, seed=seed, log=log)
    model = deepen(shallow, tokenizer, seed)
    fit(model, texts, sources, THEN_LAYERS, seed=seed + 1, log=log)
    return model, tokenizer


def manifest() -> Manifest:
    phases = {phase.name: phase._asdict() for phase in (WORDS_FIRST, THEN_LAYERS)}
    return Manifest(
        id="demo",
        base_model=BaseModel("none"),
        templates=Templates(PostTemplate(("text",))),
        special_tokens={"text": TEXT},
        dimensions=(HIDDEN,),
        dimension=HIDDEN,
        token_limits=TokenLimits(post=MAX_TOKENS, member=MAX_TOKENS),
        member_form=MeanForm(action_weights={"click": 0.5, "dwell": 0.5, "comment": 1.5, "share": 1.5}),
        training={"script": "nearline.demo.train", "world_seeds": list(WORLD_SEEDS), "phases": phases},
    )


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="a folder that is not there yet")
def main(out: Path) -> None:
    """Train the demo's model package and write it.

    Example: python -m nearline.demo.train --out /tmp/package
    """
    torch.set_num_threads(1)
    model, tokenizer = train(click.echo)
    fast: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=END, pad_token=END
    )
    package = write_package(out, manifest(), model, fast)
    click.echo(f"{package.generation} in {out}")


if __name__ == "__main__":
    main()
