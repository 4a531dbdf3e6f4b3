"""clouds -> overlap -> pairs -> chunks: one module a stage, from files to one artefact."""
