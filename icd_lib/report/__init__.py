"""What a run's files say, drawn and in words: figures, tables, pages. Nothing is measured or changed here."""

from icd_lib.report.results import Results
from icd_lib.report.table import badges

__all__ = ["Results", "badges"]
