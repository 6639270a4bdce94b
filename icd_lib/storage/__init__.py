"""Files below everything: written wholly or not at all, read back with limits, kept per machine."""
