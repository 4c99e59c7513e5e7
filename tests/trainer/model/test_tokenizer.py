"""The tokenizer of a training, which several processes save and read."""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from trainer.model.tokenizer import save_tokenizer, train_tokenizer


class SeenWhileSaved(PreTrainedTokenizerFast):
    """Notes what another process would read while this one saves the tokenizer."""

    file: Path
    seen: bytes

    def save_pretrained(self, folder: Any, *arguments: Any, **options: Any) -> Any:
        (Path(folder) / "tokenizer.json").write_bytes(b"")
        self.seen = self.file.read_bytes()
        return super().save_pretrained(folder, *arguments, **options)


def test_a_process_that_saves_the_tokenizer_spoils_it_for_no_other(tmp_path: Path) -> None:
    trained = train_tokenizer(["flour and yeast"] * 3, 300, ["<|text|>"])
    file = save_tokenizer(trained, tmp_path)
    whole = file.read_bytes()
    assert Tokenizer.from_str(whole.decode()).get_vocab() == trained.get_vocab()
    again = SeenWhileSaved(tokenizer_object=trained.backend_tokenizer, pad_token=trained.pad_token)
    again.file = file
    assert save_tokenizer(again, tmp_path) == file
    assert again.seen == file.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
