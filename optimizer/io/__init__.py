"""Models in and out: files, protos, gs.Graph; nothing of a model is lost on the way.

May import ``optimizer.graph`` and ``optimizer.errors``. From top to bottom: model; reader, writer, surgeon; checker;
file_layout; protos, tensor_contents; external_data, atomic_files, file_diagnosis.
"""
