"""What a training starts from: embeddings of words, by the texts that they are in."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from encoders.prompt.prompts import Prompt
from trainer.model.lsi_initialization import latent_directions, lsi_embeddings

NUM_SUBJECTS, WORDS_EACH, NUM_COMMON = 4, 5, 3
NUM_WORDS = NUM_SUBJECTS * WORDS_EACH
SUBJECT_OF = np.repeat(np.arange(NUM_SUBJECTS), WORDS_EACH)
"""Of each word; the words in common come after them."""


def texts(*, num_common: int, num_texts: int = 400) -> list[Prompt]:
    """In turn of each subject: most of its words, and some that all subjects have in common."""
    rng = np.random.default_rng(0)
    common = np.arange(NUM_WORDS, NUM_WORDS + NUM_COMMON)
    return [
        [
            *(number % NUM_SUBJECTS * WORDS_EACH + rng.choice(WORDS_EACH, WORDS_EACH - 1, replace=False)).tolist(),
            *rng.choice(common, num_common, replace=False).tolist(),
        ]
        for number in range(num_texts)
    ]


def likeness(words_VK: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(W, W): cosines of the subjects' words."""
    words_WK = words_VK[:NUM_WORDS]
    units_WK = words_WK / np.linalg.norm(words_WK, axis=1, keepdims=True)
    cosines_WW: npt.NDArray[np.float32] = units_WK @ units_WK.T
    return cosines_WW


def assert_subjects_are_together(cosines_WW: npt.NDArray[np.float32]) -> None:
    same_WW = SUBJECT_OF[:, None] == SUBJECT_OF
    assert cosines_WW[same_WW].min() > cosines_WW[~same_WW].max() + 0.5


@pytest.mark.parametrize("num_common", [0, 1, 3])
def test_words_that_go_together_begin_side_by_side(num_common: int) -> None:
    """Also where subjects share no word: then no direction is the strongest one, and none is all texts'."""
    embeddings_VH = lsi_embeddings(texts(num_common=num_common), NUM_WORDS + NUM_COMMON, NUM_SUBJECTS, seed=0)
    assert embeddings_VH.shape == (NUM_WORDS + NUM_COMMON, NUM_SUBJECTS)
    assert np.allclose(np.linalg.norm(embeddings_VH, axis=1), np.sqrt(NUM_SUBJECTS))
    assert_subjects_are_together(likeness(embeddings_VH[:, :-1]))


@pytest.mark.parametrize("num_common", [0, 1, 3])
def test_what_another_processor_rounds_otherwise_changes_no_likeness(num_common: int) -> None:
    prompts = texts(num_common=num_common)
    rows = np.repeat(np.arange(len(prompts)), [len(prompt) for prompt in prompts])
    tokens = np.concatenate(prompts)
    expected_WW = None
    for seed in range(8):
        rng = np.random.default_rng(seed)
        rounding = 1 + 1e-6 * rng.standard_normal(len(tokens)) * (seed > 0)
        order = rng.permutation(len(prompts)) if seed else np.arange(len(prompts))
        weights_PV = csr_matrix((rounding.astype(np.float32), (order[rows], tokens)))
        cosines_WW = likeness(latent_directions(weights_PV, NUM_SUBJECTS, seed))
        assert_subjects_are_together(cosines_WW)
        expected_WW = cosines_WW if expected_WW is None else expected_WW
        assert np.abs(cosines_WW - expected_WW).max() < 1e-3, f"with the rounding of seed {seed}"


def test_the_start_is_the_same_bits_with_any_number_of_blas_threads() -> None:
    rng = np.random.default_rng(0)
    prompts = [(rng.zipf(1.3, 40) % 1_000).tolist() for _ in range(3_000)]
    starts = []
    for threads in (1, 2, 3):
        with threadpool_limits(threads, "blas"):
            starts.append(lsi_embeddings(prompts, 1_000, 64, seed=0).tobytes())
    assert starts[0] == starts[1] == starts[2]


def test_texts_that_say_the_same_give_numbers_and_no_rounding() -> None:
    for prompts in ([[1, 2, 3]] * 50, [[1, 2], [3, 4]], [[1, 2, 3], [4, 5, 6]] * 30):
        embeddings_VH = lsi_embeddings(prompts, 20, 16, seed=0)
        assert np.allclose(np.linalg.norm(embeddings_VH, axis=1), 4)
        strengths = np.linalg.svd(embeddings_VH[:, :-1], compute_uv=False)
        assert (strengths > 1e-3).sum() <= len({tuple(prompt) for prompt in prompts}) - 1
