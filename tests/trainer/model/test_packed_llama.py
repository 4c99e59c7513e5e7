from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from encoders.prompt.prompts import Prompt
from tests.kit.packages import tiny_model
from trainer.data.dataset import NOBODY
from trainer.model.loss import LeaveOneOut
from trainer.model.packed_llama import PackedLlama, pack_features, trainable
from trainer.settings import TrainSettings

PROMPTS: list[Prompt] = [[5, 6, 7], [9], [5, 6, 7, 8, 9, 10, 11], [3, 4], [8, 8, 8], [2] * 20]


def model(seed: int = 0) -> PackedLlama:
    stock = tiny_model(50, 32, 2, seed)
    return PackedLlama(trainable(stock.config, {name: weight.clone() for name, weight in stock.state_dict().items()}))


def padded(prompts: list[Prompt], seed: int = 0) -> Tensor:
    """What a stock model makes of texts that are padded, the padding left out of the mean."""
    stock = tiny_model(50, 32, 2, seed)
    longest = max(map(len, prompts))
    ids = torch.tensor([prompt + [0] * (longest - len(prompt)) for prompt in prompts])
    mask = torch.tensor([[1] * len(prompt) + [0] * (longest - len(prompt)) for prompt in prompts])
    hidden = stock(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    mean: Tensor = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return mean


def test_packed_texts_have_the_vectors_of_padded_ones_in_their_order() -> None:
    vectors = model()(pack_features(PROMPTS, pass_tokens=12))["sentence_embedding"]
    assert torch.allclose(vectors, padded(PROMPTS), atol=1e-5)


def test_every_weight_learns_through_the_packed_passes() -> None:
    packed = model()
    packed(pack_features(PROMPTS, pass_tokens=12))["sentence_embedding"].square().sum().backward()
    without = [name for name, weight in packed.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert without == []


def test_a_checkpoint_is_the_model(tmp_path: Path) -> None:
    packed, again = model(), model(seed=1)
    packed.save(str(tmp_path))
    again.restore(tmp_path)
    assert all(
        torch.equal(weight, other) for weight, other in zip(packed.parameters(), again.parameters(), strict=True)
    )


def loss_of(owners: list[int], owned: dict[int, set[int]], vectors: Tensor, **settings: object) -> Tensor:
    """Of vectors given directly: the model is only asked for them."""

    class Given(torch.nn.Module):
        def forward(self, _: object) -> dict[str, Tensor]:
            return {"sentence_embedding": vectors}

    stock = SentenceTransformer(modules=[model()])
    loss = LeaveOneOut(stock, TrainSettings(**settings), (vectors.shape[1],), owned)  # type: ignore[arg-type]
    loss.model = Given()  # type: ignore[assignment]
    result: Tensor = loss([{"number": torch.arange(len(owners))}], torch.tensor(owners))
    return result


def test_each_post_is_to_be_found_by_the_mean_of_the_groups_others() -> None:
    """By the formula, one query after the other."""
    rng = torch.Generator().manual_seed(0)
    vectors = torch.randn(7, 8, generator=rng)
    owners = [0, 0, 0, 1, 1, NOBODY, 2]
    owned = {0: {0, 1, 2, 5}, 1: {3, 4}, 2: {6}}
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    expected = []
    for query in range(5):
        others = [row for row in range(7) if owners[row] == owners[query] and row != query]
        mean = unit[others].sum(0)
        scores = unit @ (mean / mean.norm()) / 0.05
        candidates = [row for row in range(7) if row == query or row not in owned[owners[query]]]
        expected.append(torch.logsumexp(scores[candidates], 0) - scores[query])
    assert torch.allclose(loss_of(owners, owned, vectors), torch.stack(expected).mean(), atol=1e-4)


def test_both_losses_are_lower_where_groups_are_alike() -> None:
    owners, owned = [0, 0, 1, 1], {0: {0, 1}, 1: {2, 3}}
    alike = torch.eye(2).repeat_interleave(2, 0)
    unlike = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    for kind in ("infonce", "bce"):
        assert loss_of(owners, owned, alike, loss=kind) < loss_of(owners, owned, unlike, loss=kind)
