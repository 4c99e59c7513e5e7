"""Packages with random weights, each layout made once, and encoders of them with other instructions and limits."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.gpu.device import Device
from benchmarks.gpu.sizes import Layout, Sizes
from benchmarks.kit.packages import random_package, texts
from encoders.encoder import Encoder
from encoders.model.attention import AttentionKernel
from encoders.package.manifest import PostTemplate, Precision, Templates, TokenLimits
from encoders.package.model_package import TOKENIZER_FILE, ModelPackage
from encoders.prompt.prompts import Prompts
from encoders.prompt.safe_tokenizer import SafeTokenizer

_WORDS: Final = ("find", "posts", "that", "a", "member", "would", "read")


class Models:
    def __init__(self, device: Device, sizes: Sizes, folder: Path) -> None:
        self._device = device
        self._sizes = sizes
        self._folder = folder
        self._packages: dict[str, ModelPackage] = {}

    @cached_property
    def corpus(self) -> list[str]:
        """Texts whose lengths are distributed like those of real posts."""
        return texts(None)

    def layout(self, name: str) -> Layout:
        return {**self._sizes.layouts, **self._sizes.variants}[name]

    @property
    def main(self) -> str:
        """The layout of all parts but the encoder's."""
        return next(iter(self._sizes.layouts))

    def package(self, name: str, precision: Precision = "bf16") -> ModelPackage:
        """Of a layout, or of the small model."""
        key = f"{name} {precision}"
        if key not in self._packages:
            self._packages[key] = self._made(name, precision)
        return self._packages[key]

    def forget_all_but(self, name: str) -> None:
        """Removes the packages of all other layouts: the largest has 16 GB."""
        for key in [key for key in self._packages if not key.startswith(f"{name} ")]:
            shutil.rmtree(self._packages.pop(key).folder)

    def encoder(
        self,
        name: str,
        *,
        compiled: bool = False,
        attention: AttentionKernel = "flash",
        prefix_tokens: int = 0,
        limit: int | None = None,
    ) -> Encoder:
        """`prefix_tokens`: so many tokens all texts begin with, or two more where words do not come out even. `limit`:
        tokens of a text."""
        package = self.package(name)
        limit = limit or self._sizes.most_tokens
        instruction = self._instruction(package, prefix_tokens) if prefix_tokens else ""
        manifest = msgspec.structs.replace(
            package.manifest,
            templates=Templates(PostTemplate(("text",), instruction)),
            token_limits=TokenLimits(post=limit, member=limit),
        )
        changed = replace(package, manifest=manifest)
        encoder = Encoder.unchecked(changed, device=self._device.name, compiled=compiled, attention=attention)
        encoder.warm_up()
        return encoder

    def posts(self, count: int, run: str = "") -> list[str]:
        """All different, so that the encoder cannot find a repeated one; those of another `run` too."""
        return [f"{run}{number} {self.corpus[number % len(self.corpus)]}" for number in range(count)]

    def words(self, count: int, first: int = 0) -> str:
        """A text of so many words."""
        words: list[str] = []
        while len(words) < count:
            words += self.corpus[(first + len(words)) % len(self.corpus)].split()
        return " ".join(words[:count])

    def _made(self, name: str, precision: Precision) -> ModelPackage:
        config = Layout(self._sizes.small, 0, 0).config() if name == "small" else self.layout(name).config()
        folder = self._folder / f"{name}-{precision}".replace(" ", "-").replace(",", "")
        # A token for the instruction has to be in the tokenizer.
        random_package(
            folder,
            config,
            precision=precision,
            instruction=_WORDS[0],
            limit=self._sizes.most_tokens,
            device=self._device.name if precision == "bf16" else "cpu",
        )
        self._device.free()
        return ModelPackage.load(folder)

    def _instruction(self, package: ModelPackage, num_tokens: int) -> str:
        tokenizer = SafeTokenizer(package.folder / TOKENIZER_FILE, package.manifest.special_tokens)
        words: list[str] = []
        while _prefix_tokens(package, tokenizer, words) < num_tokens:
            words.append(_WORDS[len(words) % len(_WORDS)])
        return " ".join(words)


def _prefix_tokens(package: ModelPackage, tokenizer: SafeTokenizer, words: Sequence[str]) -> int:
    template = PostTemplate(("text",), " ".join(words))
    return len(Prompts(msgspec.structs.replace(package.manifest, templates=Templates(template)), tokenizer).post_prefix)
