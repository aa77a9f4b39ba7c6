"""Models in and out: files, protos, gs.Graph; nothing of a model is lost on the way."""
