"""Between ir.Model and ModelProto, whole."""
