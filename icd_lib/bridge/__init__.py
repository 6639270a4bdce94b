"""The compiler bridge: a model in StableHLO (for IREE) and in Relax (for TVM), its layout told to the compiler.

`torch.export` records the model at fixed shapes; a child process imports the recording into the compiler's own form,
runs the passes (annotate, fold, legalise, tile) and compiles it; what it leaves in a folder runs without torch.
"""
