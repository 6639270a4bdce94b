"""What the files of a run hold, as types: one declaration of each for what writes it and for what reads it back."""
