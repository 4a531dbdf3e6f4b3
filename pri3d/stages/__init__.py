"""The stages clouds, overlap, pairs and chunks: one module per stage, files to artefact."""
