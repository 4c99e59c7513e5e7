"""The encoder of one model package: contexts in, vectors out.

A context goes two steps. `prepare_posts` or `prepare_members` renders prompts and finds repeats. This step needs no
device, and another thread may do it ahead. `run` packs the prompts, runs the model and gives each context its vector.
`encode_*` do both steps, and prepare the next contexts while the device works. A bad context never harms the others:
its outcome is an `Unencodable` in place of a vector. Knows neither topics nor tiers.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import torch

from encoders.errors import BadPackage, BadText, GoldenMismatch, Outcome, Unencodable, one_vector
from encoders.interests import acted_texts
from encoders.model.attention import NUM_SPLITS, AttentionKernel
from encoders.model.llama import LlamaConfig
from encoders.model.loading import choose_device, load_model
from encoders.model.model_stats import ModelStats
from encoders.model.packed_model import PackedModel
from encoders.package.checked_files import CheckedFiles
from encoders.package.manifest import MeanForm, MemberVectorsForm, Precision
from encoders.package.model_package import TOKENIZER_FILE, ModelPackage
from encoders.prepared import Prepared, TextSource, interest_source, mean_source
from encoders.prompt.member_mean import WeightedText, weighted_texts
from encoders.prompt.member_parts import member_parts
from encoders.prompt.prompts import Prompt, Prompts
from encoders.prompt.safe_tokenizer import SafeTokenizer
from encoders.vector_cache import Key, VectorCache, prompt_key
from schemas.contexts import MemberContext, PostContext
from schemas.embeddings import Vector

BUDGET_TOKENS: Final = 8192
_POST_WINDOW: Final = 1024
_MEMBER_WINDOW: Final = 128
"""How many contexts are prepared while the device runs the previous ones. A member is up to 50 texts."""

_GOLDEN_TOLERANCE: Final[dict[Precision, float]] = {"fp32": 1e-5, "bf16": 1e-2}
"""The largest 1 - cosine between this machine's vector of a golden text and the package's. Two machines differ by 1e-7
in fp32 and by some 1e-3 in bf16; another model differs by far more."""

_Input = TypeVar("_Input", PostContext, MemberContext, str)


class Encoder:
    """Use `load` to make an encoder. Many threads may share it."""

    def __init__(self, package: ModelPackage, prompts: Prompts, model: PackedModel) -> None:
        self.package = package
        self.by_text = VectorCache(package.dimension)
        """Vectors of the texts that a member's mean is made of. A text that is found here need not be tokenised."""
        self.by_prompt = VectorCache(package.dimension)
        """Vectors of all other prompts. Prompts repeat: a post whose counts have changed has the same prompt if the
        template names no counts, and a short post has the same prompt in a member's history."""
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
        attention: AttentionKernel = "flash",
        shares_memory: bool = False,
        checked: CheckedFiles | None = None,
    ) -> "Encoder":
        """Checks the package's digests and golden texts. Raises PackageError, and DeviceFull if the device has no room
        for the model now. `checked`: knows which files have been hashed already, and need not be again.

        `threads`: how many batches run side by side on a CPU. Torch then uses one thread for each batch, which is set
        for the whole process. None: one batch at a time, on as many threads as torch chooses. With `compiled`, call
        `warm_up` before the first real text. `attention`, on a GPU in bf16: see `EncodeSettings`; `any` is the kernel
        that torch prefers, to compare with. `shares_memory`: this process itself holds more on the device than the
        model. A text that finds no memory then raises DeviceFull and is never refused.
        """
        if threads is not None:
            torch.set_num_threads(1)
        package = ModelPackage.load(folder, checked)
        encoder = cls.unchecked(
            package,
            device=device,
            budget_tokens=budget_tokens,
            threads=threads or 1,
            compiled=compiled,
            attention=attention,
            shares_memory=shares_memory,
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
        attention: AttentionKernel = "flash",
        shares_memory: bool = False,
    ) -> "Encoder":
        """Like `load`, without the checks: for code that writes a package, whose golden vectors do not exist yet."""
        manifest, folder = package.manifest, package.folder
        tokenizer = SafeTokenizer(folder / TOKENIZER_FILE, manifest.special_tokens)
        torch_device = choose_device(device)
        model = load_model(folder, manifest, torch_device, compiled=compiled)
        _check_sizes(package, tokenizer.num_tokens, model.config)
        packed = PackedModel(
            model,
            manifest,
            torch_device,
            budget_tokens,
            threads,
            num_splits=NUM_SPLITS[attention],
            shares_memory=shares_memory,
        )
        return cls(package, Prompts(manifest, tokenizer), packed)

    @property
    def stats(self) -> ModelStats:
        return self._model.stats

    def yield_cores(self, yields: bool) -> None:
        """Whether every other process of the machine comes before this encoder, from the next call on. On a CPU."""
        self._model.yield_cores(yields)

    @property
    def budget_tokens(self) -> int:
        """How many tokens a batch may hold. Smaller than at the start if memory has run out since."""
        return self._model.budget_tokens

    def encode_posts(self, contexts: Sequence[PostContext]) -> list[Outcome]:
        return self._encode(self.prepare_posts, contexts, _POST_WINDOW)

    def encode_members(self, contexts: Sequence[MemberContext]) -> list[Outcome]:
        return self._encode(self.prepare_members, contexts, _MEMBER_WINDOW)

    def encode_texts(self, texts: Sequence[str], *, share_prefix: bool = True) -> list[Vector | Unencodable]:
        """Profiles, history entries and golden texts: each becomes a prompt of the post template in which only the
        field `text` is filled.
        `share_prefix` is for measurements."""
        prefix = self._prompts.post_prefix if share_prefix else []
        outcomes = self._encode(partial(_prepare_texts, prefix, self._prompts.texts), texts, _POST_WINDOW)
        return [outcome for outcome in map(one_vector, outcomes) if outcome is not None]

    def prompts(self, texts: Sequence[str]) -> list[Prompt]:
        """The prompts that `encode_texts` gives the model; texts that cannot be encoded are left out."""
        return [prompt for prompt in self._prompts.texts(texts) if not isinstance(prompt, Unencodable)]

    def encode_text(self, text: str) -> Vector:
        """Encodes a query, by the query template. Raises BadText."""
        if not text.strip():
            raise BadText("the text is empty; send some words")
        (outcome,) = map(
            one_vector, self.run(_prepare_texts(self._prompts.query_prefix, self._prompts.queries, [text]))
        )
        if isinstance(outcome, Unencodable):
            raise BadText(outcome.cause)
        assert outcome is not None, "only a context can be empty"
        return outcome

    def encode_queries(self, texts: Sequence[str]) -> list[Outcome]:
        """The same vectors as `encode_text` gives, of many queries."""
        prepare = partial(_prepare_texts, self._prompts.query_prefix, self._prompts.queries)
        return self._encode(prepare, texts, _POST_WINDOW)

    def prepare_posts(self, contexts: Sequence[PostContext]) -> Prepared:
        """Needs no device; may run in another thread while `run` runs."""
        prepared = Prepared(self._prompts.post_prefix)
        prompts = self._prompts.posts([context for context in contexts if not context.deleted])
        sources = iter(self._find_or_add(prepared, prompts))
        prepared.sources = [None if context.deleted else next(sources) for context in contexts]
        return prepared

    def prepare_post_texts(self, contexts: Sequence[PostContext]) -> Prepared:
        """The text of each post alone, by the post template: without author, age and counts. Needs no device; may run
        in another thread while `run` runs."""
        prepared = Prepared(self._prompts.post_prefix)
        prompts = self._prompts.texts([context.text for context in contexts if not context.deleted])
        sources = iter(self._find_or_add(prepared, prompts))
        prepared.sources = [None if context.deleted else next(sources) for context in contexts]
        return prepared

    def prepare_members(self, contexts: Sequence[MemberContext]) -> Prepared:
        """Needs no device; may run in another thread while `run` runs."""
        form = self.package.member_form
        sources: dict[Key, TextSource] = {}
        if isinstance(form, MeanForm):
            prepared = self._prepare_means(form, contexts, sources)
        else:
            prepared = Prepared(self._prompts.member_prefix)
            for parts in member_parts(self.package.manifest, self._prompts, contexts):
                if isinstance(parts, Unencodable):
                    prepared.sources.append(parts)
                else:
                    prepared.sources.append(prepared.add(parts[0].prompt) if parts else None)
        self._prepare_interests(prepared, contexts, sources)
        return prepared

    def run(self, prepared: Prepared) -> list[Outcome]:
        """One outcome for each context, in order. Raises EncodingFailed."""
        vectors, prepared.device_s = self._model.run(prepared.prompts, prepared.prefix)
        for row, keys in prepared.cache_keys.items():
            if not isinstance(vector := vectors[row], Unencodable):
                for key in keys:
                    (self.by_text if isinstance(key, str) else self.by_prompt).put(key, vector)
        return prepared.outcomes(vectors)

    def warm_up(self) -> None:
        """Allocates memory and, if the model is compiled, compiles it, so that the first real text need not wait for
        that. It is compiled twice: for the first length, and then for any length."""
        for text in ("warm", "warm up", "up " * self.package.manifest.token_limits.post):
            self.encode_texts([text])

    def forget_unused(self, age_s: float) -> None:
        """Drops what erased texts may have left here: vectors that nobody has asked for in the last `age_s` seconds,
        and the cached token ids of all profile values."""
        self.by_text.forget_unused(age_s)
        self.by_prompt.forget_unused(age_s)
        self._prompts.forget_values()

    def check_goldens(self) -> None:
        """Encodes the package's golden texts. Raises GoldenMismatch if the vectors are not those that the package
        recorded."""
        for golden, distance in zip(self.package.manifest.goldens, self.golden_distances(), strict=True):
            if not distance <= self.golden_tolerance:
                raise GoldenMismatch(
                    f"{self.package.folder}: the golden text {golden.text[:40]!r} gives another vector than recorded "
                    f"(1 - cosine {distance:.1e}, at most {self.golden_tolerance:.0e}); use another package or another "
                    "machine"
                )

    @property
    def golden_tolerance(self) -> float:
        """The largest 1 - cosine that may be between a golden text's vector here and the package's."""
        return _GOLDEN_TOLERANCE[self.package.precision]

    def golden_distances(self) -> list[float]:
        """1 - cosine between the vector of each golden text here and the package's; 2 where there is none here."""
        goldens = self.package.manifest.goldens
        vectors = self.encode_texts([golden.text for golden in goldens])
        return [
            2.0 if isinstance(vector, Unencodable) else 1 - float(vector @ golden.as_vector())
            for golden, vector in zip(goldens, vectors, strict=True)
        ]

    def _prepare_means(
        self, form: MeanForm, contexts: Sequence[MemberContext], sources: dict[Key, TextSource]
    ) -> Prepared:
        template = self.package.manifest.templates.member
        members = [weighted_texts(form, template, context) for context in contexts]
        prepared = Prepared(self._prompts.post_prefix)
        self._add_texts(prepared, members, sources)
        prepared.sources = [mean_source(member, sources) for member in members]
        return prepared

    def _prepare_interests(
        self, prepared: Prepared, contexts: Sequence[MemberContext], sources: dict[Key, TextSource]
    ) -> None:
        form = self.package.manifest.member_vectors
        if isinstance(form, MemberVectorsForm):
            members = [acted_texts(form, context) for context in contexts]
            self._add_texts(prepared, members, sources)
            prepared.member_vectors = form
            prepared.interests = [interest_source(member, sources) for member in members]

    def _add_texts(
        self, prepared: Prepared, members: Sequence[Sequence[WeightedText]], sources: dict[Key, TextSource]
    ) -> None:
        """Adds to `sources` where the vectors of these members' texts come from."""
        texts = list(dict.fromkeys(text for member in members for text, _ in member if text not in sources))
        sources.update(self.by_text.find(texts))
        missing = [text for text in texts if text not in sources]
        for text, source in zip(missing, self._find_or_add(prepared, self._prompts.texts(missing)), strict=True):
            sources[text] = source
            if isinstance(source, int):
                prepared.cache_keys[source].add(text)
            elif not isinstance(source, Unencodable):
                self.by_text.put(text, source)

    def _find_or_add(self, prepared: Prepared, prompts: Sequence[Prompt | Unencodable]) -> list[TextSource]:
        """For each prompt its cached vector. A prompt without one is added to `prepared`, and its row is returned."""
        keys = [b"" if isinstance(prompt, Unencodable) else prompt_key(prompt) for prompt in prompts]
        cached = self.by_prompt.find(keys)
        sources: list[TextSource] = []
        for prompt, key in zip(prompts, keys, strict=True):
            source = cached[key] if key in cached else prepared.add(prompt)
            if isinstance(source, int):
                prepared.cache_keys.setdefault(source, set()).add(key)
            sources.append(source)
        return sources

    def _encode(
        self, prepare: Callable[[Sequence[_Input]], Prepared], inputs: Sequence[_Input], window: int
    ) -> list[Outcome]:
        """Runs the inputs window by window, and prepares the next window while the device runs the current one."""
        if len(inputs) <= window:
            return self.run(prepare(inputs))
        outcomes: list[Outcome] = []
        with ThreadPoolExecutor(1, thread_name_prefix="prepare") as pool:
            next_prepared = pool.submit(partial(prepare, inputs[:window]))
            for start in range(0, len(inputs), window):
                prepared = next_prepared.result()
                next_inputs = inputs[start + window : start + 2 * window]
                next_prepared = pool.submit(partial(prepare, next_inputs))
                outcomes += self.run(prepared)
        return outcomes


def _prepare_texts(
    prefix: Prompt, render: Callable[[Sequence[str]], list[Prompt | Unencodable]], texts: Sequence[str]
) -> Prepared:
    prepared = Prepared(prefix)
    prepared.sources = [prepared.add(prompt) for prompt in render(texts)]
    return prepared


def _check_sizes(package: ModelPackage, num_tokens: int, config: LlamaConfig) -> None:
    limits = package.manifest.token_limits
    if num_tokens > config.vocab_size:
        raise BadPackage(f"{package.folder}: the tokenizer has {num_tokens} tokens, the model {config.vocab_size}")
    if max(limits.post, limits.member) > config.max_position_embeddings:
        raise BadPackage(
            f"{package.folder}: token_limits are above the model's {config.max_position_embeddings} positions"
        )
