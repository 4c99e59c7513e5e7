"""What of other libraries comes in with the encoder."""

import subprocess
import sys


def test_whoever_has_asked_transformers_before_gets_the_encoder_too() -> None:
    code = """
from transformers import PreTrainedTokenizerFast
from transformers.utils import is_scipy_available, is_sklearn_available
print(is_scipy_available(), is_sklearn_available())
import encoders.encoder
print(is_scipy_available(), is_sklearn_available())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "True True\nTrue True\n"), done.stderr


def test_the_encoder_brings_no_library_that_it_does_not_use_and_hides_none_from_others() -> None:
    code = """
import sys
import encoders.encoder
print(sorted({"sklearn", "scipy", "pandas", "matplotlib", "datasets", "sentence_transformers"} & set(sys.modules)))
from transformers.utils import is_scipy_available, is_sklearn_available
import sklearn.feature_extraction.text, scipy.sparse
print(is_sklearn_available(), is_scipy_available())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout.split("\n")) == (0, ["[]", "True True", ""]), done.stderr
