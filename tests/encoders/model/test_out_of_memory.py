"""A device without memory: what is waited out, what is refused, and how the budget comes back."""

from collections.abc import Callable
from threading import Lock
from typing import Any

import numpy as np
import pytest
import torch

from encoders.errors import DeviceFull, EncodingFailed, Unencodable
from encoders.model import packed_model
from encoders.model.device_memory import CudaMemory, is_out_of_memory
from encoders.model.loading import load_model
from encoders.model.packed_model import PackedModel
from encoders.package.model_package import ModelPackage

CPU = torch.device("cpu")
PROMPTS = [[token] * length for token, length in enumerate([3, 9, 30, 30, 7, 1, 25], start=1)]
CUBLAS = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"


def out_of_memory() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB")


class Card:
    """A model on a card that has room for so many tokens, and its memory."""

    def __init__(self, model: PackedModel, room: int, *, error: Callable[[], Exception] = out_of_memory) -> None:
        self._model = model.forward.model
        self.room = room
        self.others_hold_some = False
        self.error = error
        self.tries: list[int] = []
        self.on_release: Callable[[], None] = lambda: None
        model.forward.model = self  # type: ignore[assignment]
        model.memory = self

    def __call__(self, **inputs: Any) -> Any:
        num_tokens = inputs["input_ids"].shape[1]
        self.tries.append(num_tokens)
        if num_tokens > self.room:
            raise self.error()
        return self._model(**inputs)

    def release(self) -> None:
        self.on_release()

    def is_otherwise_empty(self) -> bool:
        return not self.others_hold_some


def new_model(package: ModelPackage, budget_tokens: int = 1000, **options: Any) -> PackedModel:
    model = load_model(package.folder, package.manifest, CPU)
    return PackedModel(model, package.manifest, CPU, budget_tokens, **options)


def as_on_a_gpu(model: PackedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch after the other, and a call waits for its vectors only when the next call may be launched."""
    lock = Lock()

    class Moment:
        def __init__(self, _: torch.device) -> None:
            assert lock.locked()

        def wait(self) -> None:
            assert not lock.locked()

        def seconds_to(self, _: "Moment") -> float:
            return 2.0

    monkeypatch.setattr(packed_model, "CudaMoment", Moment)
    model._pool, model._device_lock = None, lock


@pytest.fixture(params=["cpu", "gpu"])
def model(request: pytest.FixtureRequest, package: ModelPackage, monkeypatch: pytest.MonkeyPatch) -> PackedModel:
    model = new_model(package)
    if request.param == "gpu":
        as_on_a_gpu(model, monkeypatch)
    return model


def stacked(model: PackedModel) -> Any:
    return np.stack(model.run(PROMPTS).vectors)  # type: ignore[arg-type]


def test_the_time_of_a_gpu_is_that_between_the_moments_of_a_call(
    package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = new_model(package)
    expected = stacked(model)
    as_on_a_gpu(model, monkeypatch)
    model.stats.device_s = 1.0
    assert stacked(model) == pytest.approx(expected, abs=1e-6)
    assert model.stats.device_s == 3.0


def test_a_gpu_computes_once_what_it_has_not_tried_after_a_batch_that_did_not_fit(
    package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = stacked(new_model(package))
    model = new_model(package, budget_tokens=60)
    as_on_a_gpu(model, monkeypatch)
    card = Card(model, room=55)
    assert stacked(model) == pytest.approx(expected, abs=1e-6)
    assert card.tries[0] == 60
    assert sum(card.tries[1:]) == sum(map(len, PROMPTS))


def test_a_text_that_no_batch_has_computed_is_never_a_vector_of_zeros(
    model: PackedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_batches = model._run_batches
    monkeypatch.setattr(model, "_run_batches", lambda call, part, rows: run_batches(call, part, rows[1:]))
    skipped, *others = model.run(PROMPTS).vectors
    assert isinstance(skipped, Unencodable)
    assert not any(isinstance(vector, Unencodable) for vector in others)


def test_a_card_that_is_full_for_a_moment_loses_no_text(model: PackedModel) -> None:
    expected = stacked(model)
    card = Card(model, room=5)
    card.others_hold_some = True
    for _ in range(2):
        with pytest.raises(DeviceFull, match="memory of cpu is full now"):
            model.run(PROMPTS)
    assert model.budget_tokens == 1000
    card.room, card.others_hold_some = 1000, False
    assert stacked(model) == pytest.approx(expected, abs=1e-6)


def test_a_text_is_refused_if_it_fails_twice_on_an_otherwise_empty_card(model: PackedModel) -> None:
    card = Card(model, room=20)
    assert model.run([[1] * 21]).vectors == [Unencodable("its 21 tokens do not fit the device's memory")]
    assert card.tries == [21, 21, 21]


def test_in_a_process_that_holds_more_than_the_model_no_text_is_refused(package: ModelPackage) -> None:
    """The card looks empty: what the process itself holds, such as a hot tier, does not count as others'."""
    model = new_model(package, shares_memory=True)
    card = Card(model, room=20)
    with pytest.raises(DeviceFull, match="memory of cpu is full now"):
        model.run([[1] * 21])
    card.room = 100
    assert isinstance(model.run([[1] * 21]).vectors[0], np.ndarray)


@pytest.mark.parametrize("seen_empty", [1, 2])
def test_a_card_that_others_fill_between_two_tries_is_not_the_text_s_fault(model: PackedModel, seen_empty: int) -> None:
    card = Card(model, room=20)
    releases = []

    def release() -> None:
        releases.append(1)
        card.others_hold_some = len(releases) > seen_empty

    card.on_release = release
    with pytest.raises(DeviceFull):
        model.run([[1] * 21])
    assert card.tries == [21] * (1 + seen_empty)


def test_a_text_that_fits_at_last_has_its_vector(model: PackedModel) -> None:
    (expected,) = model.run([[1] * 21]).vectors
    card = Card(model, room=20)
    card.on_release = lambda: setattr(card, "room", 100)
    (vector,) = model.run([[1] * 21]).vectors
    assert vector == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("error", [out_of_memory, lambda: RuntimeError(CUBLAS), MemoryError])
def test_the_budget_is_halved_and_comes_back(model: PackedModel, error: Callable[[], Exception]) -> None:
    expected = stacked(model)
    card = Card(model, room=31, error=error)
    assert stacked(model) == pytest.approx(expected, abs=1e-6)
    assert model.budget_tokens <= 31
    assert model.stats.halvings > 0
    card.room = 1000
    for _ in range(200):
        if model.budget_tokens == 1000:
            break
        model.run(PROMPTS * 10)
    assert model.budget_tokens == 1000


def test_memory_that_runs_out_while_a_bad_text_is_tried_again_refuses_nothing(model: PackedModel) -> None:
    card = Card(model, room=1000)
    failures = iter([ValueError("a bad text, it seems"), None, out_of_memory()])

    def fail_as_planned(**inputs: Any) -> Any:
        failure = next(failures, None)
        if failure is not None:
            raise failure
        return Card.__call__(card, **inputs)

    model.forward.model = fail_as_planned  # type: ignore[assignment]
    (vector,) = model.run([[1] * 21]).vectors
    assert isinstance(vector, np.ndarray)


def test_a_full_card_is_no_broken_one(model: PackedModel) -> None:
    def no_room_for_anything(**_: Any) -> Any:
        raise RuntimeError(CUBLAS) if len(tries) else ValueError("a bad text, it seems")

    tries: list[int] = []
    model.forward.model = no_room_for_anything  # type: ignore[assignment]
    with pytest.raises(EncodingFailed) as raised:
        model.run([[1]])
    assert type(raised.value) is EncodingFailed
    tries.append(1)
    model.memory = card = Card(model, room=0)
    card.others_hold_some = True
    with pytest.raises(DeviceFull):
        model.run([[1]])


def test_what_torch_says_without_memory_is_understood() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 50)
    assert is_out_of_memory(raised.value)
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))


GIB = 1024**3


@pytest.mark.parametrize(
    ("free", "reserved", "fraction", "is_empty"),
    [
        (60, 19, 1.0, True),  # nothing but contexts
        (50, 19, 1.0, False),  # a neighbour
        (50, 19, 0.5, True),  # a neighbour in its own half
        (10, 19, 0.5, False),  # who holds more than that
    ],
)
def test_a_card_is_otherwise_empty_if_others_leave_this_process_its_share(
    monkeypatch: pytest.MonkeyPatch, free: int, reserved: int, fraction: float, is_empty: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free * GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: reserved * GIB)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda _: fraction)
    assert CudaMemory(torch.device("cuda", 0)).is_otherwise_empty() == is_empty
