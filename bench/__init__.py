"""The figures of the project, each beside its reference in the same run: `just bench`."""
