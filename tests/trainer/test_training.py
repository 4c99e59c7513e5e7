import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from threadpoolctl import threadpool_limits
from torch.optim.optimizer import register_optimizer_step_pre_hook

from encoders.encoder import Encoder
from encoders.package.manifest import MANIFEST_FILE, render_manifest
from encoders.package.model_package import WEIGHTS_FILE, ModelPackage
from nearline.commands._recorded_events import read_feed
from tests.kit.commands import CommandResult, Commands
from tests.kit.data.events import write_events
from tests.kit.data.training_events import TEXTS_ALONE, events
from tests.kit.forks import Forks, Run, output_of
from tests.kit.packages import make_tiny_package
from tests.kit.torch_threads import torch_threads
from trainer.data.dataset import training_data
from trainer.data.feed import Feed
from trainer.evaluation.evaluation import Evaluation
from trainer.evaluation.task import evaluation_task
from trainer.evaluation.untrained import untrained_start
from trainer.preparation import prepare, starting_point
from trainer.settings import TrainSettings, read_settings
from trainer.training import Plan
from trainer.training import train as train_package

TOKENS = 16_000
"""Some thirty steps."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "train.toml").write_text(TEXTS_ALONE)
    return write_events(folder / "events.jsonl", events())


@pytest.fixture
def commands() -> Commands:
    return Commands()


def train(commands: Commands, recorded: Path, out: Path, *more: str | Path, tokens: int = TOKENS) -> CommandResult:
    config = recorded.parent / "train.toml"
    return commands(
        "train", "--events", recorded, "--out", out, "--config", config, "--tokens", str(tokens), *more
    )  # fmt: skip


@pytest.fixture(scope="module")
def feed(recorded: Path) -> Feed:
    return read_feed([str(recorded)])


@pytest.fixture(scope="module")
def plan(recorded: Path, feed: Feed) -> Plan:
    return Plan(feed.cut(0.15), TOKENS, 0, read_settings(recorded.parent / "train.toml"), "same")


@pytest.fixture(scope="module")
def whole(recorded: Path, feed: Feed, plan: Plan) -> ModelPackage:
    """Trained with two threads, while numpy's BLAS has two as well."""
    with torch_threads(2), threadpool_limits(2, "blas"):
        package = train_package(feed, plan, recorded.parent / "whole")
    assert package is not None
    return package


def test_a_package_is_trained_served_and_loaded_by_stock_sentence_transformers(
    feed: Feed, plan: Plan, whole: ModelPackage
) -> None:
    assert [path.name for path in whole.folder.parent.glob("*whole*")] == ["whole"]
    encoder = Encoder.load(whole.folder, device="cpu")
    manifest = encoder.package.manifest
    stock = SentenceTransformer(str(whole.folder), device="cpu", local_files_only=True)
    text = "flour and yeast in the oven"
    prompt = f"{manifest.special_tokens['text']}{text}"
    assert np.allclose(stock.encode(prompt), encoder.encode_text(text), atol=1e-5)
    record = manifest.training
    with torch_threads(2):
        planned = plan.record(training_data(feed, plan.cut_us))
    assert {name: record[name] for name in planned} == json.loads(json.dumps(planned))
    assert record["counts"]["posts"] < 400
    assert record["seen"]["tokens"] <= TOKENS
    assert record["losses"][-1][1] < record["losses"][0][1]
    recalls = {figures["history"]: figures["groups"]["protocol"]["recall"]["10"] for figures in record["figures"]}
    assert recalls["acted"] > 0.6, "chance finds 0.17, words in common 0.5"
    assert len(manifest.quantiles["count.like"]) == 99
    assert manifest.quantiles["count.like"][-1] == 2


def test_the_untrained_start_is_made_once_more_of_the_same_events(
    tmp_path: Path, feed: Feed, plan: Plan, whole: ModelPackage
) -> None:
    """So the gate can ask whether training gave more. A package that was not made from nothing has another start."""
    assert [rival["system"] for rival in whole.manifest.training["rivals"]] == ["tf-idf", "bm25", "untrained"]
    again = untrained_start(whole, feed, plan.cut_us, tmp_path / "again")
    assert again is not None
    (tmp_path / "work").mkdir()
    first = starting_point(plan, training_data(feed, plan.cut_us), tmp_path / "work").trained_model()
    weights = load_file(again.folder / WEIGHTS_FILE)
    assert all(torch.equal(weights[name], weight) for name, weight in first.state_dict().items())
    evaluation = Evaluation(feed, evaluation_task(feed, plan.cut_us))
    recall = evaluation.as_served(again).result.groups["protocol"].recall["100"]
    assert recall == whole.manifest.training["rivals"][-1]["recall"]
    assert untrained_start(make_tiny_package(tmp_path / "tiny"), feed, plan.cut_us, tmp_path / "other") is None


def test_the_same_seed_gives_the_same_package_after_a_kill_and_without_a_compiler_too(
    commands: Commands, forks: Forks, recorded: Path, whole: ModelPackage, tmp_path: Path
) -> None:
    """It began in a process that finds no compiler and whose BLAS has one thread, not two; the record does not speak of
    them."""
    killed = tmp_path / "killed"
    config = recorded.parent / "train.toml"
    arguments = [str(argument) for argument in (recorded, killed, config, TOKENS, 13)]
    no_compiler = {"CXX": "no-such-compiler", "PATH": ""}
    child = Run("tests.kit.children.train_until_killed", arguments, str(tmp_path / "output"), no_compiler)
    assert forks.run(child) == [-signal.SIGKILL], output_of(child)
    assert not killed.exists()
    assert "go on with --resume" in train(commands, recorded, killed).err
    refused = train(commands, recorded, killed, "--resume", "--id", "same")
    assert "other events, settings or versions" in refused.err, "torch has one thread here, not two"
    work = tmp_path / ".killed.training"
    assert (work / "checkpoint-10").is_dir()
    (work / "checkpoint-15").mkdir()  # a kill while it was written
    with torch_threads(2):
        assert "other events, settings" in train(commands, recorded, killed, "--resume", "--seed", "1").err
        ran = train(commands, recorded, killed, "--resume", "--id", "same")
    assert (ran.status, ran.out) == (0, f"{whole.generation}\n"), ran.err
    assert not work.exists()


def test_training_goes_on_from_a_package(commands: Commands, recorded: Path, tmp_path: Path) -> None:
    start = make_tiny_package(tmp_path / "start", hidden=32, layers=1)
    ran = train(commands, recorded, tmp_path / "next", "--from", start.folder, tokens=4_000)
    assert ran.status == 0, ran.err
    package = ModelPackage.load(tmp_path / "next")
    assert package.manifest.base_model.name == "tiny"
    assert package.manifest.files["tokenizer.json"] == start.manifest.files["tokenizer.json"]
    assert package.manifest.files["model.safetensors"] != start.manifest.files["model.safetensors"]


def test_a_start_that_cannot_be_measured_costs_no_training_that_is_done(
    commands: Commands, recorded: Path, tmp_path: Path
) -> None:
    """Only whoever encodes with the start sees that it gives other vectors than it recorded."""
    start = make_tiny_package(tmp_path / "start", hidden=32, layers=1)
    golden, *others = start.manifest.goldens
    opposite = replace(golden, vector=(-np.frombuffer(golden.vector, np.float32)).tobytes())
    (start.folder / MANIFEST_FILE).write_bytes(render_manifest(replace(start.manifest, goldens=[opposite, *others])))
    ran = train(commands, recorded, tmp_path / "next", "--from", start.folder, tokens=1_000)
    assert ran.status == 0, ran.err
    assert "warning: the untrained start is not measured: " in ran.err
    record = ModelPackage.load(tmp_path / "next").manifest.training
    assert [rival["system"] for rival in record["rivals"]] == ["tf-idf", "bm25"]
    assert "gives another vector than recorded" in record["untrained_not_measured"]


def test_tokens_are_dropped_unless_a_package_is_the_start(feed: Feed) -> None:
    """Words in their order are what it knows."""
    data = training_data(feed, feed.cut(0.15))
    chosen, dropping = TrainSettings(), TrainSettings(token_dropout=0.1)
    plans = [
        Plan(data.cut_us, TOKENS, 0, settings, "mine", start)
        for settings in (chosen, dropping)
        for start in (None, Path("other"))
    ]
    assert [plan.record(data)["settings"]["token_dropout"] for plan in plans] == [0.5, 0.0, 0.1, 0.1]


def test_the_rate_rises_in_the_warm_up_and_then_falls(tmp_path: Path, feed: Feed, plan: Plan) -> None:
    settings = plan.settings.model_copy(update={"warmup": 0.5})
    warm = Plan(plan.cut_us, TOKENS, 0, settings, "warm")
    data = training_data(feed, warm.cut_us)
    trainer, seen = prepare(starting_point(warm, data, tmp_path), data, warm, tmp_path)
    trainer.create_optimizer_and_scheduler(seen["steps"])
    assert trainer.optimizer is not None
    assert trainer.lr_scheduler is not None
    rates = []
    for _ in range(seen["steps"]):
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
        rates.append(trainer.lr_scheduler.get_last_lr()[0])
    risen = seen["steps"] // 2
    assert rates[:risen] == pytest.approx([rates[risen - 1] * step / risen for step in range(1, risen + 1)])
    assert rates[risen - 1 :] == sorted(rates[risen - 1 :], reverse=True)
    assert rates[-1] < rates[risen - 1] / 100


def test_gradients_are_clipped_before_the_fused_optimizer_sees_them(tmp_path: Path, feed: Feed, plan: Plan) -> None:
    """A low temperature makes them large."""
    strange = plan.settings.model_copy(update={"temperature": 1e-3})
    data = training_data(feed, plan.cut_us)
    clipped = Plan(plan.cut_us, 4_000, 0, strange, "clipped")
    trainer, _ = prepare(starting_point(clipped, data, tmp_path), data, clipped, tmp_path)
    trainer.args.logging_steps = 1
    norms: list[float] = []

    def note(optimizer: torch.optim.Optimizer, *_: object) -> None:
        assert optimizer.defaults["fused"]
        gradients = [weight.grad for group in optimizer.param_groups for weight in group["params"]]
        norms.append(float(torch.nn.utils.get_total_norm(gradients)))

    hook = register_optimizer_step_pre_hook(note)
    try:
        trainer.train()
    finally:
        hook.remove()
    before = [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry]
    assert max(before) > 2
    assert len(norms) == len(before)
    assert norms == pytest.approx([min(1.0, norm) for norm in before], rel=1e-3)


def test_pooling_is_a_setting_and_the_package_is_loaded_with_it(
    commands: Commands, recorded: Path, tmp_path: Path
) -> None:
    config = tmp_path / "last.toml"
    config.write_text(TEXTS_ALONE + 'pooling = "last"')
    ran = train(commands, recorded, tmp_path / "last", "--config", config, tokens=2_000)
    assert ran.status == 0, ran.err
    encoder = Encoder.load(tmp_path / "last", device="cpu")
    assert encoder.package.manifest.pooling == "last"
    stock = SentenceTransformer(str(tmp_path / "last"), device="cpu", local_files_only=True)
    prompt = f"{encoder.package.manifest.special_tokens['text']}flour and yeast"
    assert np.allclose(stock.encode(prompt), encoder.encode_text("flour and yeast"), atol=1e-5)


def test_bad_input_is_one_sentence_and_leaves_nothing(commands: Commands, recorded: Path, tmp_path: Path) -> None:
    whole = recorded.read_bytes()
    (tmp_path / "cut.jsonl").write_bytes(whole[:-30])
    (tmp_path / "posts.jsonl").write_bytes(b"".join(line for line in whole.splitlines(True) if b"activity" not in line))
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "typo.toml").write_text("tokens_of_batch = 3")
    bad = make_tiny_package(tmp_path / "bad", hidden=32, layers=1).folder
    (bad / "tokenizer.json").write_text("{}")
    config = recorded.parent / "train.toml"
    out = tmp_path / "out" / "package"
    refusals: tuple[tuple[list[str | Path], str], ...] = (
        (["--events", tmp_path / "cut.jsonl"], "cut.jsonl:1200: the record is not valid JSON"),
        (["--events", tmp_path / "posts.jsonl"], "no positive action"),
        (["--events", tmp_path / "missing.jsonl"], "cannot be opened"),
        (["--events", recorded, "--config", config, "--from", tmp_path / "bert"], "type bert; only llama"),
        (["--events", recorded, "--from", bad], "tokenizer.json is not the file that was recorded"),
        (["--events", recorded, "--config", tmp_path / "typo.toml"], "tokens_of_batch"),
    )
    for arguments, words in refusals:
        ran = commands("train", "--out", out, "--tokens", "1000", *arguments)
        assert ran.status == 1
        assert words in ran.err
        assert ran.err.count("\n") == 1, ran.err
        assert not out.parent.exists() or not list(out.parent.iterdir()), words
    assert (bad / MANIFEST_FILE).exists()
