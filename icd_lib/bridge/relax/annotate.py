"""Annotate on Relax: what the layout says of the weights, as an attribute of the function, by parameter."""

from collections.abc import Mapping

from icd_lib.bridge.layout import Layout, in_words

LAYOUT, REFUSED, OFFERS = "icd.layout", "icd.refused", "icd.tiles"


def annotate(module, layout: Layout, names: Mapping[str, str]):
    """(module with `icd.layout` = {variable: [entries]} on its function, log); names: variable → parameter."""
    found = {variable: layout[name] for variable, name in names.items() if name in layout}
    log = [f"{names[variable]}: {in_words(entry)}" for variable, entries in found.items() for entry in entries]
    return with_attribute(module, LAYOUT, found), log


def strip(module):
    """The module without our attributes."""
    for name in (LAYOUT, REFUSED, OFFERS):
        if name in (module["main"].attrs or {}):
            module = with_attribute(module, name, None)
    return module


def layout_on(module) -> Layout:
    """Variable → entries that the function carries, in plain Python."""
    attributes = module["main"].attrs
    if not attributes or LAYOUT not in attributes:
        return {}
    return {
        str(variable): [
            {key: str(value) if key in ("axis", "pi") else int(value) for key, value in entry.items()}
            for entry in entries
        ]
        for variable, entries in attributes[LAYOUT].items()
    }


def with_attribute(module, name: str, value):
    """The module, its function with an attribute, or without it where the value is None."""
    main = module["main"]
    changed = module.clone() if hasattr(module, "clone") else type(module)(dict(module.functions.items()))
    changed["main"] = main.without_attr(name) if value is None else main.with_attr(name, value)
    return changed
