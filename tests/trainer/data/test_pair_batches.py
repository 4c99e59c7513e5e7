from datetime import timedelta

import numpy as np
import pytest

from encoders.package.manifest import MemberTemplate, PostTemplate, PromptForm, Templates
from encoders.package.model_package import TOKENIZER_FILE, ModelPackage
from schemas.ids import Micros
from tests.kit.data.events import activity, member_updated
from tests.kit.data.training_events import START, events, feed_of
from tests.kit.packages import make_tiny_package
from trainer.data.dataset import TrainingData, training_data
from trainer.data.pair_batches import PairBatches, draw_pairs
from trainer.data.rendering import TrainingPrompts
from trainer.settings import TrainSettings

SETTINGS = TrainSettings(batch_tokens=2_000, era=100, negatives=2, profile_only=0.3)
TEMPLATES = Templates(PostTemplate(("count.like", "text")), MemberTemplate(("headline",), history_ages=True))
TOKENS = 40_000


@pytest.fixture(scope="module")
def data() -> TrainingData:
    """Half of the members have a profile; each is shown the posts of another subject, which it does not act on."""
    recorded = [
        *events(200),
        *(member_updated(f"m{member}", headline=f"head {member}", at=START) for member in range(0, 24, 2)),
        *(
            activity(f"m{number % 24}", f"p{number}", "impression", at=START + timedelta(hours=number, minutes=1))
            for number in range(200)
        ),
    ]
    return training_data(feed_of(recorded), Micros(2**60), example_negatives=SETTINGS.negatives)


def new_prompts(package: ModelPackage) -> TrainingPrompts:
    return TrainingPrompts(package.manifest, package.folder / TOKENIZER_FILE, share_kept=1.0)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    folder = tmp_path_factory.mktemp("pairs") / "p"
    return make_tiny_package(folder, hidden=32, layers=1, member_form=PromptForm(), templates=TEMPLATES)


@pytest.fixture(scope="module")
def prompts(package: ModelPackage) -> TrainingPrompts:
    return new_prompts(package)


@pytest.fixture(scope="module")
def drawn(data: TrainingData, prompts: TrainingPrompts) -> PairBatches:
    return draw_pairs(data, prompts, SETTINGS, TOKENS, 0)


def test_a_batch_holds_no_more_tokens_than_it_may(drawn: PairBatches, prompts: TrainingPrompts) -> None:
    sizes = [
        sum(prompts.table.length(number) for number in set().union(*(drawn.pairs[pair].prompts for pair in batch)))
        for batch in drawn.batches
    ]
    assert max(sizes) <= SETTINGS.batch_tokens
    assert TOKENS - 2 * SETTINGS.batch_tokens <= drawn.num_tokens == sum(sizes) <= TOKENS
    assert [pair for batch in drawn.batches for pair in batch] == list(range(len(drawn.pairs)))


def test_the_same_seed_draws_the_same_pairs(data: TrainingData, prompts: TrainingPrompts, drawn: PairBatches) -> None:
    assert draw_pairs(data, prompts, SETTINGS, TOKENS, 0) == drawn
    assert draw_pairs(data, prompts, SETTINGS, TOKENS, 1) != drawn


def test_each_member_is_in_a_batch_once_and_shown_posts_are_never_its_own(
    data: TrainingData, drawn: PairBatches
) -> None:
    num_negatives = []
    for batch in drawn.batches:
        pairs = [drawn.pairs[pair] for pair in batch]
        owners = [pair.owner for pair in pairs]
        assert len(set(owners)) == len(owners) >= 2
        for pair in pairs:
            assert pair.target.post in data.owned[pair.owner]
            assert not {column.post for column in pair.negatives} & data.owned[pair.owner]
            num_negatives.append(len(pair.negatives))
    assert max(num_negatives) == SETTINGS.negatives


def test_members_with_a_profile_are_seen_without_their_history_too(
    drawn: PairBatches, prompts: TrainingPrompts
) -> None:
    """And those without one never are: nothing would be left of them."""
    special = prompts._prompts._special
    members = [prompts.table.prompts[pair.parts[0][0]] for pair in drawn.pairs]
    has_profile = np.array([special["headline"] in member for member in members])
    has_history = np.array([special["action.like"] in member for member in members])
    assert (has_profile | has_history).all()
    share = 1 - has_history[has_profile].mean()
    assert 0.15 < share < 0.55, "0.3 are asked for, and a member's first action has no history before it"


def test_auxiliary_tasks_are_pairs_too(package: ModelPackage) -> None:
    """The other posts of a group look for each of its posts."""
    settings = SETTINGS.model_copy(update={"tasks": {"interest": 0.5}, "group": 4, "nearby": 8})
    titled = [
        {**event, "text": f"{event['author_id'][:2]}: {event['text']}"} if "text" in event else event
        for event in events(100)
    ]
    data = training_data(feed_of(titled), Micros(2**60), ("interest",), example_negatives=0)
    drawn = draw_pairs(data, new_prompts(package), settings, TOKENS, 0)
    subjects = set(data.auxiliary["interest"].owner.tolist())
    groups = [pair for pair in drawn.pairs if pair.owner in subjects]
    assert 0 < len(groups) < len(drawn.pairs)
    for pair in groups:
        assert 1 <= len(pair.parts) < settings.group
        assert {weight for _, weight in pair.parts} == {1.0}
        assert pair.target.prompt not in {number for number, _ in pair.parts}
