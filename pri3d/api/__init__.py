"""The parts of the public Python API that are more than one function of another package."""
