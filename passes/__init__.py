"""The passes that ship with onnxhone, one file each; found through the entry points ``onnxhone.passes``."""
