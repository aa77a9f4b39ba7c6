"""The passes that ship with onnxhone, one file each; found through the entry points ``onnxhone.passes``.

::

    batch-branches       exact  the same kernels on several inputs run once on a batch of them, where that is faster
    cluster-weights      lossy  weights stored as indices into codebooks of 2 to 256 values, computed with in floats
    dedup-initializers   exact  keep one of equal weights, in all subgraphs, and transposed or reshaped ones too
    equalize-channels    exact  give channels between kernels like sizes, so that insert-qdq behind it loses less
    fold-shared-kernels  exact  remove constant, equal, parallel and unused channels, and sum the weights that read them
    insert-qdq           lossy  run kernels in int8 where it pays, inside the budget; ranges from the calibration feeds
    prune-channels       lossy  remove channels, neurons and heads that matter least, and refit what reads them
    prune-magnitude      lossy  weights set to 0, the others fitted anew: smaller under gzip, not faster
    quantize-dynamic     lossy  MatMul, Gemm and LSTM with constant weights in int8, activations quantized at each run
    quantize-weights     lossy  weights stored as 8 or 4 bit integers, in rows or blocks, computed with in floats
    refit-weights        lossy  kernels that were changed fitted so that their answers are the reference's again
    simplify             exact  folds constants and shapes, drops and merges operators, fuses scalings into kernels
    unique-names         exact  a name for every node, none twice, and no value that hides another of its name
    upgrade-opset        exact  raise the operator set to a newer version; functions are inlined, nothing is lost

A pass may import ``optimizer.contract``, ``optimizer.algorithms`` and what is below these, or their names in
``optimizer``; no other pass, and nothing that runs models. ``rules`` are the steps of simplify, one idea a file.
"""
