"""What this project publishes about its options, written from the sections: the page and the JSON Schema."""

import json
import sys
from pathlib import Path

from icd_lib.options import OMITTED, Section
from icd_lib.options.field import REQUIRED, Field, fields
from icd_lib.paths import project_root
from icd_lib.report.marked import with_marked
from icd_lib.run.options import json_schema, scenario_options
from icd_lib.run.scenario import parameters_dir
from icd_lib.storage.atomic import atomic_write

HEAD = "| key | default | takes | unit | meaning |\n|---|---|---|---|---|"


def options_table(section: type[Section], where: str = "") -> str:
    """The options of a section as rows of a table; those of sections within it after its own."""
    lines = []
    for key, field in fields(section).items():
        path = f"{where}.{key}" if where else key
        inner = field.section
        lines.append(options_table(inner, path) if inner is not None else _row(path, field))
    return "\n".join(lines)


def options_text() -> str:
    """A table for the run as a whole, then one a section."""
    every = fields(scenario_options())
    whole = [_row(key, field) for key, field in every.items() if field.section is None]
    parts = ["## The run as a whole", "\n".join([HEAD, *whole])]
    for key, field in every.items():
        if field.section is not None:
            parts += [
                f"## {key}",
                field.section.__doc__.splitlines()[0],
                f"{HEAD}\n{options_table(field.section, key)}",
            ]
    return "\n\n".join(parts)


def published() -> dict[Path, str]:
    """Path → text of every file that is written from the sections."""
    page = project_root() / "docs" / "OPTIONS.md"
    schema = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    return {
        page: with_marked(page.read_text(encoding="utf-8"), "options", f"\n{options_text()}\n"),
        parameters_dir() / "scenario.schema.json": schema,
    }


def _row(path: str, field: Field) -> str:
    cells = [f"`{path}`", _default(field), field.takes(), field.unit or "", field.doc + _also(path, field)]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _also(path: str, field: Field) -> str:
    if not field.also:
        return ""
    means = ", ".join(f"{str(given).lower()}: {own}" for given, own in (field.also_means or {}).items())
    return f"; also given as `{path.rpartition('.')[0]}.{field.also}`" + (f" ({means})" if means else "")


def _default(field: Field) -> str:
    if field.default is REQUIRED:
        return "the file's name"
    return "–" if field.default is OMITTED else f"`{json.dumps(field.default)}`"


def main(arguments: list[str]) -> int:
    """Write them, or with --check exit 1 when one is not what the sections say."""
    made = published()
    stale = [path for path, text in made.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    if "--check" in arguments:
        print("Options: " + (f"{', '.join(path.name for path in stale)} differ" if stale else "published as declared"))
        return int(bool(stale))
    for path in stale:
        atomic_write(path, made[path])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
