"""The fingerprint: complete, JSON-able, and free of names that identify a machine or a person."""

import getpass
import json
import os
import re
import socket

import torch

from icd_lib.measure.environment import fingerprint


def test_fingerprint_is_json_and_says_why_a_counter_is_missing():
    facts = json.loads(json.dumps(fingerprint()))
    assert facts["threads"]["torch"] == torch.get_num_threads()
    assert facts["packages"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]  # "+cu130" is the build
    assert facts["cpu"]["model"] and facts["cpu"]["usable_cores"] >= 1
    for state in facts["counters"].values():
        assert state["available"] == (state["reason"] is None)


def test_fingerprint_names_no_host_no_user_and_no_home():
    words = json.dumps(fingerprint())
    names = {socket.gethostname(), getpass.getuser()} - {"root", "localhost"}
    assert not [name for name in names if re.search(rf"\b{re.escape(name)}\b", words)]
    assert os.path.expanduser("~") not in words
