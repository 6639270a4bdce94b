"""A section of options: a class beside its user.

    class SolverOptions(Section):
        \"\"\"How layouts are searched for.\"\"\"

        refine_steps: int = option(2000, "steps of local search", low=0)

These lines are all there is: the defaults of scenarios and of Python's arguments, the checks and their messages, the
JSON Schema and the page of options are derived from them.
"""

from typing import Self

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator

from icd_lib.options.check import check_values
from icd_lib.options.field import aliases, fields
from icd_lib.options.option import option, plain


class Section(BaseModel):
    """Options that belong together; a value that one does not take is a `ConfigError` with the key and the cure.

    Lists may be given as lists or tuples and are held as tuples; numbers may be numpy's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _check(cls, given):
        return _held(check_values(plain(given), cls))

    @classmethod
    def __get_pydantic_json_schema__(cls, core, handler: GetJsonSchemaHandler) -> dict:
        """With the other names of options, which editors would underline else."""
        schema = handler(core)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for alias, name in aliases(cls).items():
            properties[alias] = properties[name] if fields(cls)[name].also_means is None else {"type": "boolean"}
        return schema

    def but(self, **changes) -> Self:
        """The same options with some of them changed."""
        return type(self)(**plain(self) | changes)


class Seeded(Section):
    """What draws at random."""

    seed: int = option(0, "seeds every random generator", low=0, high=2**32 - 1)


def _held(value):
    """Lists as tuples."""
    if isinstance(value, dict):
        return {key: _held(item) for key, item in value.items()}
    return tuple(map(_held, value)) if isinstance(value, list) else value
