"""The six stages of a run; each notebook calls one of them and shows what it returns."""
