"""What an option is: typed sections, each declared beside its user; which values they take; the words of a refusal."""

from icd_lib.options.option import OMITTED, OneOf, Shape, option
from icd_lib.options.section import Section, Seeded

__all__ = ["OMITTED", "OneOf", "Section", "Seeded", "Shape", "option"]
