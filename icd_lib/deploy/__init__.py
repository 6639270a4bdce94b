"""A model as a folder that the users of a runtime load with the runtime's own tools."""
