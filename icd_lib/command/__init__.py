"""The command `icd`: a model on one's own text, without a scenario and without Python."""
