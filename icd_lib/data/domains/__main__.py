"""The domains of text that a scenario can name: `python -m icd_lib.data.domains`."""

from icd_lib.data.domains.registry import DOMAINS, load_domain
from icd_lib.errors import ResourceError


def main() -> None:
    """One line per domain: name, what it is, what its labels say, and how many texts there are."""
    for name, domain in DOMAINS.items():
        try:
            count = f"{len(load_domain(name)):,} texts"
        except ResourceError as error:
            count = f"not here: {error.args[0]}"
        print(f"{name:<14} {domain.words} ({domain.labelled}): {count}")


if __name__ == "__main__":
    main()
