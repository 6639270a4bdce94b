"""The workload of the mock and trace scenarios: a real table, gathered and accumulated in the order of a layout."""

from icd_lib.workloads.rows.measured import measure_layouts, simulate_table
from icd_lib.workloads.rows.table import TableRunner, TableWorkload, address_stream, place_rows

__all__ = ["TableRunner", "TableWorkload", "address_stream", "measure_layouts", "place_rows", "simulate_table"]
