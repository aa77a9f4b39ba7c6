"""Several kernels on one input, or one kernel on several inputs, as one."""
