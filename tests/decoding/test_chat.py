"""Chats: tokens come as text piece by piece, and a folder that cannot be talked to says why."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import icd_lib as icd
from icd_lib.decoding.base import Decoder
from icd_lib.decoding.chat import answer, conversation_ids
from icd_lib.decoding.folder import check_chat, open_folder, stop_tokens
from icd_lib.errors import ArtifactError, ConfigError
from icd_lib.paths import project_root
from tests.tiny_decoders import tiny_decoder
from tests.tiny_words import tiny_words

HELLO = [{"role": "user", "content": "the man in"}]


class Saying(Decoder):
    """Says given tokens, whatever it reads."""

    def __init__(self, tokens, positions=None):
        super().__init__()
        self.tokens, self.positions, self.read = list(tokens), positions, None

    def _logits(self):
        logits = np.zeros((1, 264), np.float32)
        logits[0, self.tokens.pop(0)] = 1
        return logits

    def _prefill(self, prompt):
        self.read = prompt.ids[0].tolist()
        return self._logits()

    def _step(self, ids, positions):
        return self._logits()

    def _forget(self):
        pass


def test_a_conversation_is_written_by_its_template():
    words = tiny_words()
    ids = conversation_ids(words, HELLO)
    assert words.decode(ids) == "<|im_start|>user the man in<|im_end|><|im_start|>assistant "
    assert ids[0] == words.bos_token_id and words.eos_token_id in ids


def test_an_answer_comes_in_whole_characters_until_it_stops():
    words = tiny_words()
    tokens = words("thé €", add_special_tokens=False)["input_ids"]
    saying = Saying([*tokens, words.eos_token_id, 9, 9])
    pieces = list(answer(saying, words, HELLO, tokens=50, stop=(words.eos_token_id,)))
    assert "".join(pieces) == "thé €" and pieces == ["th", "é", " ", "€"]
    assert saying.read == conversation_ids(words, HELLO)


def test_an_answer_ends_at_its_length_and_at_the_positions():
    words = tiny_words()
    token = words("a", add_special_tokens=False)["input_ids"][0]
    length = len(conversation_ids(words, HELLO))
    assert "".join(answer(Saying([token] * 9), words, HELLO, tokens=3, stop=())) == "aaa"
    assert "".join(answer(Saying([token] * 9, length + 2), words, HELLO, tokens=9, stop=())) == "aa"


def test_what_cannot_be_talked_to_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no tokenizer"):
        check_chat(None)
    with pytest.raises(ConfigError, match="no chat template"):
        conversation_ids(tiny_words(template=None), HELLO)
    with pytest.raises(ArtifactError, match="holds no icd.json"):
        open_folder(tmp_path)


@pytest.mark.slow
def test_the_example_chats_with_a_folder(tmp_path):
    words = tiny_words()
    model = tiny_decoder(seed=3, dtype=torch.float32, vocab_size=264, eos_token_id=2)
    folder = icd.save_optimized(model, words, tmp_path / "model")
    decoder, tokenizer = open_folder(folder)
    assert stop_tokens(folder, tokenizer) == (2,)
    expected = "".join(answer(decoder, tokenizer, HELLO, tokens=8, stop=(2,)))
    script = project_root() / "examples" / "chat.py"
    asked = [sys.executable, str(script), str(folder), "--once", "the man in", "--tokens", "8"]
    done = subprocess.run(asked, capture_output=True, cwd=project_root(), check=True)
    assert expected and done.stdout.decode().rstrip("\n") == expected.rstrip("\n")
    words.chat_template = None
    icd.save_optimized(model, words, tmp_path / "other")
    done = subprocess.run([*asked[:2], str(tmp_path / "other"), *asked[3:]], capture_output=True, cwd=project_root())
    assert done.returncode == 2 and b"no chat template" in done.stderr


def test_the_example_chats_with_what_icd_export_wrote(tmp_path):
    """Another process reads the graph with its cache, and says what the model says in PyTorch."""
    pytest.importorskip("openvino")
    words, model = tiny_words(), tiny_decoder(seed=3, dtype=torch.float32, vocab_size=264, eos_token_id=2)
    icd.save_optimized(model, words, tmp_path / "model")
    decoder, tokenizer = open_folder(tmp_path / "model")
    expected = "".join(answer(decoder, tokenizer, HELLO, tokens=8, stop=(2,)))
    folder = icd.export(model, words, tmp_path / "exported", runtime="openvino")
    script = project_root() / "examples" / "chat.py"
    asked = [sys.executable, str(script), str(folder), "--once", "the man in", "--tokens", "8", "--threads", "1"]
    done = subprocess.run(asked, capture_output=True, cwd=project_root(), check=True)
    assert expected and done.stdout.decode().rstrip("\n") == expected.rstrip("\n")
