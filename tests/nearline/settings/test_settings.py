import math
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, SecretStr

from nearline.errors import BadSettings
from nearline.settings.instance import Instance, locked, write_instance
from nearline.settings.loading import (
    instance_settings,
    instance_settings_file,
    load_settings,
    read_settings,
    write_settings,
)
from nearline.settings.settings import Settings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NEARLINE_DATA_DIR", "NEARLINE_CONFIG", "NEARLINE_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "nearline.toml"
    file.write_text(
        'log_level = "debug"\n[kafka]\npartitions = 2\noptions = {"sasl.password" = "from-file"}\n[serve]\nport = 1\n'
    )
    return file


def test_flags_beat_the_environment_and_it_beats_the_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEARLINE_SERVE__PORT", "2")
    monkeypatch.setenv("NEARLINE_KAFKA__PARTITIONS", "3")
    settings = load_settings(config, None, serve__port=4)
    assert (settings.log_level, settings.kafka.partitions, settings.serve.port) == ("debug", 3, 4)
    assert settings.kafka.options["sasl.password"].get_secret_value() == "from-file"


def test_variables_of_commands_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NEARLINE_CACHE_DIR", "NEARLINE_CONFIG", "NEARLINE_PORTS", "NEARLINE_REGISTRY"):
        monkeypatch.setenv(name, "read elsewhere")
    assert load_settings() == load_settings(None, Path(".nearline"))


def test_the_data_folder_is_absolute_and_may_come_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings().data_dir == tmp_path / ".nearline"
    monkeypatch.setenv("NEARLINE_DATA_DIR", str(tmp_path / "env"))
    assert load_settings().data_dir == tmp_path / "env"
    assert load_settings(None, Path("flag")).data_dir == tmp_path / "flag"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("NEARLINE_KAFKA__PARTITION", "3", "kafka.partition in the environment is no setting; there are: bootstrap"),
        ("NEARLINE_KAFAK__PARTITIONS", "3", "NEARLINE_KAFAK__PARTITIONS in the environment names no setting"),
        ("NEARLINE_KAFKA__PARTITIONS", "many", "kafka.partitions in the environment is wrong: input should be a valid"),
        ("NEARLINE_KAFKA__PARTITIONS", "0", "kafka.partitions in the environment is wrong: input should be greater"),
        ("NEARLINE_KAFKA", "3 partitions", "NEARLINE_KAFKA in the environment is not JSON"),
        ("NEARLINE_KAFKA__OPTIONS", "{bad", "NEARLINE_KAFKA__OPTIONS in the environment is not JSON"),
        ("NEARLINE_KAFKA__BOOTSTRAP_SERVERS", "", "kafka.bootstrap_servers in the environment is wrong: it is empty;"),
        ("NEARLINE_HOT__DEVICE", "gpu", "hot.device in the environment is wrong: .*give auto, cpu, cuda, or"),
        ("NEARLINE_ENCODE__DEVICE", "cuda:", "encode.device in the environment is wrong: .*give auto, cpu, cuda, or"),
        ("NEARLINE_DATA_DIR", "", "data_dir in the environment is wrong: it is empty; name a folder, or leave it out"),
        ("NEARLINE_LOG_LEVEL", "loud", "log_level in the environment is wrong: input should be 'debug', 'info'"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadSettings, match=sentence):
        load_settings()


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("[hot]\nwindow = 3\n", r"hot.window in .*wrong.toml is no setting; there are: window_s"),
        (
            "[serve]\nport = 70000\n",
            r"serve.port in .*wrong.toml is wrong: input should be less than or equal to 65535",
        ),
        (
            "[encode]\ndevice = 'gpu'\n",
            r"encode.device in .*wrong.toml is wrong: give auto, cpu, cuda, or cuda:N such as",
        ),
        ("[cold]\nurl = 'qdrant:6333'\n", r"cold.url in .*wrong.toml is wrong: begin it with http:// or https://"),
        (
            "[cold]\nurl = 'http://qdrant:abc'\n",
            r"cold.url in .*wrong.toml is wrong: its port is no number up to 65535",
        ),
        ("[cold]\nurl = 'http://qdrant:66333'\n", r"cold.url in .*wrong.toml is wrong: its port is no number up to"),
        (
            "[monitor]\nurl = 'monitor:9308'\n",
            r"monitor.url in .*wrong.toml is wrong: begin it with http:// or https:// and a host, such as http://monitor:9308",
        ),
        (
            "[traces]\nendpoint = 'collector:4318'\n",
            r"traces.endpoint in .*wrong.toml is wrong: begin it with http:// or https:// and a host",
        ),
        (
            "[serve]\nurl = 'retriever:8080'\n",
            r"serve.url in .*wrong.toml is wrong: begin it with http:// or https:// and a host",
        ),
        ("[kafka]\nnode_id = 'a b'\n", r"kafka.node_id in .*wrong.toml is wrong: give 1 to 100 letters, digits and"),
        (
            "[kafka.options]\nsecurity.protocol = 'SSL'\n",
            r'kafka.options in .*wrong.toml is wrong: put names with dots into quotes, such as "security.protocol"$',
        ),
        (
            "[kafka.options]\n'linger.ms' = 10\n",
            r"kafka.options in .*wrong.toml is wrong: linger.ms must be text; put its value into quotes",
        ),
        ('data_dir = "a\\u0000b"\n', r"data_dir in .*wrong.toml is wrong: its name must be text in UTF-8"),
        ("[serve\n", r"the configuration .*wrong.toml is not TOML"),
    ],
)
def test_a_wrong_file_is_named(body: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(body)
    with pytest.raises(BadSettings, match=sentence):
        load_settings(file)


def _number_settings(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _number_settings(kind, f"{prefix}{name}.")
        elif float in (kind, *get_args(kind)):
            yield f"{prefix}{name}"


@pytest.mark.parametrize("value", ["inf", "nan"])
def test_a_number_is_finite_unless_it_says_that_it_need_not_be(value: str, tmp_path: Path) -> None:
    """Both are numbers in TOML. A stage would fail where it counts with one, again and again."""
    file, names = tmp_path / "strange.toml", set(_number_settings(Settings))
    assert {"rules.waiting_s", "stalled_after_s", "cold.timeout_s", "hot.snapshot_every_s"} < names
    for name in names:
        file.write_text(f"{name} = {value}\n")
        if (name, value) == ("hot.window_s", "inf"):
            assert load_settings(file).hot.window_s == math.inf
            continue
        with pytest.raises(BadSettings, match=rf"^{name} in .*strange\.toml is wrong: "):
            load_settings(file)


def test_what_is_wrong_with_a_section_is_said_of_its_key(tmp_path: Path) -> None:
    """A flag for another key of the section must not be blamed."""
    file = tmp_path / "wrong.toml"
    file.write_text("[serve]\nprivate_key_file = 'k.pem'\n")
    with pytest.raises(
        BadSettings, match=r"serve.private_key_file in .*wrong.toml is wrong: give both certificate_file"
    ):
        load_settings(file, serve__port=0)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"none.toml cannot be read"):
        load_settings(tmp_path / "none.toml")


def test_a_wrong_value_is_not_repeated_since_it_may_be_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEARLINE_KAFKA__OPTIONS", '["hunter2"]')
    with pytest.raises(BadSettings) as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "option", ["plugin.library.paths", "sasl.kerberos.kinit.cmd", "ssl.engine.location", "ssl.providers"]
)
def test_settings_from_elsewhere_cannot_make_the_kafka_client_run_code(tmp_path: Path, option: str) -> None:
    file = tmp_path / "strange.toml"
    file.write_text(f'[kafka.options]\n"{option}" = "/tmp/evil"\n')
    with pytest.raises(
        BadSettings, match=rf"kafka\.options in .*strange.toml is wrong: .*{option} would make the Kafka client load"
    ):
        load_settings(file)


@pytest.mark.parametrize("section", ["serve", "monitor"])
def test_the_key_may_be_in_a_file(tmp_path: Path, section: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.write_text("hunter2\n")
    monkeypatch.setenv(f"NEARLINE_{section.upper()}__API_KEY_FILE", str(file))
    settings = load_settings()
    keys = {"serve": settings.serve.api_key, "monitor": settings.monitor.api_key}
    assert keys == {"serve": None, "monitor": None, section: SecretStr("hunter2")}
    assert "hunter2" not in repr(settings)
    write_settings(settings, instance_settings_file(tmp_path))
    assert read_settings(instance_settings_file(tmp_path)) == settings, "the monitor is a child, and has it too"
    file.write_text("\n")
    with pytest.raises(BadSettings, match=rf"{section}.api_key_file: .* is empty"):
        load_settings()
    file.write_bytes(b"\xff")
    with pytest.raises(BadSettings, match=rf"{section}.api_key_file: .* is not text in UTF-8"):
        load_settings()
    file.unlink()
    with pytest.raises(
        BadSettings, match=rf"{section}.api_key_file: {file} cannot be read: No such file or directory$"
    ):
        load_settings()
    monkeypatch.setenv(f"NEARLINE_{section.upper()}__API_KEY", "own")
    assert getattr(load_settings(), section).api_key == SecretStr("own")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"api_key": ""}, "serve.api_key as a flag is wrong: .* at least one character"),
        ({"api_key": "hunter2\n"}, "serve.api_key as a flag is wrong: .* without line ends"),
        (
            {"certificate_file": "c.pem"},
            "serve.certificate_file as a flag is wrong: give both certificate_file and private_key_file",
        ),
        ({"in_flight": 0}, "serve.in_flight as a flag is wrong"),
    ],
)
def test_what_would_leave_the_door_open_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadSettings, match=sentence) as caught:
        load_settings(**{f"serve__{name}": value for name, value in settings.items()})
    assert "hunter2" not in str(caught.value)


def test_an_empty_key_of_the_monitor_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEARLINE_MONITOR__API_KEY", "")
    with pytest.raises(BadSettings, match=r"monitor.api_key in the environment is wrong: .* at least one character"):
        load_settings()


def test_files_of_https_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    serve = load_settings(
        serve__certificate_file="c.pem", serve__private_key_file="k.pem", serve__ca_file="ca.pem"
    ).serve
    files = (serve.certificate_file, serve.private_key_file, serve.ca_file)
    assert files == (tmp_path / "c.pem", tmp_path / "k.pem", tmp_path / "ca.pem")


def test_children_read_what_their_parent_wrote_and_nobody_else_does(tmp_path: Path, config: Path) -> None:
    settings = load_settings(config, tmp_path, serve__api_key="hunter2", package=tmp_path / "package")
    write_settings(settings, instance_settings_file(tmp_path))
    assert read_settings(instance_settings_file(tmp_path)) == settings
    assert stat.S_IMODE((tmp_path / "settings.json").stat().st_mode) == 0o600


def test_commands_take_the_settings_of_what_runs_and_not_of_what_was_killed(tmp_path: Path) -> None:
    write_settings(load_settings(None, tmp_path, serve__api_key="hunter2"), instance_settings_file(tmp_path))
    assert instance_settings(None, tmp_path).serve.api_key is None, "nothing runs there"
    # A pid that somebody has: pids are given out again.
    _write_instance(tmp_path, supervisor_pid=1)
    assert instance_settings(None, tmp_path).serve.api_key is None, "it was killed"
    with locked(tmp_path):
        assert instance_settings(None, tmp_path).serve.api_key == SecretStr("hunter2")
        assert instance_settings(None, tmp_path, serve__api_key="own").serve.api_key == SecretStr("own")


def test_the_package_of_what_runs_is_the_one_that_serves(tmp_path: Path) -> None:
    """Its settings may name the first one, which was replaced since."""
    write_settings(load_settings(None, tmp_path, package=tmp_path / "first"), instance_settings_file(tmp_path))
    _write_instance(tmp_path, supervisor_pid=1, package="/models/second")
    with locked(tmp_path):
        assert instance_settings(None, tmp_path).package == Path("/models/second")
        assert instance_settings(None, tmp_path, package=Path("/own")).package == Path("/own")


def test_settings_made_in_code_read_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEARLINE_SERVE__PORT", "2")
    assert Settings().serve.port == 8080


def _write_instance(data_dir: Path, supervisor_pid: int, package: str = "p") -> None:
    instance = Instance(supervisor_pid, "127.0.0.1:1", "g", package, None, None, False, [], "2026-01-05T10:00:00Z")
    write_instance(data_dir, instance)
