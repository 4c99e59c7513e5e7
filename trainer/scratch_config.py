"""The shape of a model that is made from nothing."""

from transformers.models.llama.configuration_llama import LlamaConfig

from trainer.settings import TrainSettings


def scratch_config(settings: TrainSettings, num_tokens: int, *, longest: int | None = None) -> LlamaConfig:
    """`longest`: the most tokens that a prompt may have; None: as many as a post."""
    return LlamaConfig(
        vocab_size=num_tokens,
        hidden_size=settings.hidden,
        intermediate_size=3 * settings.hidden,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=max(1, settings.heads // 2),
        max_position_embeddings=max(512, longest or settings.post_tokens),
        bos_token_id=None,
        eos_token_id=None,
        tie_word_embeddings=False,
    )
