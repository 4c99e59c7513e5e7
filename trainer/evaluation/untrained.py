"""The untrained start of a package that was made from nothing: the same layers, tokenizer and prompts, and embeddings
that know which words occur together. Whoever has the events has it in a minute, so training must give more.

Owns how it is made once more, of the events at hand. How a new model begins is said in `model.lsi_initialization`.
"""

from pathlib import Path
from typing import Final

from msgspec.structs import replace
from transformers import PreTrainedTokenizerFast

from contexts.posts import publish_post
from encoders.errors import Unencodable
from encoders.model.loading import read_config
from encoders.package.model_package import TOKENIZER_FILE, ModelPackage
from encoders.package_writer import write_package
from encoders.prompt.prompts import Prompt, Prompts
from encoders.prompt.safe_tokenizer import SafeTokenizer
from schemas.ids import Micros
from trainer.data.feed import Feed
from trainer.data.replay import replay_until
from trainer.model.lsi_initialization import new_model
from trainer.settings import TrainSettings

NOT_AT_HAND: Final = "it was not made from nothing, and only --baseline START measures what it was made from"
"""Why there is no untrained start of a package."""


def untrained_start(package: ModelPackage, feed: Feed, cut_us: Micros, folder: Path) -> ModelPackage | None:
    """Written to `folder`. Its embeddings are made of the posts that were alive at the cut, with the package's seed:
    with the events and the cut of its training it is what the training began with. None for a package that was not made
    from nothing: its start is a folder, which can be measured as a baseline."""
    if package.manifest.base_model.name != "none":
        return None
    config = read_config(package.folder)
    settings = TrainSettings(
        hidden=config.hidden_size, layers=config.num_hidden_layers, heads=config.num_attention_heads
    )
    seed = package.manifest.training.get("seed")
    model = new_model(
        settings,
        config.vocab_size,
        _prompts(package, feed, cut_us),
        seed if isinstance(seed, int) else 0,
        longest=config.max_position_embeddings,
    )
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(package.folder, local_files_only=True)
    manifest = replace(package.manifest, id="untrained", training={}, files={}, goldens=[])
    # Without golden texts: where the last token is pooled, an untrained model may give one a vector of zeros.
    return write_package(folder, manifest, model, tokenizer, golden_texts=())


def _prompts(package: ModelPackage, feed: Feed, cut_us: Micros) -> list[Prompt]:
    manifest = package.manifest
    rows = [row for row in replay_until(feed, cut_us).posts.values() if row.body is not None]
    posts = [publish_post(row, cut_us)[1] for row in rows]
    prompts = Prompts(manifest, SafeTokenizer(package.folder / TOKENIZER_FILE, manifest.special_tokens))
    rendered = prompts.posts(sorted(posts, key=lambda post: post.created_at_us))
    return [prompt for prompt in rendered if not isinstance(prompt, Unencodable)]
