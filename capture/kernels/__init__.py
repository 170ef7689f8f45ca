"""Compiled loops of the capture side; imported only where they are run."""
