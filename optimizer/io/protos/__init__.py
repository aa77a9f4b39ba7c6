"""Between ir.Model and ModelProto, whole.

Of ``optimizer.io`` it may import external_data, atomic_files and file_diagnosis.
"""
