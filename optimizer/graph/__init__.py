"""Questions about a graph, and edits of it: what every other package stands on.

May import nothing of onnxhone but ``optimizer.errors``. Import its modules, and say which: ``queries.rank(value)``.

    traversal         every graph and node of a model, in order
    queries           what a node, a value or a graph is, by its neighbours
    constants         what is known before any run, and what may become of it
    editing           uses that move, values that replace others, nodes that go
    names             names in use and free ones; ``graph_tree``: which of them a subgraph sees
    operators         what operators are: one table of their properties
    linear_nodes      Conv, ConvTranspose, Gemm, MatMul, and their weights; ``weight_sources``: behind views
    tensors, sparse   how tensors are stored; ``file_size``: how many bytes they take
    permutations      arithmetic of Transpose
"""
