"""The encoder of one model package: contexts in, vectors out.

The way of a context: `prepare_*` renders prompts on the host and finds repeats (no device, may run ahead in another
thread); `run` packs them, runs the model and puts each vector in its context's place. `encode_*` does both, one window
ahead of the device. A bad record never harms another: it gets an `Unencodable` in the place of its vector.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import torch
from transformers.models.llama.configuration_llama import LlamaConfig

from encoders.errors import BadPackage, BadText, GoldenMismatch, Outcome, Unencodable
from encoders.model.packed_model import ModelStats, PackedModel, choose_device, load_model
from encoders.package.manifest import MeanForm, Precision
from encoders.package.model_package import TOKENIZER_FILE, ModelPackage
from encoders.prompt.member_mean import Part, parts, weighted_mean
from encoders.prompt.prompts import Prompt, Prompts, is_encodable
from encoders.prompt.safe_tokenizer import SafeTokenizer
from encoders.vector_cache import Key, VectorCache, prompt_key
from schemas.contexts import MemberContext, PostContext
from schemas.embeddings import Vector

BUDGET_TOKENS: Final = 8192
_POST_WINDOW: Final = 1024
_MEMBER_WINDOW: Final = 128
"""Contexts that are prepared while the device runs those before them. A member is up to 50 texts."""

_GOLDEN_TOLERANCE: Final[dict[Precision, float]] = {"fp32": 1e-5, "bf16": 1e-2}
"""1 - cosine. Two machines differ by 1e-7 in fp32 and by some 1e-3 in bf16; another model differs by far more."""

_Context = TypeVar("_Context", PostContext, MemberContext, str)


class _Mean(NamedTuple):
    """A member's vector that is yet to be put together: rows of prompts, or vectors that were kept."""

    sources: list[int | Vector]
    weights: list[float]


Place = int | Vector | _Mean | Unencodable | None
"""What becomes of a context: the vector of a row, one that was kept, a mean, a refusal, or nothing."""


@dataclass
class Prepared:
    """Contexts that are ready for the device: prompts without repeats, and what becomes of each context."""

    prefix: Prompt
    """How all the prompts begin."""
    prompts: list[Prompt] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    keep: dict[int, set[Key]] = field(default_factory=dict)
    """Rows whose vectors are kept for next time, and under which keys."""
    device_s: float = 0.0
    """How long the device worked for them, once they have run."""
    _rows: dict[tuple[int, ...], int] = field(default_factory=dict)

    def add(self, prompt: Prompt | Unencodable) -> int | Unencodable:
        """The row of this prompt; a repeated one has the row of the first."""
        if isinstance(prompt, Unencodable):
            return prompt
        row = self._rows.setdefault(tuple(prompt), len(self.prompts))
        if row == len(self.prompts):
            self.prompts.append(prompt)
        return row


class Encoder:
    """Make one with `load`. May be used by many threads."""

    def __init__(self, package: ModelPackage, prompts: Prompts, model: PackedModel) -> None:
        self.package = package
        self.by_text = VectorCache(package.dimension)
        """Of the parts of members: known before they are tokenised."""
        self.by_prompt = VectorCache(package.dimension)
        """A post whose counts alone have changed has the same prompt, where the template does not name them; so has a
        short post in a member's history."""
        self._prompts = prompts
        self._model = model

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        device: str = "auto",
        threads: int | None = None,
        budget_tokens: int = BUDGET_TOKENS,
        compiled: bool = False,
    ) -> "Encoder":
        """Checks digests and golden texts. `threads` run batches side by side on a CPU, and torch then has one thread
        in each of them, in the whole process. None: one, with torch's own number. `compiled`: call `warm_up` before
        the first real text. Raises PackageError."""
        if threads is not None:
            torch.set_num_threads(1)
        package = ModelPackage.load(folder)
        encoder = cls.unchecked(
            package, device=device, budget_tokens=budget_tokens, threads=threads or 1, compiled=compiled
        )
        encoder.check_goldens()
        return encoder

    @classmethod
    def unchecked(
        cls,
        package: ModelPackage,
        *,
        device: str = "auto",
        budget_tokens: int = BUDGET_TOKENS,
        threads: int = 1,
        compiled: bool = False,
    ) -> "Encoder":
        """For the writer of a package, which makes the golden vectors."""
        manifest, folder = package.manifest, package.folder
        tokenizer = SafeTokenizer(folder / TOKENIZER_FILE, manifest.special_tokens)
        chosen = choose_device(device)
        model = load_model(folder, manifest, chosen, compiled=compiled)
        _check_sizes(package, tokenizer.num_tokens, model.config)
        packed = PackedModel(model, manifest, chosen, budget_tokens, threads)
        return cls(package, Prompts(manifest, tokenizer), packed)

    @property
    def stats(self) -> ModelStats:
        return self._model.stats

    @property
    def budget_tokens(self) -> int:
        """Smaller than what was asked for once memory ran out."""
        return self._model.budget_tokens

    def encode_posts(self, contexts: Sequence[PostContext]) -> list[Outcome]:
        return self._ahead(self.prepare_posts, contexts, _POST_WINDOW)

    def encode_members(self, contexts: Sequence[MemberContext]) -> list[Outcome]:
        return self._ahead(self.prepare_members, contexts, _MEMBER_WINDOW)

    def encode_texts(self, texts: Sequence[str], *, share_prefix: bool = True) -> list[Vector | Unencodable]:
        """Plain texts by the post template, with the field `text` alone. `share_prefix` is for measurements."""
        prefix = self._prompts.post_prefix if share_prefix else []
        outcomes = self._ahead(partial(self._prepare_texts, prefix), texts, _POST_WINDOW)
        return [outcome for outcome in outcomes if outcome is not None]

    def prompts(self, texts: Sequence[str]) -> list[Prompt]:
        """What `encode_texts` gives the model, without what cannot be encoded."""
        return [prompt for prompt in self._prompts.texts(texts) if not isinstance(prompt, Unencodable)]

    def encode_text(self, text: str) -> Vector:
        """A query. Raises BadText."""
        if not text.strip():
            raise BadText("the text is empty; send some words")
        (outcome,) = self.encode_texts([text])
        if isinstance(outcome, Unencodable):
            raise BadText(outcome.cause)
        return outcome

    def prepare_posts(self, contexts: Sequence[PostContext]) -> Prepared:
        """Needs no device; may run in another thread while `run` runs."""
        prepared = Prepared(self._prompts.post_prefix)
        prompts = self._prompts.posts([context for context in contexts if not context.deleted])
        places = iter(self._places(prepared, prompts))
        prepared.places = [None if context.deleted else next(places) for context in contexts]
        return prepared

    def prepare_members(self, contexts: Sequence[MemberContext]) -> Prepared:
        """Needs no device; may run in another thread while `run` runs."""
        form = self.package.member_form
        if isinstance(form, MeanForm):
            return self._prepare_means(form, contexts)
        prepared = Prepared(self._prompts.member_prefix)
        prompts = iter(self._prompts.members([context for context in contexts if is_encodable(context)]))
        prepared.places = [prepared.add(next(prompts)) if is_encodable(context) else None for context in contexts]
        return prepared

    def run(self, prepared: Prepared) -> list[Outcome]:
        """One outcome for each context, in order. Raises EncodingFailed."""
        vectors, prepared.device_s = self._model.run(prepared.prompts, prepared.prefix)
        for row, keys in prepared.keep.items():
            if not isinstance(vector := vectors[row], Unencodable):
                for key in keys:
                    (self.by_text if isinstance(key, str) else self.by_prompt).keep(key, vector)
        return [_resolve(place, vectors) for place in prepared.places]

    def warm_up(self) -> None:
        """So that the first real text does not wait for what happens only once: memory, and where steps are compiled,
        one length, then any."""
        for text in ("warm", "warm up", "up " * self.package.manifest.token_limits.post):
            self.encode_texts([text])

    def forget_unused(self, age_s: float) -> None:
        """What texts that are erased have left here: vectors that nobody has asked for in this time, and all values of
        profiles."""
        self.by_text.forget_unused(age_s)
        self.by_prompt.forget_unused(age_s)
        self._prompts.forget_values()

    def check_goldens(self) -> None:
        """Raises GoldenMismatch when this machine would serve other vectors than the package recorded."""
        goldens = self.package.manifest.goldens
        tolerance = _GOLDEN_TOLERANCE[self.package.precision]
        for golden, vector in zip(goldens, self.encode_texts([golden.text for golden in goldens]), strict=True):
            distance = 2.0 if isinstance(vector, Unencodable) else 1 - float(vector @ golden.as_vector())
            if not distance <= tolerance:
                raise GoldenMismatch(
                    f"{self.package.folder}: the golden text {golden.text[:40]!r} gives another vector than recorded "
                    f"(1 - cosine {distance:.1e}, at most {tolerance:.0e}); use another package or another machine"
                )

    def _prepare_texts(self, prefix: Prompt, texts: Sequence[str]) -> Prepared:
        prepared = Prepared(prefix)
        prepared.places = [prepared.add(prompt) for prompt in self._prompts.texts(texts)]
        return prepared

    def _prepare_means(self, form: MeanForm, contexts: Sequence[MemberContext]) -> Prepared:
        template = self.package.manifest.templates.member
        wanted = [[] if context.deleted else parts(form, template, context) for context in contexts]
        texts = list(dict.fromkeys(part.text for member in wanted for part in member))
        sources: dict[Key, int | Vector | Unencodable] = {**self.by_text.find(texts)}
        missing = [text for text in texts if text not in sources]
        prepared = Prepared(self._prompts.post_prefix)
        for text, place in zip(missing, self._places(prepared, self._prompts.texts(missing)), strict=True):
            sources[text] = place
            if isinstance(place, int):
                prepared.keep[place].add(text)
            elif not isinstance(place, Unencodable):
                self.by_text.keep(text, place)
        prepared.places = [_mean(member, sources) for member in wanted]
        return prepared

    def _places(self, prepared: Prepared, prompts: Sequence[Prompt | Unencodable]) -> list[int | Vector | Unencodable]:
        """Of each prompt: the vector that is kept, or the row that it will have."""
        keys = [b"" if isinstance(prompt, Unencodable) else prompt_key(prompt) for prompt in prompts]
        kept = self.by_prompt.find(keys)
        found: list[int | Vector | Unencodable] = []
        for prompt, key in zip(prompts, keys, strict=True):
            place = kept[key] if key in kept else prepared.add(prompt)
            if isinstance(place, int):
                prepared.keep.setdefault(place, set()).add(key)
            found.append(place)
        return found

    def _ahead(
        self, prepare: Callable[[Sequence[_Context]], Prepared], contexts: Sequence[_Context], window: int
    ) -> list[Outcome]:
        """Prepares the next window while the device runs this one."""
        if len(contexts) <= window:
            return self.run(prepare(contexts))
        outcomes: list[Outcome] = []
        with ThreadPoolExecutor(1, thread_name_prefix="prepare") as host:
            ahead = host.submit(partial(prepare, contexts[:window]))
            for start in range(0, len(contexts), window):
                prepared = ahead.result()
                following = contexts[start + window : start + 2 * window]
                ahead = host.submit(partial(prepare, following))
                outcomes += self.run(prepared)
        return outcomes


def _check_sizes(package: ModelPackage, num_tokens: int, config: LlamaConfig) -> None:
    limits = package.manifest.token_limits
    if num_tokens > config.vocab_size:
        raise BadPackage(f"{package.folder}: the tokenizer has {num_tokens} tokens, the model {config.vocab_size}")
    if max(limits.post, limits.member) > config.max_position_embeddings:
        raise BadPackage(
            f"{package.folder}: token_limits are above the model's {config.max_position_embeddings} positions"
        )


def _mean(member: list[Part], sources: dict[Key, int | Vector | Unencodable]) -> _Mean | Unencodable | None:
    found: list[int | Vector] = []
    for part in member:
        source = sources[part.text]
        if isinstance(source, Unencodable):
            return source
        found.append(source)
    return _Mean(found, [part.weight for part in member]) if found else None


def _resolve(place: Place, vectors: list[Vector | Unencodable]) -> Outcome:
    if isinstance(place, int):
        return vectors[place]
    if not isinstance(place, _Mean):
        return place
    found: list[Vector] = []
    for source in place.sources:
        vector = vectors[source] if isinstance(source, int) else source
        if isinstance(vector, Unencodable):
            return vector
        found.append(vector)
    return weighted_mean(found, place.weights)
