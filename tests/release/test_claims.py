"""Claims: pages state what committed sources say, a rerun that differs is told, every stated number is listed."""

import json
import re
from dataclasses import replace

import pytest
import yaml

from icd_lib.errors import ArtifactError
from icd_lib.paths import project_root
from icd_lib.release import claims
from icd_lib.release.claims import Claim, check, commands, compare, load_claims, main, rerun
from icd_lib.report.readme import END, START

FIGURE = {"value": -0.4, "unit": "fraction", "kind": "measured", "n": 9, "method": "m", "ci95": [-0.42, -0.38]}
CLAIM = Claim(
    id="faster",
    says="iterative against dense",
    where="README.md",
    stated="-40.0 % (-42.0 … -38.0)",
    source="outputs/reference/x/verdict.json : vs_dense / latency_rel",
    shown_as="change",
    command="python -c pass",
    minutes=1,
    hardware="any CPU",
    tolerance=0.05,
    verdict="met",
)


@pytest.fixture
def root(tmp_path):
    """A project with one reference run, one fresh run, one page."""
    for folder, value in (("outputs/reference/x", -0.4), ("outputs/x", -0.37)):
        (tmp_path / folder).mkdir(parents=True)
        found = {"vs_dense": {"latency_rel": FIGURE | {"value": value}}}
        (tmp_path / folder / "verdict.json").write_text(json.dumps(found))
    (tmp_path / "README.md").write_text(f"It is {CLAIM.stated} faster.")
    return tmp_path


def test_the_projects_pages_state_what_their_sources_say():
    assert check(load_claims(), project_root()) == []


def test_every_number_of_the_readmes_table_is_a_claim():
    text = (project_root() / "README.md").read_text(encoding="utf-8").partition(START)[2].partition(END)[0]
    numbers = re.findall(r"[+-]\d+\.\d+(?: %| pp)|\b0\.\d{3}\b", text)
    stated = " ".join(claim.stated for claim in load_claims() if claim.where == "README.md")
    assert numbers and [number for number in numbers if number not in stated] == []


def test_a_wrong_number_on_a_page_or_in_the_list_is_told(root):
    assert check([CLAIM], root) == []
    (root / "README.md").write_text("It is -41.0 % faster.")
    (wrong,) = check([CLAIM], root)
    assert "README.md does not state" in wrong
    (wrong,) = check([replace(CLAIM, stated="-41.0 %")], root)
    assert "the source says" in wrong


@pytest.mark.parametrize(("tolerance", "holds"), [(0.05, True), (0.02, False)])
def test_a_rerun_is_compared_within_the_tolerance(root, tolerance, holds, capsys):
    claim = replace(CLAIM, tolerance=tolerance)
    assert compare(claim, root)[0] is holds
    assert rerun([claim], root, 5) == (0 if holds else 1)
    assert ("BROKEN" in capsys.readouterr().out) is not holds


def test_words_are_compared_as_they_are(root):
    for folder in ("outputs/reference/x", "outputs/x"):
        (root / folder / "verdict.json").write_text(json.dumps({"smoke": {"status": "pass"}}))
    claim = replace(CLAIM, source="outputs/reference/x/verdict.json : smoke / status", shown_as="word")
    assert compare(claim, root) == (True, "pass (stated: pass)")


def test_what_takes_too_long_or_another_machine_is_left_out(monkeypatch):
    monkeypatch.setattr(claims, "has_cuda", lambda: False)
    listed = [CLAIM, replace(CLAIM, id="b", minutes=60), replace(CLAIM, id="c", hardware="CUDA GPU")]
    chosen, left = commands(listed, 5)
    assert chosen == ["python -c pass"] and set(left) == {"b", "c"} and "60 minutes" in left["b"]


def test_what_is_of_another_board_is_left_out(monkeypatch):
    monkeypatch.setattr(claims, "has_cuda", lambda: True)
    monkeypatch.setattr(claims, "cuda_name", lambda: "NVIDIA A100")
    boards = {"h200": "CUDA: NVIDIA H200", "a100": "CUDA: NVIDIA A100", "any": "CUDA GPU"}
    chosen, left = commands([replace(CLAIM, id=name, hardware=board) for name, board in boards.items()], 5)
    assert chosen == ["python -c pass"] and left == {"h200": "is of NVIDIA H200, and here is NVIDIA A100"}


def test_a_command_that_fails_breaks_its_claims(root, capsys):
    broken = replace(CLAIM, command="python -c 'raise SystemExit(3)'")
    assert rerun([broken], root, 5) == 1
    assert "ended with code 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", ["", "claims: [", "claims: [{id: a}]", "claims: 3", "- 1", "claims: [!!python/object/apply:os.getcwd []]"]
)
def test_a_damaged_list_is_an_error(tmp_path, text):
    (tmp_path / "claims.yaml").write_text(text)
    with pytest.raises(ArtifactError, match="claims.yaml"):
        load_claims(tmp_path)


def test_update_writes_what_the_sources_say(root, monkeypatch, capsys):
    monkeypatch.setattr(claims, "project_root", lambda: root)
    (root / "claims.yaml").write_text(claims.as_yaml([replace(CLAIM, stated="-1 %")]))
    assert main(["--check"]) == 1 and main(["--update"]) == 0 and main([]) == 0
    assert yaml.safe_load((root / "claims.yaml").read_text())["claims"][0]["stated"] == CLAIM.stated
    assert "1 claims: the pages state" in capsys.readouterr().out


def test_a_source_without_the_number_is_an_error(root, monkeypatch, capsys):
    monkeypatch.setattr(claims, "project_root", lambda: root)
    (root / "claims.yaml").write_text(
        claims.as_yaml([replace(CLAIM, source="outputs/reference/x/verdict.json : nope")])
    )
    assert main([]) == 7 and "has no nope" in capsys.readouterr().err
