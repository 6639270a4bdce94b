"""The model card of an export, from facts that were measured; what was not measured says so."""

from dataclasses import dataclass

from icd_lib.metric import Figure
from icd_lib.report.words import interval_text, value_text
from icd_lib.runtimes.base import Users

_TASKS = {"last_hidden_state": "ForFeatureExtraction", "logits": "ForSequenceClassification"}


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Latency at a shape ("8x128"), relative to `against`, in words."""

    shape: str
    against: str
    change: Figure


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A reading of quality lost on a split of text ("unseen"), percentage points; `where`: the runtime it is of."""

    split: str
    reading: str
    where: str
    figure: Figure


@dataclass(frozen=True, kw_only=True)
class Card:
    """What is known of an exported model besides what its files say.

    title: its name; place: the folder as people will write it; source: the model it was made from; licence: that one's
    machine: what latency was measured on; again: the command that makes it again; notes: what else has to be known
    """

    title: str | None = None
    place: str | None = None
    source: str | None = None
    licence: str | None = None
    machine: str | None = None
    speeds: tuple[Speed, ...] = ()
    losses: tuple[Lost, ...] = ()
    again: str | None = None
    notes: tuple[str, ...] = ()


def card_text(card: Card, facts: dict, users: Users, folder: str) -> str:
    """README.md of an export whose record says `facts`, in a folder of that name."""
    place = card.place or folder
    parts = [
        _front(card, facts),
        f"# {card.title or folder}",
        _what(card, facts),
        "## Load it\n\n" + _loading(facts, users, place),
        "## How much faster\n\n" + _speeds(card),
        "## What it loses\n\n" + _losses(card),
        "## What was checked\n\n" + _checked(facts),
        "## Make it again\n\n" + (f"```\n{card.again}\n```" if card.again else "It was not said how."),
    ]
    if card.notes:
        parts.append("## To know\n\n" + "\n".join(f"- {note}" for note in card.notes))
    return "\n\n".join(parts) + "\n"


def _front(card: Card, facts: dict) -> str:
    lines = ["---"]
    if card.licence and card.licence not in ("none", "not stated"):
        lines.append(f"license: {card.licence}")
    if facts["pooling"]:
        lines += ["library_name: sentence-transformers", "pipeline_tag: sentence-similarity"]
    return "\n".join([*lines, "tags:", "- icd", f"- {facts['runtime']}", "---"])


def _what(card: Card, facts: dict) -> str:
    lines = [f"- Runtime: {facts['label']}", f"- Made from: {card.source or 'not said'}"]
    lines.append(f"- Inputs: {', '.join(facts['inputs'])}; output: {facts['output']}")
    if facts["widths"]:
        kinds: dict[str, list[str]] = {}
        for axis, size in facts["widths"].items():
            kinds.setdefault(axis.partition(".")[0], []).append(str(size))
        lines += [f"- Widths by layer, {kind}: {', '.join(sizes)}" for kind, sizes in kinds.items()]
    if facts["pooling"]:
        unit = ", of unit length" if facts["normalize"] else ""
        lines.append(
            f"- Embedding: {facts['pooling']} over tokens{unit}; at most {facts['max_length']} tokens are read"
        )
    if facts["emulated"]:
        lines.append(f"- Warning: {facts['emulated']}")
    if facts.get("doubt"):
        lines.append(f"- Warning: {facts['doubt']}")
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return "\n".join([*lines, f"- Written with {versions}"])


def _loading(facts: dict, users: Users, place: str) -> str:
    """Python for every way in which the folder is loaded, and which of them nobody tried."""
    hints, parts = facts["hints"], dict[str, str]()
    if facts["pooling"] and facts["loads_plain"]:
        lines = [*sentence_lines(users, place), 'model.encode(["The weather is lovely today."])']
        parts["sentence-transformers"] = "\n".join(lines)
    told = f", {users.argument}={hints}" if users.argument else ""
    if users.prefix and facts["output"] in _TASKS:
        name = f"{users.prefix}Model{_TASKS[facts['output']]}"
        parts[users.module] = f'from {users.module} import {name}\nmodel = {name}.from_pretrained("{place}"{told})'
    elif facts["loads_plain"] and not users.prefix:
        name = facts["architecture"]
        parts["transformers"] = f'from transformers import {name}\nmodel = {name}.from_pretrained("{place}")'
    checked = {name for name, found in facts["verified"].items() if found["status"] == "verified"}
    blocks = []
    for name, part in parts.items():
        blocks.append(f"```python\n{part}\n```")
        if name not in checked:
            blocks.append(f"Not checked with {name} where this was made.")
    blocks.append(f"```python\n{users.code.format(folder=place, hints=hints)}\n```")
    return "\n\n".join([*blocks, users.note] if users.note else blocks)


def sentence_lines(users: Users, place: str) -> list[str]:
    """Two lines that load an export with sentence-transformers."""
    backend = f', backend="{users.backend}"' if users.prefix else ""
    return [
        "from sentence_transformers import SentenceTransformer",
        f'model = SentenceTransformer("{place}"{backend})',
    ]


def _speeds(card: Card) -> str:
    if not card.speeds:
        return "Not measured."
    lines = [f"Measured on {card.machine or 'a machine that was not named'}.", ""]
    lines += ["| batch x tokens | against | latency, relative change (95 % interval) |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {one.shape} | {one.against} | {told_figure(one.change)} |" for one in card.speeds)])


def _losses(card: Card) -> str:
    if not card.losses:
        return "Not measured."
    lines = ["Percentage points lost against the dense model in fp32; a negative number is a gain.", ""]
    lines += ["| text | quality | judged in | lost (95 % interval) |", "|---|---|---|---|"]
    rows = (f"| {one.split} | {one.reading} | {one.where} | {told_figure(one.figure)} |" for one in card.losses)
    return "\n".join([*lines, *rows])


def told_figure(item: Figure) -> str:
    """A figure with its interval, or why there is none."""
    if item.value is None:
        return f"not measured: {item.reason}"
    return value_text(item.value, item.unit) + (f" ({interval_text(item.ci95, item.unit)})" if item.ci95 else "")


def _checked(facts: dict) -> str:
    lines = []
    for name, found in facts["verified"].items():
        if found["status"] != "verified":
            lines.append(f"- {name}: not checked, {found['reason']}")
            continue
        versions = ", ".join(f"{package} {version}" for package, version in found["versions"].items())
        lines.append(
            f"- {name}: loaded in a process of its own; largest difference to the model as it was exported "
            f"{found['max_abs_error']:.2g}, least cosine {found['min_cosine']:.6f} ({versions})"
        )
    eager = facts["against_eager"]
    lines.append(
        f"- Against the same model in PyTorch, fp32: largest difference {eager['max_abs_error']:.2g}, least cosine "
        f"{eager['min_cosine']:.6f}, on {eager['what']}"
    )
    return "\n".join(lines)
